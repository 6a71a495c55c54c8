"""The training loop, one for dense and pruned networks: epochs, log and checkpoints.

A killed run goes on where it was. A checkpoint holds no state of a random generator, since nothing draws
from a running one: patches and dropout depend on (seed, epoch, draw), so the rest comes out to the byte.
"""

import json
import shutil
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from radiogen.distributed import all_gather, as_rank_zero_reports, barrier, is_rank_zero, rank, world_size
from radiogen.drawing.plots import draw_training_progress
from radiogen.errors import PruningError, TrainingError
from radiogen.io.tensors import load_tensors, read_about, save_tensors
from radiogen.networks.raseg import RASeg
from radiogen.optional import require
from radiogen.provenance import clear_drafts, write_text
from radiogen.pruning.weight_masks import check_masks_held, hold_weight_masks
from radiogen.runtime import Progress, no_progress
from radiogen.training.batches import TrainingBatches
from radiogen.training.patches import PatchDataset
from radiogen.training.prepared import PreparedCase
from radiogen.training.settings import RunSettings, TrainingSettings
from radiogen.training.step import TrainingStep, learning_rate, make_optimizer
from radiogen.training.validation import validate

CHECKPOINT = "checkpoint.safetensors"
METRICS_LINES = "metrics.jsonl"
PICTURE = "progress.png"
EVENTS = "tensorboard"
DRAW_AFTER_S = 60.0  # between pictures of epochs without a validation
BEGIN_ANEW = "begin anew with --existing overwrite"
Row = dict[str, Any]


@dataclass
class TrainingState:
    """How far a training has come, and what it has measured on the way."""

    epoch: int = 0
    step: int = 0  # steps of this epoch that are done
    losses: list[float] = field(default_factory=list)  # of those steps
    epochs: list[Row] = field(default_factory=list)
    validation: list[Row] = field(default_factory=list)
    best: Row = field(default_factory=dict)  # epoch and mean Dice, with `patience`
    worse: int = 0  # validations since the best one
    scaler: dict[str, Any] = field(default_factory=dict)  # of mixed precision in float16


@dataclass
class TrainingLoop:
    """One training: the network at its start, what it learns from, and the folder that it writes to.

    Under torchrun every process has one; the first one writes.
    """

    network: RASeg
    settings: RunSettings
    learn: Sequence[PreparedCase]
    held_out: Sequence[PreparedCase]
    weight_masks: Mapping[str, Tensor]
    seed: int
    device: torch.device
    folder: Path
    fingerprint: str  # of everything that decides the result; a checkpoint of another one is refused

    def run(self, progress: Progress = no_progress) -> TrainingState:
        """Train to the last epoch, or until `patience` is lost.

        The network then has the weights that a model is written of: the last, their averages (`ema_decay`),
        or the best of the validations (`patience`).

        Returns:
            `epochs`: one row an epoch (epoch, loss, learning_rate); `validation`: one row a held-out
            case and prior.

        Raises:
            TrainingError: The loss is not finite, memory is not enough, a process was killed, or the
                checkpoint is of another training.
        """
        training = self.settings.training
        network = self.network.to(self.device)
        dataset = PatchDataset(self.learn, self.settings.preprocessing, training, self.seed)
        batches = TrainingBatches(dataset, training, self.seed, self.device)
        optimizer = make_optimizer(network, training)
        self.weights = TrainedWeights(network, optimizer, averaged_copy(network, training))
        state = self._resume()
        # After the checkpoint is loaded: its optimizer state is masked as well.
        hold_weight_masks(network, self.weight_masks, optimizer)
        step = TrainingStep(network, optimizer, training, self.seed, self.device)
        step.scaler.load_state_dict(state.scaler or step.scaler.state_dict())
        # Only rank 0 writes; the other ranks have no log.
        self.log = TrainingLog(self.folder, training.tensorboard) if is_rank_zero() else None
        if self.log:
            self.log.write(state)
        self._train(batches, step, state, progress)
        if self.log:
            self.log.close(state)
        network.load_state_dict(self.weights.to_keep(best=bool(training.patience)))
        check_masks_held(network, self.weight_masks)
        return state

    def _train(
        self, batches: TrainingBatches, step: TrainingStep, state: TrainingState, progress: Progress
    ) -> None:
        training, weights = self.settings.training, self.weights
        upcoming = batches.from_step(state.epoch, state.step)
        saved_at = time.monotonic()
        weights.network.train()
        while not self._is_over(state):
            progress("train", state.epoch * batches.steps + state.step, training.epochs * batches.steps)
            for group in weights.optimizer.param_groups:
                group["lr"] = learning_rate(training, state.epoch)
            state.losses.append(step(next(upcoming), state.epoch, state.step))
            state.step += 1
            # Pruned weights are zero after every step, and so in the average.
            if weights.averaged:
                weights.averaged.update_parameters(weights.network)
            if state.step == batches.steps:
                self._end_epoch(state)
            if self._is_over(state) or time.monotonic() - saved_at >= 60 * training.checkpoint_minutes:
                state.scaler = step.scaler.state_dict()
                if is_rank_zero():
                    header = {"fingerprint": self.fingerprint, **vars(state)}
                    save_checkpoint(self.folder / CHECKPOINT, weights, header)
                saved_at = time.monotonic()
        progress("train", training.epochs * batches.steps, training.epochs * batches.steps)

    def _is_over(self, state: TrainingState) -> bool:
        training = self.settings.training
        return state.epoch == training.epochs or 0 < training.patience <= state.worse

    def _end_epoch(self, state: TrainingState) -> None:
        training, epoch = self.settings.training, state.epoch
        rate = learning_rate(training, epoch)
        state.epochs.append({"epoch": epoch, "loss": mean(state.losses), "learning_rate": rate})
        if self.log:  # the epoch shows before its validation, which takes long
            self.log.write(state)
        is_due = training.validate_every > 0 and (epoch + 1) % training.validate_every == 0
        if self.held_out and (is_due or epoch + 1 == training.epochs):
            self._validate(state)
            if self.log:
                self.log.write(state)
        check_masks_held(self.network, self.weight_masks)
        state.epoch, state.step, state.losses = epoch + 1, 0, []

    def _validate(self, state: TrainingState) -> None:
        """Validate the cases of this process, gather the rows of all, and keep the best weights so far."""
        training = self.settings.training
        own = self.held_out[rank() :: world_size()]
        preprocessing, names = self.settings.preprocessing, training.prior_names
        found = validate(self.weights.in_use, own, preprocessing, names, self.device, training.threshold)
        place = {case.case_id: number for number, case in enumerate(self.held_out)}
        rows = sorted(all_gather(found), key=lambda row: place[row["case_id"]])
        state.validation += [{"epoch": state.epoch, **row} for row in rows]
        if not training.patience:
            return
        # The epoch is chosen on the held-out cases, so their figures flatter; the model card says so.
        dice = mean(row["dice"] for row in rows)
        state.worse += 1
        if dice > state.best.get("dice", -1.0):
            state.best, state.worse = {"epoch": state.epoch, "dice": dice}, 0
            self.weights.keep_best()

    def _resume(self) -> TrainingState:
        """Load the checkpoint of this training, if there is one."""
        path = self.folder / CHECKPOINT
        if is_rank_zero():
            clear_drafts(self.folder)
        barrier()
        if not path.is_file():
            return TrainingState()
        header = read_checkpoint_header(path)
        if header.pop("fingerprint", "") != self.fingerprint:
            wrong = "is of a training with other settings or cases"
            raise as_rank_zero_reports(
                TrainingError(path, wrong, "choose another folder or --existing overwrite")
            )
        load_checkpoint(path, self.weights)
        return TrainingState(**header)


