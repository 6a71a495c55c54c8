"""Train RA-Seg on a case folder, one network or every fold, and write a model folder."""

import json
import shutil
from collections import defaultdict
from collections.abc import Sequence
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
from radiogen.model.folder import CARD, ENSEMBLE, METRICS, WEIGHTS, ModelConfig, save_model, write_ensemble
from radiogen.networks.raseg import weight_count
from radiogen.provenance import RunRecord, is_done, record_path, remove_if_refused, write_json, write_text
from radiogen.runtime import AnyPath, Progress, no_progress, pick_device
from radiogen.training.loop import CHECKPOINT, TrainingLoop
from radiogen.training.prepared import PreparedCase, prepare
from radiogen.training.settings import Augmentation, RunSettings, TrainingSettings, TrainOptions, load_preset
from radiogen.training.step import training_errors
from radiogen.training.task import TrainingTask, find_task

CACHE = "prepared"


@dataclass(frozen=True)
class TrainedModel:
    """A finished training: the model folder and what its loop measured."""

    folder: Path
    metrics: dict[str, Any]
    learned_from: tuple[str, ...]
    held_out: tuple[str, ...]


def train(
    cases: AnyPath,
    out: AnyPath,
    settings: RunSettings | None = None,
    options: TrainOptions | None = None,
    device: str | torch.device = "auto",
    progress: Progress = no_progress,
) -> TrainedModel:
    """Train on the cases with an outline whose split is not `test`; a killed run goes on where it was.

    Under torchrun every process calls this with its own device, on a folder that all of them see.

    Args:
        cases: A case folder with a manifest.
        out: The model folder to write.
        settings: Network, preprocessing and training; else those of `options.preset`.
        options: Seed, folds, start, and what to do with an output that exists.
        device: Where to train: `auto`, `cpu`, `cuda`, `cuda:N`, `mps` or a device.
        progress: Called with what is done and how much there is.

    Raises:
        CaseError: There is no case to learn from.
        ConfigError: The fold is not one of the folds, the pruned folder or the model to start with is of
            other settings, or settings contradict each other.
        TrainingError: The training cannot go on.
        OutputError: The folder holds a finished model and `existing` is fail.
    """
    cases, out, device = Path(cases), Path(out), pick_device(device)
    options = options or TrainOptions()
    settings = settings or load_preset(options.preset)
    with process_group(device), training_errors(f"training on {device}"):
        trained = train_one(cases, out, settings, options, device, out / CACHE, progress)
        if is_rank_zero():
            shutil.rmtree(out / CACHE, ignore_errors=True)
    return trained


def train_one(
    cases: Path,
    out: Path,
    settings: RunSettings,
    options: TrainOptions,
    device: torch.device,
    cache: Path,
    progress: Progress,
) -> TrainedModel:
    """Train inside the processes that work process_group, with a folder for prepared cases; see `train`."""
    task = find_task(cases, settings, options)
    record = _begin_record(settings, options, device)
    fingerprint = call_on_rank_zero(lambda: task.fingerprint)
    finished = call_on_rank_zero(lambda: _finished_metrics(out, fingerprint, options))
    if finished is not None:
        return TrainedModel(out, finished, _ids(task.learn), _ids(task.held_out))
    loop = TrainingLoop(
        network=task.start.network,
        settings=settings,
        learn=_prepare(task.learn, settings, cache, progress),
        held_out=_prepare(task.held_out, settings, cache, progress),
        weight_masks=task.start.weight_masks,
        seed=options.seed,
        device=device,
        folder=out,
        fingerprint=fingerprint,
    )
    state = loop.run(progress)
    metrics = {
        "fingerprint": fingerprint,
        "epochs": state.epochs,
        "validation": state.validation,
        "kept_epoch": state.best.get("epoch", state.epoch - 1),
    }
    if is_rank_zero():
        _write_model(out, task, metrics)
        record.decisions += [*task.left_out, *_decisions(metrics, settings)]
        record.finish(out, [out / WEIGHTS])
        # Last: a kill before leaves the checkpoint, and the same command writes the model again.
        (out / CHECKPOINT).unlink(missing_ok=True)
    barrier()
    return TrainedModel(out, metrics, _ids(task.learn), _ids(task.held_out))


