"""Dry run: take a few steps of a training at its real size, and forecast memory, disk and time."""

import math
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from radiogen.distributed import process_group, world_size
from radiogen.errors import TrainingError
from radiogen.networks.raseg import RASeg, weight_count
from radiogen.pruning.costs import measure_cost
from radiogen.runtime import Progress, free_memory_mb, no_progress, peak_memory_mb
from radiogen.training.batches import TrainingBatches
from radiogen.training.loop import averaged_copy
from radiogen.training.patches import PatchDataset
from radiogen.training.prepared import PreparedCase, prepare
from radiogen.training.settings import RunSettings, TrainOptions
from radiogen.training.step import (
    LESS_MEMORY,
    TrainingStep,
    checkpoint_activations,
    make_optimizer,
    training_errors,
)
from radiogen.training.task import TrainingTask, find_task, patches_of_epoch

BYTES = 4  # of a weight
MOST_STEPS, MOST_S = 6, 10.0  # that are measured
WINDOW_STEP = 0.5  # of a window, in validation
FORWARD_SHARE = 1 / 3  # of a training step


@dataclass(frozen=True)
class TrainingForecast:
    """What a training takes, measured on some steps and one case, and what the machine has."""

    device: str
    patches: str
    weights: int
    steps: int  # of an epoch
    epochs: int
    step_s: float
    draw_s: float
    prepare_s: float  # all cases
    train_s: float
    validate_s: float
    peak_mb: float
    free_mb: float
    disk_mb: float
    free_disk_mb: float
    folds: int = 1

    @property
    def total_s(self) -> float:
        """Seconds of the whole training, all folds included."""
        return self.prepare_s + self.folds * (self.train_s + self.validate_s)

    def lines(self) -> list[str]:
        """Return a table for people, one fact a line."""
        parts = {"preparing": self.prepare_s, "training": self.train_s, "validation": self.validate_s}
        of_fold = f", {self.folds} folds of" if self.folds > 1 else ":"
        times = ", ".join(f"{name} {_duration(seconds)}" for name, seconds in parts.items() if seconds)
        return [
            f"device\t{self.device}, {self.weights:,} weights",
            f"step\t{self.patches}: {_duration(self.step_s)}, drawing them {_duration(self.draw_s)}",
            f"epochs\t{self.epochs} of {self.steps} steps",
            f"memory\t{self.peak_mb / 1000:.1f} GB at most, {self.free_mb / 1000:.1f} GB were free",
            f"disk\t{self.disk_mb / 1000:.2f} GB, {self.free_disk_mb / 1000:.1f} GB are free",
            f"time\tabout {_duration(self.total_s)}{of_fold} {times}",
            "fits\t" + ("yes" if self.fits else "no"),
        ]

    @property
    def fits(self) -> bool:
        """Whether the disk is large enough; memory was when the steps were taken."""
        return self.disk_mb < self.free_disk_mb

    def check(self) -> None:
        """Refuse a training that does not fit.

        Raises:
            TrainingError: With both sizes.
        """
        if not self.fits:
            wrong = f"{self.disk_mb / 1000:.2f} GB are needed, {self.free_disk_mb / 1000:.2f} GB are free"
            raise TrainingError("disk", wrong, "free some space, or take another output folder")


def _duration(seconds: float) -> str:
    """Return a time as people say it.

    >>> _duration(0.25), _duration(75), _duration(9000)
    ('0.25 s', '1 min', '2 h 30 min')
    """
    if seconds < 60:
        return f"{seconds:.2g} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


@dataclass(frozen=True)
class _Measured:
    """What one case and a few steps took."""

    device: torch.device
    ranks: int
    case: PreparedCase
    case_mb: float  # on disk
    prepare_s: float
    draw_s: float
    step_s: float
    peak_mb: float


def dry_run(
    cases: Path,
    out: Path,
    settings: RunSettings,
    options: TrainOptions,
    device: torch.device,
    every_fold: bool = False,
    progress: Progress = no_progress,
) -> TrainingForecast:
    """Prepare one case of median size in a temporary folder, take some steps, and forecast the whole.

    Args: those of `train`; `every_fold` counts all folds.

    Raises:
        TrainingError: Memory is not enough.
        RadiogenError: Whatever `train` would refuse before it trains.
    """
    free_mb = free_memory_mb(device)
    with process_group(device), training_errors(f"a step on {device}"):
        task = find_task(cases, settings, options)
        _check_memory(task.start.network, settings, free_mb)
        measured = _measure(task, device, progress)
    existing = next(path for path in (out.absolute(), *out.absolute().parents) if path.exists())
    folds = options.folds if every_fold else 1
    return _forecast(task, measured, folds, free_mb, shutil.disk_usage(existing).free / 1e6)


def _check_memory(network: RASeg, settings: RunSettings, free_mb: float) -> None:
    """Refuse what cannot fit, counted from shapes, before the system kills this process for trying."""
    training, preprocessing = settings.training, settings.preprocessing
    batch, channels = training.batch_size, len(preprocessing.windows)
    shapes = [(batch, channels, *preprocessing.size), (batch, 1, *preprocessing.size)]

    def build() -> RASeg:
        built = RASeg(network.settings)
        if training.checkpoint_activations:
            checkpoint_activations(built)
        return built

    counted = measure_cost(build, [torch.empty(shape, device="meta") for shape in shapes]).training_mb
    needed = counted + 4 * weight_count(network) * BYTES / 2**20  # weights, gradients, two moments
    if needed > free_mb:
        wrong = f"needs more than {needed / 1000:.1f} GB, and {free_mb / 1000:.1f} GB are free"
        raise TrainingError("a training step", wrong, LESS_MEMORY)