def averaged_copy(network: nn.Module, training: TrainingSettings) -> AveragedModel | None:
    """Return a copy of a network that follows it: average = d average + (1 - d) weight after each step.

    d rises to `ema_decay` as (1 + n) / (10 + n) over the first n steps, so that short trainings are not
    stuck in their start. Buffers are those of the network itself. None where `ema_decay` is 0.
    """

    def follow(averages: Sequence[Tensor], weights: Sequence[Tensor], steps: Tensor | int) -> None:
        count = int(steps)
        kept = min(training.ema_decay, (1 + count) / (10 + count))
        with torch.no_grad():
            torch._foreach_lerp_(tuple(averages), tuple(weights), 1 - kept)

    return AveragedModel(network, multi_avg_fn=follow) if training.ema_decay else None


class TrainingLog:
    """What a training shows of itself in the model folder: metrics.jsonl, progress.png, TensorBoard events.

    Raises:
        MissingPackageError: TensorBoard is wanted and not installed.
    """

    def __init__(self, folder: Path, tensorboard: bool) -> None:
        self.folder = folder
        self.drawn_at = 0.0
        self.epochs = self.validations = 0  # rows that are written as events
        self.events: Any = None
        if tensorboard:
            require("tensorboard", "track")
            from torch.utils.tensorboard import SummaryWriter

            shutil.rmtree(folder / EVENTS, ignore_errors=True)
            self.events = SummaryWriter(str(folder / EVENTS))

    def write(self, state: TrainingState) -> None:
        """Write all rows so far; after a kill, rows of steps that will be done again are gone."""
        rows = [{"kind": "epoch", **row} for row in state.epochs]
        rows += [{"kind": "validation", **row} for row in state.validation]
        rows.sort(key=lambda row: row["epoch"])  # stable: an epoch before its validation
        write_text(self.folder / METRICS_LINES, "".join(json.dumps(row) + "\n" for row in rows))
        is_validated = len(state.validation) > self.validations
        self._add_events(state)
        if rows and (is_validated or time.monotonic() - self.drawn_at > DRAW_AFTER_S):
            self._draw(state)

    def close(self, state: TrainingState) -> None:
        """Draw the last picture and close what is open."""
        self._draw(state)
        if self.events:
            self.events.close()
            for path in (self.folder / EVENTS).glob("events.out.tfevents.*"):
                # TensorBoard puts the name of the machine into the name of the file.
                path.rename(path.with_name("events.out.tfevents.training"))

    def _draw(self, state: TrainingState) -> None:
        self.drawn_at = time.monotonic()
        losses = [(row["epoch"], row["loss"]) for row in state.epochs]
        draw_training_progress(losses, mean_dice(state.validation), self.folder / PICTURE)

    def _add_events(self, state: TrainingState) -> None:
        epochs, validation = state.epochs[self.epochs :], state.validation[self.validations :]
        self.epochs, self.validations = len(state.epochs), len(state.validation)
        if not self.events:
            return
        for row in epochs:
            for name in ("loss", "learning_rate"):
                self.events.add_scalar(name, row[name], row["epoch"])
        for name, points in mean_dice(validation).items():
            for epoch, dice in points:
                self.events.add_scalar(f"dice/{name}", dice, epoch)
        self.events.flush()