def _begin_record(settings: RunSettings, options: TrainOptions, device: torch.device) -> RunRecord:
    described = {**options.model_dump(mode="json"), "settings": settings.model_dump(mode="json")}
    return RunRecord("train", described, seed=options.seed, device=str(device))


def _prepare(cases: list[Case], settings: RunSettings, cache: Path, progress: Progress) -> list[PreparedCase]:
    """Prepare the cases, each process its share."""
    with remove_if_refused(cache):
        ready = all_gather(prepare(cases[rank() :: world_size()], settings.preprocessing, cache, progress))
    by_id = {case.case_id: case for case in ready}
    return [by_id[case.case_id] for case in cases]


def _finished_metrics(out: Path, fingerprint: str, options: TrainOptions) -> dict[str, Any] | None:
    """Return the metrics of a finished training of the same kind; clear or refuse anything else."""
    if not out.is_dir():
        return None
    is_finished, has_checkpoint = record_path(out).is_file(), (out / CHECKPOINT).is_file()
    if options.existing == "overwrite" and (is_finished or has_checkpoint):
        shutil.rmtree(out)
        return None
    if is_finished:
        metrics: dict[str, Any] = json.loads((out / METRICS).read_text(encoding="utf-8"))
        hint = "choose another folder or --existing overwrite"
        if options.existing == "fail":
            raise OutputError(out, "holds a finished model", hint)
        if metrics.get("fingerprint") != fingerprint:
            raise OutputError(out, "holds a model of other settings or cases", hint)
        return metrics
    if has_checkpoint and not options.resume:
        raise TrainingError(out, "holds an unfinished training", "add --resume or --existing overwrite")
    return None


def _write_model(out: Path, task: TrainingTask, metrics: dict[str, Any]) -> None:
    start, settings = task.start, task.settings
    # A model that saw a patient may not give the features of that patient in an EGFR test fold.
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
        scans_seen=tuple(sorted({*start.scans_seen, *(case.scan for case in task.learn)} - {""})),
    )
    lines = [*_training_lines(settings.training, metrics), "", *_cohort_lines(task.learn, settings.training)]
    card = model_card(
        config,
        metrics,
        weight_count(start.network),
        note=start.note,
        training=lines,
        held_out=task.fold,
        chosen_by_validation=settings.training.patience > 0,
    )
    save_model(out, start.network.state_dict(), config, metrics, card)


def _decisions(metrics: dict[str, Any], settings: RunSettings) -> list[str]:
    """Return a sentence for each thing that the training decided."""
    decisions, epochs = [], len(metrics["epochs"])
    if epochs < settings.training.epochs:
        decisions.append(f"stopped after {epochs} epochs, as validation got no better")
    if settings.training.patience:
        kept = metrics["kept_epoch"] + 1
        decisions.append(f"kept the weights of epoch {kept}, the best on the held-out cases")
    if world_size() > 1:
        decisions.append(f"trained by {world_size()} processes")
    return decisions


def _ids(cases: list[Case]) -> tuple[str, ...]:
    return tuple(case.case_id for case in cases)


def _training_lines(training: TrainingSettings, metrics: dict[str, Any]) -> list[str]:
    """Return the lines of a model card on how the network was trained."""
    shares = {name: training.priors.count(name) / len(training.priors) for name in training.prior_names}
    priors = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
    if "box" in shares:
        priors += (
            f"; boxes drawn round the true outline, faces shifted by up to {training.box_jitter:.0%} "
            f"and moved out by {training.box_loosen:.0%}"
        )
    lines = [f"- Priors of its patches: {priors}."]
    kinds = "flips, affine and elastic warps, other kernels, slice thicknesses, doses and calibrations"
    usual = Augmentation().model_dump()
    changed = [f"{k} {v}" for k, v in training.augmentation.model_dump().items() if v != usual[k]]
    detail = f"with {', '.join(changed)}" if changed else "each drawn from (seed, epoch, draw)"
    lines.append(f"- Augmentation: {kinds}, {detail}.")
    if training.synthetic_lesions:
        low, high = training.synthetic_mm
        share = f"{training.synthetic_lesions:.0%} of the patches get one, {low:g} to {high:g} mm"
        lines.append(f"- Synthetic lesions: {share}.")
    if training.lungs_empty:
        share = f"{training.lungs_empty:.0%} lie anywhere and get no synthetic lesion"
        lines.append(f"- Of the patches without a box {share}.")
    if metrics["epochs"]:
        last = metrics["epochs"][-1]
        epochs = f"{last['epoch'] + 1} of {training.epochs}"
        lines.append(f"- Epochs: {epochs}; loss of the last: {last['loss']:.4f}.")
        best = f"epoch {metrics['kept_epoch'] + 1}, the best on the held-out cases"
        averages = f", averaged over the steps (decay {training.ema_decay:g})" if training.ema_decay else ""
        lines.append(f"- Weights: of {best if training.patience else 'the last epoch'}{averages}.")
    return lines


