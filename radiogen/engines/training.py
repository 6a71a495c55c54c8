"""The training loop, one for dense and pruned networks; a killed run goes on where it was."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from radiogen.engines.averaging import averaged_copy
from radiogen.engines.checkpoint import load_checkpoint, read_checkpoint_about, save_checkpoint
from radiogen.engines.patches import PatchDataset
from radiogen.engines.prepared import PreparedCase
from radiogen.engines.presets import RunSettings
from radiogen.engines.step import Step, learning_rate, make_optimizer
from radiogen.engines.training_log import TrainingLog
from radiogen.engines.training_plan import TrainingPlan
from radiogen.engines.validation import validate
from radiogen.errors import TrainingError
from radiogen.networks.raseg import RASeg
from radiogen.provenance import DRAFT
from radiogen.pruning.holding import assert_held, hold_weight_masks
from radiogen.runtime import Tick, no_tick

CHECKPOINT = "checkpoint.safetensors"


@dataclass
class Progress:
    """How far a training has come, and what it has measured on the way."""

    epoch: int = 0
    step: int = 0  # steps of this epoch that are done
    losses: list[float] = field(default_factory=list)  # of those steps
    epochs: list[dict[str, Any]] = field(default_factory=list)
    validation: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Training:
    """One training: the network at its start, what it learns from, and the folder it keeps itself in."""

    network: RASeg
    settings: RunSettings
    learn: Sequence[PreparedCase]
    held_out: Sequence[PreparedCase]
    weight_masks: Mapping[str, Tensor]
    seed: int
    device: torch.device
    folder: Path
    fingerprint: str  # of everything that decides the result; a checkpoint of another one is refused

    def run(self, tick: Tick = no_tick) -> Progress:
        """Train to the last epoch; the network then has the weights that a model is written of.

        Returns:
            `epochs`: one row an epoch (epoch, loss, learning_rate); `validation`: one row a held-out
            case and prior.

        Raises:
            TrainingError: The loss is not finite, or the checkpoint is of another training.
        """
        training = self.settings.training
        network = self.network.to(self.device)
        dataset = PatchDataset(self.learn, self.settings.preprocessing, training, self.seed)
        plan = TrainingPlan(dataset, training, self.seed, self.device)
        self.optimizer = make_optimizer(network, training)
        self.averaged = averaged_copy(network, training.ema_decay) if training.ema_decay else None
        self.saved_at = time.monotonic()
        done = self._resume()
        log = TrainingLog(self.folder)
        log.begin(done.epochs, done.validation)
        hold_weight_masks(network, self.weight_masks, self.optimizer)
        step = Step(network, self.optimizer, training, self.seed, self.device)
        network.train()
        batches = plan.batches_from(done.epoch, done.step)
        while done.epoch < training.epochs:
            tick("train", done.epoch * plan.steps + done.step, training.epochs * plan.steps)
            for group in self.optimizer.param_groups:
                group["lr"] = learning_rate(training, done.epoch)
            done.losses.append(step(next(batches), done.epoch, done.step))
            done.step += 1
            if self.averaged:
                self.averaged.update_parameters(network)
            if done.step == plan.steps:
                self._end_epoch(done, log)
            if time.monotonic() - self.saved_at >= 60 * training.checkpoint_minutes:
                self._save(done)
        tick("train", training.epochs * plan.steps, training.epochs * plan.steps)
        if self.averaged:
            network.load_state_dict(self.averaged.module.state_dict())
        assert_held(network, self.weight_masks)
        return done

    def _end_epoch(self, done: Progress, log: TrainingLog) -> None:
        training, epoch = self.settings.training, done.epoch
        rate = learning_rate(training, epoch)
        row = {"epoch": epoch, "loss": sum(done.losses) / len(done.losses), "learning_rate": rate}
        done.epochs.append(row)
        log.add("epoch", [row])
        last = epoch + 1 == training.epochs
        is_due = training.validate_every > 0 and (epoch + 1) % training.validate_every == 0
        if self.held_out and (last or is_due):
            rows = [{"epoch": epoch, **row} for row in self._validate()]
            done.validation += rows
            log.add("validation", rows)
        assert_held(self.network, self.weight_masks)
        done.epoch, done.step, done.losses = epoch + 1, 0, []
        if last:
            self._save(done)

    def _validate(self) -> list[dict[str, Any]]:
        network = self.averaged.module if self.averaged else self.network
        priors = self.settings.training.prior_names
        return validate(network, self.held_out, self.settings.preprocessing, priors, self.device)

    def _save(self, done: Progress) -> None:
        about = {"fingerprint": self.fingerprint, **vars(done)}
        save_checkpoint(self.folder / CHECKPOINT, self.network, self.optimizer, about, self.averaged)
        self.saved_at = time.monotonic()

    def _resume(self) -> Progress:
        path = self.folder / CHECKPOINT
        for draft in self.folder.glob(f"{DRAFT}*"):  # of a process that was killed while it wrote
            draft.unlink()
        if not path.is_file():
            return Progress()
        about = read_checkpoint_about(path)
        if about.pop("fingerprint", "") != self.fingerprint:
            raise TrainingError(
                path, "is of a training with other settings or cases", "take --existing overwrite"
            )
        load_checkpoint(path, self.network, self.optimizer, self.averaged)
        return Progress(**about)
