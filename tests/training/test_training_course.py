"""How a training goes: early stop, means of the weights, folds, its log, and the dry run before it."""

import json
import shutil

import pytest
import torch
from torch import nn
from training.tiny_run import tiny_settings

from radiogen.errors import ConfigError, OutputError, TrainingError
from radiogen.io.cases import find_cases
from radiogen.io.tensors import load_tensors
from radiogen.training import dry_run as dry_run_module
from radiogen.training import loop as training_module
from radiogen.training import train as train_module
from radiogen.training.dry_run import dry_run
from radiogen.training.loop import averaged_copy
from radiogen.training.settings import TrainingSettings, TrainOptions
from radiogen.training.train import train, train_folds

CPU = torch.device("cpu")
FOLDS = TrainOptions(preset="small", folds=2)
SHORT = ("training.epochs=1", "training.patches_per_case=1")


def test_the_mean_of_the_weights_forgets_its_start():
    network = nn.Linear(1, 1, bias=False)
    averaged = averaged_copy(network, TrainingSettings(ema_decay=0.9))
    for value in (1.0, 0.0, 0.0):
        network.weight.data.fill_(value)
        averaged.update_parameters(network)
    assert averaged.module.weight.item() == pytest.approx(1.0 * 2 / 11 * 3 / 12)


def test_it_stops_when_validation_gets_no_better_and_keeps_the_best(made_cases, tmp_path, monkeypatch):
    dice, seen = iter((0.1, 0.5, 0.4, 0.5, 0.9)), []

    def scripted(network, cases, *_):
        seen.append({name: tensor.clone() for name, tensor in network.state_dict().items()})
        value = next(dice)
        return [{"case_id": c.case_id, "prior": "box", "prompt": "oracle", "dice": value} for c in cases]

    monkeypatch.setattr(training_module, "validate", scripted)
    settings = tiny_settings(
        *("training.epochs=9", "training.patches_per_case=1", "training.ema_decay=0.8"),
        *("training.validate_every=1", "training.patience=2"),
    )
    trained = train(made_cases, tmp_path / "model", settings, FOLDS, CPU)
    assert len(seen) == len(trained.metrics["epochs"]) == 4
    assert trained.metrics["kept_epoch"] == 1
    kept = load_tensors(tmp_path / "model" / "model.safetensors")
    assert all(torch.equal(kept[name], tensor) for name, tensor in seen[1].items())
    assert any(not torch.equal(kept[name], tensor) for name, tensor in seen[3].items())
    card = (tmp_path / "model" / "MODEL_CARD.md").read_text()
    assert "epoch 2, the best on the held-out cases" in card and "they flatter" in card
    assert "Fold 0 of 2, by patient, from seed 0: 2 cases of 2 patients" in card
    record = json.loads((tmp_path / "model" / "model.run.json").read_text())
    assert any("stopped after 4 epochs" in decision for decision in record["decisions"])


def test_the_card_tells_cohorts_priors_and_synthetic_lesions(made_cases, tmp_path):
    settings = tiny_settings(
        *SHORT,
        "training.synthetic_lesions=0.5",
        "training.priors=[box, box, box, none]",
        "training.lungs_empty=0.4",
    )
    train(made_cases, tmp_path / "model", settings, TrainOptions(preset="small"), CPU)
    card = (tmp_path / "model" / "MODEL_CARD.md").read_text()
    for said in ("| phantoms | 4 | 4 | outlined lesions |", "box 75%, none 25%", "50% of the patches"):
        assert said in card
    assert "Of the patches without a box 40% lie anywhere and get no synthetic lesion" in card
    assert "Not for clinical use" in card and "## What it is not for" in card


def test_folds_become_an_ensemble_in_which_each_case_is_measured_once(made_cases, tmp_path, monkeypatch):
    out, settings = tmp_path / "ensemble", tiny_settings(*SHORT)
    whole = train_module.train_one
    monkeypatch.setattr("radiogen.training.train.train_one", die_in("fold1", whole))
    with pytest.raises(KeyboardInterrupt):
        train_folds(made_cases, out, settings, FOLDS, CPU)
    assert not (out / "ensemble.json").exists()
    first = (out / "fold0" / "model.safetensors").stat().st_mtime_ns
    monkeypatch.undo()
    folds = train_folds(made_cases, out, settings, FOLDS, CPU)
    assert (out / "fold0" / "model.safetensors").stat().st_mtime_ns == first
    content = json.loads((out / "ensemble.json").read_text())
    assert content == {"members": ["fold0", "fold1"], "format_version": 1}
    told = sorted((row["case_id"], row["prior"]) for row in folds.validation)
    every = [case.case_id for case in find_cases(made_cases)]
    assert told == sorted((case, prior) for case in every for prior in ("box", "lungs", "none"))
    assert len(folds.summary()) == 3 and "4 cases" in folds.summary()[0]
    assert not (out / "prepared").exists()
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    train_folds(made_cases, out, settings, FOLDS, CPU)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