def _cohort_lines(cases: Sequence[Case], training: TrainingSettings) -> list[str]:
    """Return a table of what was learned from; cohorts that showed their lungs alone are marked."""
    by_cohort: dict[str, list[Case]] = defaultdict(list)
    for case in cases:
        by_cohort[case.cohort or "(none named)"].append(case)
    lines = ["| cohort | cases | patients | what was learned |", "| --- | --- | --- | --- |"]
    for cohort, own in sorted(by_cohort.items()):
        learned = "outlined lesions"
        if cohort in training.lungs_only_cohorts:
            learned = "lungs only, with synthetic lesions; its own lesions never seen"
        weight = training.cohort_draws.get(cohort, 1)
        learned += f"; sampling weight {weight}" if weight > 1 else ""
        patients = len({case.patient_id for case in own})
        lines.append(f"| {cohort} | {len(own)} | {patients} | {learned} |")
    return lines


@dataclass(frozen=True)
class TrainedFolds:
    """An ensemble folder, and the Dice of each held-out case by the member that has not seen it."""

    folder: Path
    members: tuple[str, ...]
    validation: list[dict[str, Any]]  # one row a case and prior: fold, case_id, prior, prompt, dice

    def summary(self) -> list[str]:
        """Return one line a prior: mean and standard deviation over all cases, each held out once."""
        by_prior: dict[tuple[str, str], list[float]] = defaultdict(list)
        for row in self.validation:
            by_prior[row["prior"], row["prompt"]].append(row["dice"])
        lines = []
        for (prior, prompt), dice in by_prior.items():
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
    record = _begin_record(settings, options, device)
    names = tuple(f"fold{number}" for number in range(options.folds))
    trained: list[TrainedModel] = []
    with process_group(device), training_errors(f"training on {device}"):
        for number, name in enumerate(names):
            one = options.model_copy(update={"fold": number})
            trained.append(train_one(cases, out / name, settings, one, device, out / CACHE, progress))
        folds = TrainedFolds(out, names, _held_out_rows(trained))
        if is_rank_zero():
            _write_ensemble(folds, settings, record)
            shutil.rmtree(out / CACHE, ignore_errors=True)
        barrier()
    return folds


def _held_out_rows(trained: list[TrainedModel]) -> list[dict[str, Any]]:
    """Return the validation rows of the weights that each member kept, with the number of its fold."""
    return [
        {"fold": number, **{name: value for name, value in row.items() if name != "epoch"}}
        for number, one in enumerate(trained)
        for row in one.metrics["validation"]
        if row["epoch"] == one.metrics["kept_epoch"]
    ]


def _write_ensemble(folds: TrainedFolds, settings: RunSettings, record: RunRecord) -> None:
    """Write metrics.json, MODEL_CARD.md and, last but for the record, ensemble.json."""
    out = folds.folder
    metrics = {"validation": folds.validation}
    # A finished ensemble is left as it is, down to the times of its files.
    if is_done(out, record.options, [], None) and json.loads((out / METRICS).read_text("utf-8")) == metrics:
        return
    write_json(out / METRICS, metrics)
    write_text(out / CARD, _ensemble_card(folds, settings))
    write_ensemble(out, folds.members)
    record.finish(out, [out / ENSEMBLE, out / METRICS])


def _ensemble_card(folds: TrainedFolds, settings: RunSettings) -> str:
    metrics = {"validation": [{**row, "epoch": 0} for row in folds.validation]}
    lines = [
        f"# RA-Seg, an ensemble of {len(folds.members)} folds",
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
