"""Train RA-Seg on a case folder, dense or pruned, and write a model folder."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from radiogen.model.card import count_cohorts, model_card
from radiogen.training.errors import mishaps_told
from radiogen.model.folder import WEIGHTS, ModelConfig, save_model
from radiogen.training.prepared import PreparedCase, prepare
from radiogen.training.presets import RunSettings
from radiogen.training.options import TrainOptions
from radiogen.training.loop import CHECKPOINT, Training
from radiogen.training.training_task import Task, find_task
from radiogen.errors import OutputError, TrainingError
from radiogen.io.cases import Case
from radiogen.networks.raseg import weight_count
from radiogen.provenance import RunRecord, leave_no_trace, record_path
from radiogen.runtime import (
    Tick,
    from_all,
    from_first,
    is_first_process,
    no_tick,
    process_number,
    together,
    wait_for_all,
)

CACHE = "prepared"
__all__ = ["TrainOptions", "Trained", "train", "train_one"]


@dataclass(frozen=True)
class Trained:
    """A finished training: the model folder and what its loop measured."""

    folder: Path
    metrics: dict[str, Any]
    learned_from: tuple[str, ...]
    held_out: tuple[str, ...]


def train(
    cases: Path,
    out: Path,
    settings: RunSettings,
    options: TrainOptions,
    device: torch.device,
    tick: Tick = no_tick,
) -> Trained:
    """Train on the cases with an outline whose split is not `test`; a killed run goes on where it was.

    Under torchrun every process calls this with its own device, on a folder that all of them see.

    Args:
        cases: A case folder with a manifest.
        out: The model folder to write.
        settings: Network, preprocessing and training.
        options: Seed, folds, weight masks, and what to do with what is there.
        device: Where to train.
        tick: Told of progress.

    Raises:
        CaseError: There is no case to learn from.
        ConfigError: The fold is not one of the folds, the pruned folder or the model to start with is of
            other settings, or settings contradict each other.
        TrainingError: The training cannot go on.
        OutputError: The folder holds a finished model and `existing` is fail.
    """
    with together(device), mishaps_told(f"training on {device}"):
        trained = train_one(cases, out, settings, options, device, out / CACHE, tick)
        if is_first_process():
            shutil.rmtree(out / CACHE, ignore_errors=True)
    return trained


def train_record(settings: RunSettings, options: TrainOptions) -> RunRecord:
    """The run record of a training, begun."""
    described = {**options.model_dump(mode="json"), "settings": settings.model_dump(mode="json")}
    return RunRecord("train", described)


def train_one(
    cases: Path,
    out: Path,
    settings: RunSettings,
    options: TrainOptions,
    device: torch.device,
    cache: Path,
    tick: Tick,
) -> Trained:
    """`train` inside the processes that work together, with a place for prepared cases."""
    task = find_task(cases, settings, options)
    record = train_record(settings, options)
    fingerprint = from_first(lambda: task.fingerprint)
    finished = from_first(lambda: _finished(out, fingerprint, options))
    if finished is not None:
        return Trained(out, finished, _ids(task.learn), _ids(task.held_out))
    training = Training(
        network=task.start.network,
        settings=settings,
        learn=_prepared(task.learn, settings, cache, tick),
        held_out=_prepared(task.held_out, settings, cache, tick),
        weight_masks=task.start.weight_masks,
        seed=options.seed,
        device=device,
        folder=out,
        fingerprint=fingerprint,
    )
    done = training.run(tick)
    metrics = {
        "fingerprint": fingerprint,
        "epochs": done.epochs,
        "validation": done.validation,
        "kept_epoch": done.best.get("epoch", done.epoch - 1),
    }
    if is_first_process():
        _write(out, task, metrics)
        record.decisions += [*task.left_out, *_said_of(metrics, settings)]
        record.seed, record.device = options.seed, str(device)
        record.finish(out, [out / WEIGHTS])
        (out / CHECKPOINT).unlink(missing_ok=True)
    wait_for_all()
    return Trained(out, metrics, _ids(task.learn), _ids(task.held_out))


def _prepared(cases: list[Case], settings: RunSettings, cache: Path, tick: Tick) -> list[PreparedCase]:
    """Every process prepares its share of the cases."""
    rank, world = process_number()
    with leave_no_trace(cache):
        ready = from_all(prepare(cases[rank::world], settings.preprocessing, cache, tick))
    by_id = {case.case_id: case for case in ready}
    return [by_id[case.case_id] for case in cases]


def _write(out: Path, task: Task, metrics: dict[str, Any]) -> None:
    start, settings = task.start, task.settings
    learned_from = {case.patient_id for case in task.learn}
    seen = None if start.patients_seen is None else tuple(sorted(start.patients_seen | learned_from))
    config = ModelConfig(
        preset=task.options.preset,
        network=start.network.settings,
        preprocessing=settings.preprocessing,
        priors=settings.training.prior_names,
        threshold=settings.training.threshold,
        least_candidate=settings.training.least_candidate,
        seed=task.options.seed,
        sparsity=start.sparsity,
        control=start.control,
        patients_seen=seen,
    )
    card = model_card(
        config,
        metrics,
        weight_count(start.network),
        note=start.note,
        training=settings.training,
        cohorts=count_cohorts(task.learn),
        held_out=task.fold,
    )
    save_model(out, start.network.state_dict(), config, metrics, card)


def _said_of(metrics: dict[str, Any], settings: RunSettings) -> list[str]:
    """What a training decided for itself."""
    said, epochs = [], len(metrics["epochs"])
    if epochs < settings.training.epochs:
        said.append(f"stopped after {epochs} epochs, as validation got no better")
    if settings.training.patience:
        said.append(f"kept the weights of epoch {metrics['kept_epoch'] + 1}, the best on the held-out cases")
    _, world = process_number()
    return [*said, *([f"trained by {world} processes"] if world > 1 else [])]


def _ids(cases: list[Case]) -> tuple[str, ...]:
    return tuple(case.case_id for case in cases)


def _finished(out: Path, fingerprint: str, options: TrainOptions) -> dict[str, Any] | None:
    """The metrics of a finished training of the same kind; clears or refuses what else is in the way."""
    if not out.is_dir():
        return None
    is_finished, has_checkpoint = record_path(out).is_file(), (out / CHECKPOINT).is_file()
    if options.existing == "overwrite" and (is_finished or has_checkpoint):
        shutil.rmtree(out)
        return None
    if is_finished:
        metrics: dict[str, Any] = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
        if options.existing == "fail":
            raise OutputError(out, "holds a finished model", "choose another folder or --existing overwrite")
        if metrics.get("fingerprint") != fingerprint:
            wrong = "holds a model of other settings or cases"
            raise OutputError(out, wrong, "choose another folder or --existing overwrite")
        return metrics
    if has_checkpoint and not options.resume:
        raise TrainingError(out, "holds an unfinished training", "add --resume or --existing overwrite")
    return None
