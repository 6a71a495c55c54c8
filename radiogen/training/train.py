"""Train RA-Seg on a case folder, dense or pruned, and write a model folder."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch

from radiogen.distributed import (
    all_gather,
    barrier,
    call_on_rank_zero,
    is_rank_zero,
    process_group,
    rank,
    world_size,
)
from radiogen.errors import ConfigError, OutputError, TrainingError
from radiogen.io.cases import Case
from radiogen.model.card import NOT_FOR, model_card, validation_lines
from radiogen.model.ensemble import write_ensemble
from radiogen.model.folder import CARD, ENSEMBLE, METRICS, WEIGHTS, ModelConfig, save_model
from radiogen.networks.raseg import weight_count
from radiogen.provenance import RunRecord, is_done, record_path, remove_if_refused, write_json, write_text
from radiogen.runtime import Progress, no_progress
from radiogen.training.card import count_cohorts, training_lines
from radiogen.training.errors import mishaps_told
from radiogen.training.loop import CHECKPOINT, Training
from radiogen.training.options import Task, TrainOptions, find_task
from radiogen.training.prepared import PreparedCase, prepare
from radiogen.training.settings import RunSettings

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
    progress: Progress = no_progress,
) -> Trained:
    """Train on the cases with an outline whose split is not `test`; a killed run goes on where it was.

    Under torchrun every process calls this with its own device, on a folder that all of them see.

    Args:
        cases: A case folder with a manifest.
        out: The model folder to write.
        settings: Network, preprocessing and training.
        options: Seed, folds, weight masks, and what to do with what is there.
        device: Where to train.
        progress: Called with what is done and how much there is.

    Raises:
        CaseError: There is no case to learn from.
        ConfigError: The fold is not one of the folds, the pruned folder or the model to start with is of
            other settings, or settings contradict each other.
        TrainingError: The training cannot go on.
        OutputError: The folder holds a finished model and `existing` is fail.
    """
    with process_group(device), mishaps_told(f"training on {device}"):
        trained = train_one(cases, out, settings, options, device, out / CACHE, progress)
        if is_rank_zero():
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
    progress: Progress,
) -> Trained:
    """`train` inside the processes that work together, with a place for prepared cases."""
    task = find_task(cases, settings, options)
    record = train_record(settings, options)
    fingerprint = call_on_rank_zero(lambda: task.fingerprint)
    finished = call_on_rank_zero(lambda: _finished(out, fingerprint, options))
    if finished is not None:
        return Trained(out, finished, _ids(task.learn), _ids(task.held_out))
    training = Training(
        network=task.start.network,
        settings=settings,
        learn=_prepared(task.learn, settings, cache, progress),
        held_out=_prepared(task.held_out, settings, cache, progress),
        weight_masks=task.start.weight_masks,
        seed=options.seed,
        device=device,
        folder=out,
        fingerprint=fingerprint,
    )
    done = training.run(progress)
    metrics = {
        "fingerprint": fingerprint,
        "epochs": done.epochs,
        "validation": done.validation,
        "kept_epoch": done.best.get("epoch", done.epoch - 1),
    }
    if is_rank_zero():
        _write(out, task, metrics)
        record.decisions += [*task.left_out, *_said_of(metrics, settings)]
        record.seed, record.device = options.seed, str(device)
        record.finish(out, [out / WEIGHTS])
        (out / CHECKPOINT).unlink(missing_ok=True)
    barrier()
    return Trained(out, metrics, _ids(task.learn), _ids(task.held_out))


def _prepared(
    cases: list[Case], settings: RunSettings, cache: Path, progress: Progress
) -> list[PreparedCase]:
    """Every process prepares its share of the cases."""
    number, world = rank(), world_size()
    with remove_if_refused(cache):
        ready = all_gather(prepare(cases[number::world], settings.preprocessing, cache, progress))
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
        training=training_lines(settings.training, metrics, count_cohorts(task.learn)),
        held_out=task.fold,
        chosen_by_validation=settings.training.patience > 0,
    )
    save_model(out, start.network.state_dict(), config, metrics, card)


def _said_of(metrics: dict[str, Any], settings: RunSettings) -> list[str]:
    """What a training decided for itself."""
    said, epochs = [], len(metrics["epochs"])
    if epochs < settings.training.epochs:
        said.append(f"stopped after {epochs} epochs, as validation got no better")
    if settings.training.patience:
        said.append(f"kept the weights of epoch {metrics['kept_epoch'] + 1}, the best on the held-out cases")
    world = world_size()
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


@dataclass(frozen=True)
class TrainedFolds:
    """An ensemble folder, and what each held-out case said of the member that has not seen it."""

    folder: Path
    members: tuple[str, ...]
    validation: list[dict[str, Any]]  # one row a case and prior: fold, case_id, prior, prompt, dice

    def summary(self) -> list[str]:
        """One line a prior: the mean over all cases, each held out once, and its spread."""
        kinds = dict.fromkeys((row["prior"], row["prompt"]) for row in self.validation)
        lines = []
        for prior, prompt in kinds:
            dice = [
                row["dice"] for row in self.validation if (row["prior"], row["prompt"]) == (prior, prompt)
            ]
            spread = f" (sd {stdev(dice):.3f})" if len(dice) > 1 else ""
            lines.append(f"{prior}\t{prompt}\t{len(dice)} cases\tDice {mean(dice):.3f}{spread}")
        return lines


def train_folds(
    cases: Path,
    out: Path,
    settings: RunSettings,
    options: TrainOptions,
    device: torch.device,
    progress: Progress = no_progress,
) -> TrainedFolds:
    """Train each of `options.folds` folds into `out/fold0` .. and make `out` an ensemble.

    Args and errors: those of `train`.

    Raises:
        ConfigError: There are fewer than two folds.
        OutputError: The folder holds a single model.
    """
    if options.folds < 2:
        raise ConfigError("--fold all", "needs two folds or more", "add --folds 5")
    if (out / WEIGHTS).is_file():
        raise OutputError(out, "holds a single model", "choose another folder")
    record = train_record(settings, options)
    names = tuple(f"fold{number}" for number in range(options.folds))
    trained: list[Trained] = []
    with process_group(device), mishaps_told(f"training on {device}"):
        for number, name in enumerate(names):
            one = options.model_copy(update={"fold": number})
            trained.append(train_one(cases, out / name, settings, one, device, out / CACHE, progress))
        folds = TrainedFolds(out, names, _held_out_rows(trained))
        if is_rank_zero():
            record.seed, record.device = options.seed, str(device)
            _write_ensemble(folds, settings, record)
            shutil.rmtree(out / CACHE, ignore_errors=True)
        barrier()
    return folds


def _held_out_rows(trained: list[Trained]) -> list[dict[str, Any]]:
    return [
        {"fold": number, **{name: value for name, value in row.items() if name != "epoch"}}
        for number, one in enumerate(trained)
        for row in one.metrics["validation"]
        if row["epoch"] == one.metrics["kept_epoch"]
    ]


def _write_ensemble(folds: TrainedFolds, settings: RunSettings, record: RunRecord) -> None:
    """metrics.json, MODEL_CARD.md and, last but for the record, ensemble.json."""
    out = folds.folder
    metrics = {"validation": folds.validation}
    if is_done(out, record.options, [], None) and json.loads((out / METRICS).read_text("utf-8")) == metrics:
        return  # all of it was there already
    write_json(out / METRICS, metrics)
    write_text(out / CARD, _card(folds, settings))
    write_ensemble(out, folds.members)
    record.finish(out, [out / ENSEMBLE, out / METRICS])


def _card(folds: TrainedFolds, settings: RunSettings) -> str:
    count = len(folds.members)
    metrics = {"validation": [{**row, "epoch": 0} for row in folds.validation]}
    lines = [
        f"# RA-Seg, an ensemble of {count} folds",
        "",
        "Not for clinical use. Research software.",
        "",
        f"- Members: {', '.join(folds.members)}; each has a card of its own.",
        "- Together they have seen every patient: their joint answer is not tested on any of these.",
        "",
        "## Measured by cross-validation, each case by the member that has not seen it",
        "",
        *validation_lines(metrics, chosen_by_validation=settings.training.patience > 0),
        "",
        "## What it is not for",
        "",
        *(f"- {sentence}" for sentence in NOT_FOR),
    ]
    return "\n".join(lines) + "\n"