def die_in(name, whole):
    def train_one(cases, out, *rest):
        if out.name == name:
            raise KeyboardInterrupt
        return whole(cases, out, *rest)

    return train_one


def test_an_ensemble_takes_two_folds_and_no_model_in_its_place(made_cases, tiny_model, tmp_path):
    with pytest.raises(ConfigError, match="add --folds"):
        train_folds(made_cases, tmp_path / "e", tiny_settings(), TrainOptions(preset="small"), CPU)
    with pytest.raises(OutputError, match="single model"):
        train_folds(made_cases, tiny_model.folder, tiny_settings(), FOLDS, CPU)


def test_tensorboard_sees_the_rows_and_not_the_machine(made_cases, tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    settings = tiny_settings("training.epochs=2", "training.patches_per_case=1", "training.tensorboard=true")
    trained = train(made_cases, tmp_path / "model", settings, FOLDS, CPU)
    (file,) = (tmp_path / "model" / "tensorboard").iterdir()
    assert file.name == "events.out.tfevents.training"
    events = accumulator.EventAccumulator(str(file)).Reload()
    losses = [(event.step, event.value) for event in events.Scalars("loss")]
    assert losses == [(row["epoch"], pytest.approx(row["loss"])) for row in trained.metrics["epochs"]]
    assert [event.step for event in events.Scalars("dice/box (oracle)")] == [1]


def test_activations_computed_twice_change_nothing_of_a_whole_training(made_cases, tmp_path):
    for name, more in (("once", ()), ("twice", ("training.checkpoint_activations=true",))):
        train(made_cases, tmp_path / name, tiny_settings(*SHORT, *more), FOLDS, CPU)
    first, second = (tmp_path / name for name in ("once", "twice"))
    for file in ("model.safetensors", "metrics.json"):
        assert (first / file).read_bytes() == (second / file).read_bytes()


def test_a_dry_run_tells_what_it_takes_and_leaves_nothing(made_cases, tmp_path):
    settings = tiny_settings("training.accumulate=2", "training.ema_decay=0.9")
    forecast = dry_run(made_cases, tmp_path / "model", settings, FOLDS, CPU, every_fold=True)
    assert list(tmp_path.iterdir()) == []
    assert forecast.fits and forecast.steps == 1 and forecast.folds == 2
    assert forecast.patches.startswith("4 patches of 32 x 32 x 32")
    assert forecast.total_s > 2 * 3 * forecast.step_s
    assert [line.split("\t")[0] for line in forecast.lines()] == [
        *("device", "step", "epochs", "memory", "disk", "time", "fits")
    ]


def test_a_dry_run_refuses_what_cannot_fit(made_cases, tmp_path, monkeypatch):
    monkeypatch.setattr(dry_run_module, "free_memory_mb", lambda _: 5.0)
    with pytest.raises(TrainingError, match=r"needs more than 0\.\d GB.*checkpoint_activations"):
        dry_run(made_cases, tmp_path / "model", tiny_settings(), FOLDS, CPU)
    monkeypatch.undo()
    used = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(dry_run_module.shutil, "disk_usage", lambda _: used._replace(free=1000))
    forecast = dry_run(made_cases, tmp_path / "model", tiny_settings(), FOLDS, CPU)
    assert not forecast.fits
    with pytest.raises(TrainingError, match="disk"):
        forecast.check()


def test_a_training_can_begin_with_a_model_and_remembers_whom_that_has_seen(made_cases, tiny_model, tmp_path):
    begun = TrainOptions(preset="small", start=tiny_model.folder)
    slow = tiny_settings(*SHORT, "training.learning_rate=1e-9", "training.weight_decay=0")
    train(made_cases, tmp_path / "more", slow, begun, CPU)
    first, more = (
        load_tensors(folder / "model.safetensors") for folder in (tiny_model.folder, tmp_path / "more")
    )
    for name, weight in first.items():
        torch.testing.assert_close(more[name], weight, rtol=0, atol=1e-6)
    about = json.loads((tmp_path / "more" / "config.json").read_text())
    assert about["patients_seen"] == sorted(tiny_model.config.patients_seen)
    assert f"began with model {tiny_model.hash}" in (tmp_path / "more" / "MODEL_CARD.md").read_text()


def test_a_model_to_begin_with_has_to_fit_and_not_to_have_seen_the_held_out(made_cases, tiny_model, tmp_path):
    begun = TrainOptions(preset="small", start=tiny_model.folder)
    for settings, options, named in (
        (tiny_settings("network.full_width=3"), begun, "was made with --preset small"),
        (tiny_settings(), begun.model_copy(update={"folds": 2}), "has seen patients that are held out"),
        (tiny_settings(), begun.model_copy(update={"pruned": tmp_path}), "beside --pruned"),
    ):
        with pytest.raises(ConfigError, match=named):
            train(made_cases, tmp_path / "more", settings, options, CPU)
    assert not (tmp_path / "more").exists()
