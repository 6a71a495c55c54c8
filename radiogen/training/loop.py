"""The training loop, one for dense and pruned networks; a killed run goes on where it was."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel

from radiogen.distributed import all_gather, as_rank_zero_reports, barrier, is_rank_zero, rank, world_size
from radiogen.errors import TrainingError
from radiogen.model.network_input import Preprocessing, scale_windows
from radiogen.model.priors import PROMPT_OF, PriorName
from radiogen.networks.raseg import RASeg
from radiogen.provenance import clear_drafts
from radiogen.pruning.holding import assert_held, hold_weight_masks
from radiogen.runtime import Progress, no_progress
from radiogen.segmentation.sliding import predict, window_about, zoom_for, zoomed
from radiogen.training.checkpoint import Learned, load_checkpoint, read_checkpoint_about, save_checkpoint
from radiogen.training.log import TrainingLog
from radiogen.training.patches import PatchDataset
from radiogen.training.plan import TrainingPlan
from radiogen.training.prepared import PreparedCase
from radiogen.training.settings import RunSettings
from radiogen.training.step import Step, learning_rate, make_optimizer
from radiogen.volume import FloatArray


def validate(
    network: nn.Module,
    cases: Sequence[PreparedCase],
    preprocessing: Preprocessing,
    priors: Sequence[PriorName],
    device: torch.device,
    threshold: float = 0.5,
) -> list[dict[str, Any]]:
    """Dice of each case with each prior, on the network's grid; a box is the true one (prompt `oracle`)."""
    was_training = network.training
    network.eval()
    rows = []
    for case in cases:
        whole = (slice(None), slice(None), slice(None))
        image = scale_windows(case.read("hu", whole), preprocessing.windows)
        lesion = case.read("lesion", whole) > 0
        lungs = case.read("lungs", whole) > 0
        for prior in priors:
            if prior == "box":
                found = _predict_boxes(network, case, image, preprocessing, device) >= threshold
            else:
                where = {"lungs": lungs, "none": np.ones_like(lungs), "mask": lesion}[prior]
                probability = predict(network, image, where.astype(np.float32), preprocessing.size, device)
                found = probability >= threshold
            both = int(np.sum(found & lesion))
            size = int(found.sum() + lesion.sum())
            dice = 2 * both / size if size else 1.0
            rows.append({"case_id": case.case_id, "prior": prior, "prompt": PROMPT_OF[prior], "dice": dice})
    network.train(was_training)
    return rows


def _predict_boxes(
    network: nn.Module,
    case: PreparedCase,
    image: FloatArray,
    preprocessing: Preprocessing,
    device: torch.device,
) -> FloatArray:
    """The greatest probability under the outline's boxes, each seen in voxels of the size it gets in use."""
    probability = np.zeros(case.shape, np.float32)
    for box in case.lesion_boxes.values():
        prior = np.zeros(case.shape, np.float32)
        prior[box] = 1.0
        zoom = zoom_for(box, preprocessing.size, preprocessing.box_fills)
        near = window_about(box, case.shape, zoomed(preprocessing.size, zoom))
        shape = [edge.stop - edge.start for edge in near]
        seen = [round(n / zoom) for n in shape]
        piece = predict(
            network,
            _resized(image[(slice(None), *near)], seen),
            _resized(prior[near][None], seen, "nearest")[0],
            preprocessing.size,
            device,
        )
        probability[near] = np.maximum(probability[near], _resized(piece[None], shape)[0])
    return probability


def _resized(channels: FloatArray, shape: Sequence[int], mode: str = "trilinear") -> FloatArray:
    if channels.shape[1:] == tuple(shape):
        return channels
    resized = functional.interpolate(torch.from_numpy(channels)[None], tuple(shape), mode=mode)
    return np.asarray(resized[0].numpy())


def averaged_copy(network: nn.Module, decay: float) -> AveragedModel:
    """A copy of a network that follows it: average = d average + (1 - d) weight after each step.

    d rises to `decay` as (1 + n) / (10 + n) over the first n steps, so that the start is soon forgotten.
    Buffers are those of the network itself.

    Args:
        network: The bare network, before it is wrapped.
        decay: In (0, 1).
    """

    def follow(averages: Sequence[Tensor], weights: Sequence[Tensor], steps: Tensor | int) -> None:
        count = int(steps)
        kept = min(decay, (1 + count) / (10 + count))
        with torch.no_grad():
            torch._foreach_lerp_(tuple(averages), tuple(weights), 1 - kept)

    return AveragedModel(network, multi_avg_fn=follow)


CHECKPOINT = "checkpoint.safetensors"


