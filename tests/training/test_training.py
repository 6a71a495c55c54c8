"""Training: the same numbers whatever stops it, weight masks that hold, patients that are remembered."""

import json

import pytest
import torch
from training.tiny_run import tiny_settings

from radiogen.errors import ConfigError, ModelError, OutputError, TrainingError
from radiogen.io.cases import find_cases
from radiogen.io.tensors import load_tensors
from radiogen.model.folder import load_model
from radiogen.pruning.settings import CriterionSettings
from radiogen.pruning.weight_masks import load_weight_masks
from radiogen.training import loop as training_module
from radiogen.training.prune import PruneOptions, prune
from radiogen.training.settings import TrainOptions
from radiogen.training.task import choose_cases
from radiogen.training.train import train

CPU = torch.device("cpu")
OPTIONS = TrainOptions(preset="small")


def weights(folder):
    return load_tensors(folder / "model.safetensors")


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(made_cases, tiny_model, tmp_path):
    train(made_cases, tmp_path / "again", tiny_settings(), OPTIONS, CPU)
    train(made_cases, tmp_path / "other", tiny_settings(), TrainOptions(preset="small", seed=1), CPU)
    first, again, other = weights(tiny_model.folder), weights(tmp_path / "again"), weights(tmp_path / "other")
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_an_interrupted_training_goes_on_to_the_same_weights(made_cases, tiny_model, tmp_path, monkeypatch):
    saved = training_module.save_checkpoint

    def stop_in_the_second_epoch(path, learned, about):
        saved(path, learned, about)
        if about["epoch"] == 1 and about["step"] == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(training_module, "save_checkpoint", stop_in_the_second_epoch)
    every_step = tiny_settings("training.checkpoint_minutes=0")
    with pytest.raises(KeyboardInterrupt):
        train(made_cases, tmp_path / "model", every_step, OPTIONS, CPU)
    monkeypatch.undo()
    assert not (tmp_path / "model" / "model.safetensors").exists()
    refusing = OPTIONS.model_copy(update={"resume": False})
    with pytest.raises(TrainingError, match="unfinished"):
        train(made_cases, tmp_path / "model", tiny_settings(), refusing, CPU)
    trained = train(made_cases, tmp_path / "model", tiny_settings(), OPTIONS, CPU)
    expected = json.loads((tiny_model.folder / "metrics.json").read_text())
    assert trained.metrics["epochs"] == expected["epochs"]
    first, again = weights(tiny_model.folder), weights(tmp_path / "model")
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == [
        *("MODEL_CARD.md", "config.json", "metrics.json", "metrics.jsonl", "model.run.json"),
        *("model.safetensors", "progress.png"),
    ]


def test_a_finished_model_is_kept_or_refused_but_never_mixed(made_cases, tiny_model):
    before = (tiny_model.folder / "model.safetensors").stat().st_mtime_ns
    train(made_cases, tiny_model.folder, tiny_settings(), OPTIONS, CPU)
    assert (tiny_model.folder / "model.safetensors").stat().st_mtime_ns == before
    with pytest.raises(OutputError, match="other settings"):
        train(made_cases, tiny_model.folder, tiny_settings("training.epochs=4"), OPTIONS, CPU)
    with pytest.raises(OutputError, match="finished model"):
        options = OPTIONS.model_copy(update={"existing": "fail"})
        train(made_cases, tiny_model.folder, tiny_settings(), options, CPU)


def test_training_learns(made_cases, tmp_path):
    trained = train(made_cases, tmp_path / "m", tiny_settings("training.epochs=24"), OPTIONS, CPU)
    losses = [row["loss"] for row in trained.metrics["epochs"]]
    assert losses[-1] < 0.8 * losses[0]


