"""What goes wrong in a training is said in one line with the cure, and the last good checkpoint stays."""

import os
import signal

import pytest
import torch
from training.tiny_run import tiny_settings

from radiogen.errors import CaseError, ConfigError, MissingPackageError, TrainingError
from radiogen.training import step as step_module
from radiogen.training.loop import read_checkpoint_header
from radiogen.training.patches import PatchDataset
from radiogen.training.settings import TrainOptions
from radiogen.training.train import train

CPU = torch.device("cpu")
OPTIONS = TrainOptions(preset="small")


def test_a_loss_that_is_not_finite_stops_it_before_the_weights_are_touched(made_cases, tmp_path):
    wild = ("training.learning_rate=1e30", "training.checkpoint_minutes=0")
    with pytest.raises(TrainingError, match=r"epoch 1, step 2.*not finite.*training\.learning_rate"):
        train(made_cases, tmp_path / "model", tiny_settings(*wild), OPTIONS, CPU)
    about = read_checkpoint_header(tmp_path / "model" / "checkpoint.safetensors")
    assert (about["epoch"], about["step"]) == (0, 1)


def test_a_gradient_that_is_not_finite_stops_it_too(made_cases, tmp_path, monkeypatch):
    monkeypatch.setattr(step_module, "clip_grad_norm_", lambda *_: torch.tensor(float("nan")))
    with pytest.raises(TrainingError, match="step 1: the gradient is not finite"):
        train(made_cases, tmp_path / "model", tiny_settings(), OPTIONS, CPU)
    assert not (tmp_path / "model" / "checkpoint.safetensors").exists()


def test_too_little_memory_names_three_ways_out(made_cases, tmp_path, monkeypatch):
    torch_says_no = lambda *_: torch.empty(2**60, dtype=torch.uint8)  # noqa: E731
    monkeypatch.setattr(step_module.TrainingStep, "_loss", torch_says_no)
    with pytest.raises(TrainingError, match=r"not enough memory.*batch_size.*accumulate.*checkpoint_activ"):
        train(made_cases, tmp_path / "model", tiny_settings(), OPTIONS, CPU)


def test_a_killed_data_worker_names_fewer_workers(made_cases, tmp_path, monkeypatch):
    monkeypatch.setattr(PatchDataset, "__getitem__", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(TrainingError, match=r"was killed.*training\.workers=1"):
        train(made_cases, tmp_path / "model", tiny_settings("training.workers=2"), OPTIONS, CPU)


def test_what_a_data_worker_refuses_is_said_as_it_is(made_cases, tmp_path, monkeypatch):
    def refuse(*_):
        raise CaseError("phantom-001", "is damaged", "ingest it again")

    monkeypatch.setattr(PatchDataset, "__getitem__", refuse)
    with pytest.raises(CaseError, match="phantom-001: is damaged"):
        train(made_cases, tmp_path / "model", tiny_settings("training.workers=1"), OPTIONS, CPU)


def test_workers_draw_the_same_patches(made_cases, tiny_model, tmp_path):
    trained = train(made_cases, tmp_path / "model", tiny_settings("training.workers=2"), OPTIONS, CPU)
    assert trained.metrics["epochs"][0]["loss"] > 0
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == (
        tiny_model.folder / "model.safetensors"
    ).read_bytes()


@pytest.mark.parametrize(
    ("sets", "options", "named"),
    [
        (["training.patience=2"], {}, "held-out cases"),
        (["training.patience=2"], {"folds": 2}, "validate_every"),
        ([], {"fold": 1}, "add --folds"),
        (["training.lungs_only_cohorts=[phantom]"], {}, "names .phantom., which has no case"),
        (["training.cohort_draws={lidc: 2}"], {}, "the cohorts are phantoms"),
        (["training.accumulate=9"], {}, "gives 8 patches an epoch, and one step takes 18"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(made_cases, tmp_path, sets, options, named):
    with pytest.raises(ConfigError, match=named):
        train(made_cases, tmp_path / "m", tiny_settings(*sets), OPTIONS.model_copy(update=options), CPU)
    assert not (tmp_path / "m").exists()


def test_tensorboard_is_asked_for_before_any_work(made_cases, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tensorboard", None)
    with pytest.raises(MissingPackageError, match=r"radiogen\[track\]"):
        train(made_cases, tmp_path / "m", tiny_settings("training.tensorboard=true"), OPTIONS, CPU)
    assert not (tmp_path / "m").exists()