def mean_dice(validation: Sequence[Row]) -> dict[str, list[tuple[int, float]]]:
    """Return the mean Dice of the cases of each validation, by prior with its prompt: (epoch, Dice).

    >>> row = {"epoch": 4, "prior": "box", "prompt": "oracle"}
    >>> mean_dice([{**row, "dice": 0.5}, {**row, "dice": 0.75}])
    {'box (oracle)': [(4, 0.625)]}
    """
    by_prior: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in validation:
        by_prior[f"{row['prior']} ({row['prompt']})"][row["epoch"]].append(row["dice"])
    return {
        name: [(epoch, mean(dice)) for epoch, dice in sorted(rows.items())] for name, rows in by_prior.items()
    }


@dataclass
class TrainedWeights:
    """All that a training changes: weights, optimizer state, weight averages, the best weights so far."""

    network: nn.Module
    optimizer: torch.optim.Optimizer
    averaged: AveragedModel | None = None
    best: dict[str, Tensor] = field(default_factory=dict)

    @property
    def in_use(self) -> nn.Module:
        """The network that is validated and written: the averages, if there are any."""
        averaged: nn.Module | None = self.averaged.module if self.averaged else None
        return averaged or self.network

    def keep_best(self) -> None:
        """Copy the weights in use as the best so far."""
        self.best = {name: tensor.detach().clone() for name, tensor in self.in_use.state_dict().items()}

    def to_keep(self, best: bool) -> Mapping[str, Tensor]:
        """Return the weights to write: the best ones, or those in use."""
        state: Mapping[str, Tensor] = self.best if best else self.in_use.state_dict()
        return state

    def tensors(self) -> dict[str, Tensor]:
        """Return everything in one dictionary, named `part/name`."""
        # The best weights are part of the checkpoint, not a file beside it: one rename, one state.
        parts: dict[str, Mapping[str, Tensor]] = {"network": self.network.state_dict(), "best": self.best}
        if self.averaged:
            parts["averaged"] = self.averaged.state_dict()
        for index, state in self.optimizer.state_dict()["state"].items():
            parts[f"optimizer/{index}"] = {k: v for k, v in state.items() if isinstance(v, Tensor)}
        return {f"{part}/{name}": tensor for part, some in parts.items() for name, tensor in some.items()}


def save_checkpoint(path: Path, weights: TrainedWeights, header: Mapping[str, Any]) -> None:
    """Write what was learned, and a header of what JSON can hold; whole or not at all.

    Raises:
        TrainingError: A weight is not finite; the checkpoint before stays.
    """
    for name, weight in weights.network.named_parameters():
        if not bool(weight.isfinite().all()):
            raise TrainingError(name, "has weights that are not finite", "lower training.learning_rate")
    save_tensors(path, weights.tensors(), header)


def read_checkpoint_header(path: Path) -> dict[str, Any]:
    """Read the header of a checkpoint, without its tensors.

    Raises:
        TrainingError: The file is damaged.
    """
    try:
        return read_about(path)
    except PruningError as error:
        raise TrainingError(path, "is damaged", BEGIN_ANEW) from error


def load_checkpoint(path: Path, weights: TrainedWeights) -> None:
    """Load weights, averages, best weights and optimizer state.

    Raises:
        TrainingError: The checkpoint is damaged or of another network.
    """
    parts: dict[str, dict[str, Tensor]] = {"network": {}, "averaged": {}, "best": {}, "optimizer": {}}
    try:
        for name, tensor in load_tensors(path).items():
            part, _, rest = name.partition("/")
            parts[part][rest] = tensor
    except (PruningError, KeyError) as error:
        raise TrainingError(path, "is damaged", BEGIN_ANEW) from error
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in parts["optimizer"].items():
        index, _, key = name.partition("/")
        state.setdefault(int(index), {})[key] = tensor
    try:
        weights.network.load_state_dict(parts["network"])
        if weights.averaged:
            weights.averaged.load_state_dict(parts["averaged"])
    except RuntimeError as error:
        raise TrainingError(path, "is of another network", BEGIN_ANEW) from error
    weights.best = parts["best"]
    weights.optimizer.load_state_dict({**weights.optimizer.state_dict(), "state": state})