def test_pruned_weights_are_zero_in_the_trained_model(made_cases, tmp_path):
    options = PruneOptions(
        preset="small", criterion=CriterionSettings(sparsity=0.6, scope="layer"), samples=4
    )
    pruned = prune(made_cases, tmp_path / "pruned", tiny_settings(), options, CPU)
    assert pruned.sparsity == pytest.approx(0.6, abs=0.02)
    masked = OPTIONS.model_copy(update={"pruned": tmp_path / "pruned"})
    train(made_cases, tmp_path / "model", tiny_settings(), masked, CPU)
    masks, about = load_weight_masks(tmp_path / "pruned" / "weight_masks.safetensors")
    state = weights(tmp_path / "model")
    assert about["criterion"] == "fts"
    assert all(not state[name][~mask].any() for name, mask in masks.items())
    assert "decoder1.weight" not in masks and "head.weight" not in masks
    assert load_model(tmp_path / "model", CPU).config.sparsity == 0.6
    with pytest.raises(ConfigError, match="same --preset"):
        train(made_cases, tmp_path / "n", tiny_settings("network.full_width=3"), masked, CPU)


@pytest.mark.parametrize("warmup", ["bn", "epoch"])
def test_a_warm_up_changes_what_training_starts_from(made_cases, tmp_path, warmup):
    more = ("network.gate_norm=batch",)
    scoring = CriterionSettings(sparsity=0.5, scope="layer")
    options = PruneOptions(preset="small", samples=3, warmup={"kind": warmup}, criterion=scoring)
    prune(made_cases, tmp_path / "pruned", tiny_settings(*more), options, CPU)
    assert (tmp_path / "pruned" / "start.safetensors").is_file()
    masked = OPTIONS.model_copy(update={"pruned": tmp_path / "pruned"})
    train(made_cases, tmp_path / "model", tiny_settings(*more), masked, CPU)
    assert (tmp_path / "model" / "model.safetensors").is_file()


def test_every_criterion_scores_ra_seg(made_cases, tmp_path):
    for criterion in ("snip", "grasp", "synflow", "hts", "fbss"):
        scoring = CriterionSettings(criterion=criterion, sparsity=0.5, scope="layer", probes=2)
        options = PruneOptions(preset="small", samples=2, criterion=scoring)
        assert prune(made_cases, tmp_path / criterion, tiny_settings(), options, CPU).sparsity > 0.45


def test_folds_never_divide_a_patient_and_cover_all(made_cases):
    cases = find_cases(made_cases)
    held = []
    for fold in range(2):
        learn, out = choose_cases(cases, TrainOptions(folds=2, fold=fold))
        assert not {case.patient_id for case in learn} & {case.patient_id for case in out}
        held += [case.case_id for case in out]
    assert sorted(held) == sorted(case.case_id for case in cases)
    with pytest.raises(ConfigError, match="fewer folds"):
        choose_cases(cases, TrainOptions(folds=9))
    with pytest.raises(ConfigError, match="count from 0"):
        choose_cases(cases, TrainOptions(folds=2, fold=2))


def test_a_held_out_fold_is_measured_and_not_among_the_patients_seen(made_cases, tmp_path):
    options = OPTIONS.model_copy(update={"folds": 2})
    trained = train(made_cases, tmp_path / "model", tiny_settings("training.epochs=1"), options, CPU)
    rows = trained.metrics["validation"]
    assert {row["prompt"] for row in rows} == {"oracle", "auto", "none"}
    assert {row["case_id"] for row in rows} == set(trained.held_out)
    seen = load_model(tmp_path / "model", CPU).config.patients_seen
    assert len(seen) == len(trained.learned_from) == 2
    assert "| box | oracle | 2 |" in (tmp_path / "model" / "MODEL_CARD.md").read_text()


def test_cases_of_the_split_test_are_never_learned_from(made_cases):
    cases = find_cases(made_cases)
    marked = [type(case)(**{**vars(case), "split": "test"}) for case in cases[:1]] + cases[1:]
    learn, out = choose_cases(marked, TrainOptions())
    assert cases[0].case_id not in {case.case_id for case in [*learn, *out]}


def test_a_damaged_model_is_named(tiny_model, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text((tiny_model.folder / "config.json").read_text())
    with pytest.raises(ModelError, match=r"holds no model\.safetensors"):
        load_model(folder, CPU)
    (folder / "model.safetensors").write_bytes(b"\x80\x04pickle")
    with pytest.raises(ModelError, match="is damaged"):
        load_model(folder, CPU)
    (folder / "config.json").write_text('{"architecture": "UNet"}')
    with pytest.raises(ModelError, match="architecture"):
        load_model(folder, CPU)
