"""Try a few steps of a training at its real size, and tell what the whole will take; nothing is kept."""

import math
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from radiogen.distributed import process_group, world_size
from radiogen.errors import TrainingError
from radiogen.io.cases import Case
from radiogen.networks.raseg import RASeg, weight_count
from radiogen.pruning.prunable import measure_cost
from radiogen.runtime import Progress, free_memory_mb, no_progress, peak_memory_mb
from radiogen.training.errors import LESS_MEMORY, mishaps_told
from radiogen.training.loop import averaged_copy
from radiogen.training.options import Task, TrainOptions, find_task, patches_of_epoch
from radiogen.training.patches import PatchDataset
from radiogen.training.plan import TrainingPlan
from radiogen.training.prepared import PreparedCase, prepare
from radiogen.training.settings import RunSettings, TrainingSettings
from radiogen.training.step import Step, checkpoint_activations, make_optimizer


@dataclass(frozen=True)
class Forecast:
    """What a training takes, measured on one step and one case, and what is there."""

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
        """Seconds of the whole training, all folds that were asked for."""
        return self.prepare_s + self.folds * (self.train_s + self.validate_s)

    def lines(self) -> list[str]:
        """A table for people, one fact a line."""
        parts = {"preparing": self.prepare_s, "training": self.train_s, "validation": self.validate_s}
        of_fold = f", {self.folds} folds of" if self.folds > 1 else ":"
        told = ", ".join(f"{name} {_long(seconds)}" for name, seconds in parts.items() if seconds)
        return [
            f"device\t{self.device}, {self.weights:,} weights",
            f"step\t{self.patches}: {_long(self.step_s)}, drawing them {_long(self.draw_s)}",
            f"epochs\t{self.epochs} of {self.steps} steps",
            f"memory\t{self.peak_mb / 1000:.1f} GB at most, {self.free_mb / 1000:.1f} GB were free",
            f"disk\t{self.disk_mb / 1000:.2f} GB, {self.free_disk_mb / 1000:.1f} GB are free",
            f"time\tabout {_long(self.total_s)}{of_fold} {told}",
            "fits\t" + ("yes" if self.fits else "no"),
        ]

    @property
    def fits(self) -> bool:
        """Whether memory (it has been tried) and disk are enough."""
        return self.disk_mb < self.free_disk_mb

    def check(self) -> None:
        """
        Raises:
            TrainingError: It does not fit.
        """
        if not self.fits:
            wrong = f"{self.disk_mb / 1000:.2f} GB are needed, {self.free_disk_mb / 1000:.2f} GB are free"
            raise TrainingError("disk", wrong, "free some space, or take another output folder")


def _long(seconds: float) -> str:
    """A time as people say it.

    >>> _long(0.25), _long(75), _long(9000)
    ('0.25 s', '1 min', '2 h 30 min')
    """
    if seconds < 60:
        return f"{seconds:.2g} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


BYTES = 4  # of a weight
MOST_STEPS, TRY_S = 6, 10.0  # that are tried, and for how long
WINDOW_STEP = 0.5  # of a window, in validation
FORWARD_SHARE = 1 / 3  # of a training step


def dry_run(
    cases: Path,
    out: Path,
    settings: RunSettings,
    options: TrainOptions,
    device: torch.device,
    every_fold: bool = False,
    progress: Progress = no_progress,
) -> Forecast:
    """Prepare one case of middling size in a temporary folder, take some steps, and reckon up the whole.

    Args: those of `train`; `every_fold` reckons with all folds.

    Raises:
        TrainingError: Memory is not enough.
        RadiogenError: Whatever `train` would refuse before it trains.
    """
    free_mb = free_memory_mb(device)
    with process_group(device), mishaps_told(f"a step on {device}"):
        task = find_task(cases, settings, options)
        _check_memory(task.start.network, settings, free_mb)
        tried = _try(task, device, progress)
    where = next(path for path in (out.absolute(), *out.absolute().parents) if path.exists())
    folds = options.folds if every_fold else 1
    return _reckon(task, tried, folds, free_mb, shutil.disk_usage(where).free / 1e6)


@dataclass(frozen=True)
class _Tried:
    """What one case and a few steps took."""

    device: torch.device
    world: int
    case: PreparedCase
    case_mb: float  # on disk
    prepare_s: float
    draw_s: float
    step_s: float
    peak_mb: float


def _try(task: Task, device: torch.device, progress: Progress) -> _Tried:
    with tempfile.TemporaryDirectory() as cache:
        started = time.perf_counter()
        case = prepare([_middling(task.learn)], task.settings.preprocessing, Path(cache), progress)[0]
        prepare_s = time.perf_counter() - started
        case_mb = case.path.stat().st_size / 1e6
        draw_s, step_s = _time_steps(task.start.network, case, task.settings, task.options.seed, device)
    world = world_size()
    return _Tried(device, world, case, case_mb, prepare_s, draw_s, step_s, _peak_mb(device))