def _measure(task: TrainingTask, device: torch.device, progress: Progress) -> _Measured:
    with tempfile.TemporaryDirectory() as cache:
        started = time.perf_counter()
        by_size = sorted(task.learn, key=lambda case: case.ct_path.stat().st_size)
        median = by_size[len(by_size) // 2]
        case = prepare([median], task.settings.preprocessing, Path(cache), progress)[0]
        prepare_s = time.perf_counter() - started
        case_mb = case.path.stat().st_size / 1e6
        draw_s, step_s = _time_steps(task.start.network, case, task.settings, task.options.seed, device)
    peak_mb = torch.cuda.max_memory_reserved(device) / 2**20 if device.type == "cuda" else peak_memory_mb()
    return _Measured(device, world_size(), case, case_mb, prepare_s, draw_s, step_s, peak_mb)


def _time_steps(
    network: RASeg, case: PreparedCase, settings: RunSettings, seed: int, device: torch.device
) -> tuple[float, float]:
    """Return the seconds of drawing the patches of a step, and of the step itself; the first step warms up.

    The shortest of those after it counts: a busy machine makes steps longer, never shorter.
    """
    enough = MOST_STEPS * settings.training.batch_size * settings.training.accumulate * world_size()
    lungs_only = tuple(name for name in settings.training.lungs_only_cohorts if name == case.cohort)
    of_one_case = {"workers": 0, "cohort_draws": {}, "lungs_only_cohorts": lungs_only}
    # Workers would hide the time of drawing; other cohorts have no case here.
    training = settings.training.model_copy(update=of_one_case)
    dataset = PatchDataset([case] * enough, settings.preprocessing, training, seed)
    network.to(device).train()
    optimizer = make_optimizer(network, training)
    averaged = averaged_copy(network, training)  # for its memory
    step = TrainingStep(network, optimizer, training, seed, device)
    batches = TrainingBatches(dataset, training, seed, device).from_step(0, 0)
    begun = time.perf_counter()
    seconds: list[tuple[float, float]] = []
    while len(seconds) < 2 or (len(seconds) < MOST_STEPS and time.perf_counter() - begun < MOST_S):
        started = time.perf_counter()
        of_step = next(batches)
        drawn = time.perf_counter()
        step(of_step, 0, len(seconds))
        if averaged:
            averaged.update_parameters(network)
        seconds.append((drawn - started, time.perf_counter() - drawn))
    draws, steps = zip(*seconds[1:], strict=True)
    return min(draws), min(steps)


def _forecast(
    task: TrainingTask, measured: _Measured, folds: int, free_mb: float, free_disk_mb: float
) -> TrainingForecast:
    """Scale what was measured up to all cases, steps and validations."""
    training, weights = task.settings.training, weight_count(task.start.network)
    held_out, cases = len(task.held_out), len(task.held_out) + len(task.learn)
    step_patches = training.batch_size * training.accumulate * measured.ranks
    steps = max(1, patches_of_epoch(training, task.learn) // step_patches)
    each_s = measured.step_s + measured.draw_s
    if training.workers:  # patches are drawn while steps are taken
        each_s = max(measured.step_s, measured.draw_s / training.workers)
    forward_s = measured.step_s * FORWARD_SHARE / (training.batch_size * training.accumulate)
    validations = math.ceil(training.epochs / training.validate_every) if training.validate_every else 1
    windows = _windows(measured.case, task.settings) * validations * held_out / measured.ranks
    # Numbers a weight in checkpoint and model: itself twice, optimizer state, average, best.
    moments = 2 if training.optimizer == "adamw" else 1
    stored = 2 + moments + (training.ema_decay > 0) + (training.patience > 0)
    return TrainingForecast(
        device=f"{measured.device}" + (f", {measured.ranks} processes" if measured.ranks > 1 else ""),
        patches=f"{step_patches} patches of " + " x ".join(map(str, task.settings.preprocessing.size)),
        weights=weights,
        steps=steps,
        epochs=training.epochs,
        step_s=measured.step_s,
        draw_s=measured.draw_s,
        prepare_s=measured.prepare_s * cases / measured.ranks,
        train_s=training.epochs * steps * each_s,
        validate_s=windows * forward_s,
        peak_mb=measured.peak_mb,
        free_mb=free_mb,
        disk_mb=measured.case_mb * cases + stored * weights * BYTES / 1e6,
        free_disk_mb=free_disk_mb,
        folds=folds,
    )


def _windows(case: PreparedCase, settings: RunSettings) -> int:
    """Return the windows of the network in one case, all priors; a box takes one a lesion."""
    sizes = zip(case.shape, settings.preprocessing.size, strict=True)
    whole = math.prod(max(1, math.ceil((n - s) / (s * WINDOW_STEP)) + 1) for n, s in sizes)
    boxes = len(case.lesion_boxes)
    return sum(boxes if name == "box" else whole for name in settings.training.prior_names)