@dataclass
class TrainingState:
    """How far a training has come, and what it has measured on the way."""

    epoch: int = 0
    step: int = 0  # steps of this epoch that are done
    losses: list[float] = field(default_factory=list)  # of those steps
    epochs: list[dict[str, Any]] = field(default_factory=list)
    validation: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, Any] = field(default_factory=dict)  # epoch and mean Dice, with `patience`
    worse: int = 0  # validations since the best one
    scaler: dict[str, Any] = field(default_factory=dict)  # of mixed precision in float16


@dataclass
class Training:
    """One training: the network at its start, what it learns from, and the folder it keeps itself in.

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
        plan = TrainingPlan(dataset, training, self.seed, self.device)
        optimizer = make_optimizer(network, training)
        averaged = averaged_copy(network, training.ema_decay) if training.ema_decay else None
        self.learned = Learned(network, optimizer, averaged)
        done = self._resume()
        hold_weight_masks(network, self.weight_masks, optimizer)
        step = Step(network, optimizer, training, self.seed, self.device)
        step.scaler.load_state_dict(done.scaler or step.scaler.state_dict())
        self.log = TrainingLog(self.folder, training.tensorboard) if is_rank_zero() else None
        if self.log:
            self.log.begin(done.epochs, done.validation)
        self._learn(plan, step, done, progress)
        if self.log:
            self.log.end()
        network.load_state_dict(self.learned.kept(bool(training.patience)))
        assert_held(network, self.weight_masks)
        return done

    def _learn(self, plan: TrainingPlan, step: Step, done: TrainingState, progress: Progress) -> None:
        training, learned = self.settings.training, self.learned
        batches = plan.batches_from(done.epoch, done.step)
        saved_at = time.monotonic()
        learned.network.train()
        while not self._is_over(done):
            progress("train", done.epoch * plan.steps + done.step, training.epochs * plan.steps)
            for group in learned.optimizer.param_groups:
                group["lr"] = learning_rate(training, done.epoch)
            done.losses.append(step(next(batches), done.epoch, done.step))
            done.step += 1
            if learned.averaged:
                learned.averaged.update_parameters(learned.network)
            if done.step == plan.steps:
                self._end_epoch(done)
            if self._is_over(done) or time.monotonic() - saved_at >= 60 * training.checkpoint_minutes:
                done.scaler = step.scaler.state_dict()
                self._save(done)
                saved_at = time.monotonic()
        progress("train", training.epochs * plan.steps, training.epochs * plan.steps)

    def _is_over(self, done: TrainingState) -> bool:
        training = self.settings.training
        return done.epoch == training.epochs or 0 < training.patience <= done.worse

    def _end_epoch(self, done: TrainingState) -> None:
        training, epoch = self.settings.training, done.epoch
        row = {"epoch": epoch, "loss": mean(done.losses), "learning_rate": learning_rate(training, epoch)}
        done.epochs.append(row)
        if self.log:
            self.log.add_epoch(row)
        is_due = training.validate_every > 0 and (epoch + 1) % training.validate_every == 0
        if self.held_out and (is_due or epoch + 1 == training.epochs):
            rows = [{"epoch": epoch, **row} for row in self._validate()]
            done.validation += rows
            self._keep_best(done, rows)
            if self.log:
                self.log.add_validation(rows)
        assert_held(self.network, self.weight_masks)
        done.epoch, done.step, done.losses = epoch + 1, 0, []

    def _validate(self) -> list[dict[str, Any]]:
        """Every process takes its share of the cases."""
        number, world = rank(), world_size()
        mine, training = self.held_out[number::world], self.settings.training
        network = self.learned.in_use
        seen = (self.settings.preprocessing, training.prior_names, self.device, training.threshold)
        rows = validate(network, mine, *seen)
        place = {case.case_id: number for number, case in enumerate(self.held_out)}
        return sorted(all_gather(rows), key=lambda row: place[row["case_id"]])

    def _keep_best(self, done: TrainingState, rows: Sequence[Mapping[str, Any]]) -> None:
        dice = mean(row["dice"] for row in rows)
        if not self.settings.training.patience:
            return
        done.worse += 1
        if dice > done.best.get("dice", -1.0):
            done.best, done.worse = {"epoch": done.epoch, "dice": dice}, 0
            self.learned.keep_best()

    def _save(self, done: TrainingState) -> None:
        if is_rank_zero():
            about = {"fingerprint": self.fingerprint, **vars(done)}
            save_checkpoint(self.folder / CHECKPOINT, self.learned, about)

    def _resume(self) -> TrainingState:
        path = self.folder / CHECKPOINT
        if is_rank_zero():
            clear_drafts(self.folder)
        barrier()
        if not path.is_file():
            return TrainingState()
        about = read_checkpoint_about(path)
        if about.pop("fingerprint", "") != self.fingerprint:
            wrong = "is of a training with other settings or cases"
            raise as_rank_zero_reports(TrainingError(path, wrong, "take --existing overwrite"))
        load_checkpoint(path, self.learned)
        return TrainingState(**about)