def _reckon(task: Task, tried: _Tried, folds: int, free_mb: float, free_disk_mb: float) -> Forecast:
    training, weights = task.settings.training, weight_count(task.start.network)
    held_out, cases = len(task.held_out), len(task.held_out) + len(task.learn)
    a_step = training.batch_size * training.accumulate * tried.world
    steps = max(1, patches_of_epoch(training, task.learn) // a_step)
    apart = training.workers == 0
    each_s = tried.step_s + tried.draw_s if apart else max(tried.step_s, tried.draw_s / training.workers)
    forward_s = tried.step_s * FORWARD_SHARE / (training.batch_size * training.accumulate)
    looks = _windows(tried.case, task.settings) * _validations(training) * held_out / tried.world
    return Forecast(
        device=f"{tried.device}" + (f", {tried.world} processes" if tried.world > 1 else ""),
        patches=f"{a_step} patches of " + " x ".join(map(str, task.settings.preprocessing.size)),
        weights=weights,
        steps=steps,
        epochs=training.epochs,
        step_s=tried.step_s,
        draw_s=tried.draw_s,
        prepare_s=tried.prepare_s * cases / tried.world,
        train_s=training.epochs * steps * each_s,
        validate_s=looks * forward_s,
        peak_mb=tried.peak_mb,
        free_mb=free_mb,
        disk_mb=tried.case_mb * cases + _kept_copies(training) * weights * BYTES / 1e6,
        free_disk_mb=free_disk_mb,
        folds=folds,
    )


def _time_steps(
    network: RASeg, case: PreparedCase, settings: RunSettings, seed: int, device: torch.device
) -> tuple[float, float]:
    """Seconds of drawing the patches of a step, and of the step itself; the first step warms up.

    The shortest of those after it counts: a busy machine makes steps longer, never shorter.
    """
    world = world_size()
    enough = MOST_STEPS * settings.training.batch_size * settings.training.accumulate * world
    lungs_only = tuple(name for name in settings.training.lungs_only_cohorts if name == case.cohort)
    of_others = {"workers": 0, "cohort_draws": {}, "lungs_only_cohorts": lungs_only}
    alone = settings.training.model_copy(update=of_others)
    dataset = PatchDataset([case] * enough, settings.preprocessing, alone, seed)
    network.to(device).train()
    optimizer = make_optimizer(network, alone)
    averaged = averaged_copy(network, alone.ema_decay) if alone.ema_decay else None  # for its memory
    step = Step(network, optimizer, alone, seed, device)
    batches = TrainingPlan(dataset, alone, seed, device).batches_from(0, 0)
    begun = time.perf_counter()
    seconds: list[tuple[float, float]] = []
    while len(seconds) < 2 or (len(seconds) < MOST_STEPS and time.perf_counter() - begun < TRY_S):
        started = time.perf_counter()
        some = next(batches)
        drawn = time.perf_counter()
        step(some, 0, len(seconds))
        if averaged:
            averaged.update_parameters(network)
        seconds.append((drawn - started, time.perf_counter() - drawn))
    draws, steps = zip(*seconds[1:], strict=True)
    return min(draws), min(steps)


def _check_memory(network: RASeg, settings: RunSettings, free_mb: float) -> None:
    """Refuse what cannot fit, counted from shapes, before the system kills this process for trying."""
    training, processing = settings.training, settings.preprocessing
    batch = training.batch_size
    channels = len(processing.windows)
    shapes = [(batch, channels, *processing.size), (batch, 1, *processing.size)]

    def build() -> RASeg:
        made = RASeg(network.settings)
        if training.checkpoint_activations:
            checkpoint_activations(made)
        return made

    counted = measure_cost(build, [torch.empty(shape, device="meta") for shape in shapes]).training_mb
    needed = counted + 4 * weight_count(network) * BYTES / 2**20  # weights, gradients, two moments
    if needed > free_mb:
        wrong = f"needs more than {needed / 1000:.1f} GB, and {free_mb / 1000:.1f} GB are free"
        raise TrainingError("a training step", wrong, LESS_MEMORY)


def _middling(cases: Sequence[Case]) -> Case:
    by_size = sorted(cases, key=lambda case: case.ct_path.stat().st_size)
    return by_size[len(by_size) // 2]


def _windows(case: PreparedCase, settings: RunSettings) -> int:
    """Windows of the network in one case, all priors; a box takes one a lesion."""
    sizes = zip(case.shape, settings.preprocessing.size, strict=True)
    whole = math.prod(max(1, math.ceil((n - s) / (s * WINDOW_STEP)) + 1) for n, s in sizes)
    boxes = len(case.lesion_boxes)
    return sum(boxes if name == "box" else whole for name in settings.training.prior_names)


def _validations(training: TrainingSettings) -> int:
    every = training.validate_every
    return 1 if not every else math.ceil(training.epochs / every)


def _kept_copies(training: TrainingSettings) -> int:
    """Numbers a weight in checkpoint and model: itself, two of the optimizer, mean, best, and the model's."""
    moments = 2 if training.optimizer == "adamw" else 1
    return 2 + moments + (training.ema_decay > 0) + (training.patience > 0)


def _peak_mb(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device) / 2**20
    return peak_memory_mb()
