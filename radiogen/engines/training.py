"""The training loop, one for dense and pruned networks; a killed run goes on where it was."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from radiogen.engines.checkpoint import load_checkpoint, read_checkpoint_about, save_checkpoint
from radiogen.engines.losses import segmentation_loss
from radiogen.engines.patches import EpochSampler, Patch, PatchDataset
from radiogen.engines.prepared import PreparedCase
from radiogen.engines.presets import RunSettings
from radiogen.engines.training_settings import TrainingSettings
from radiogen.engines.validation import validate
from radiogen.errors import TrainingError
from radiogen.networks.raseg import InTraining, RASeg
from radiogen.pruning.holding import assert_held, hold_weight_masks
from radiogen.runtime import Tick, no_tick


@dataclass
class Training:
    """One training: the network at its start, what it learns from, and where it keeps its checkpoint."""

    network: RASeg
    settings: RunSettings
    learn: Sequence[PreparedCase]
    held_out: Sequence[PreparedCase]
    weight_masks: Mapping[str, Tensor]
    seed: int
    device: torch.device
    checkpoint: Path
    fingerprint: str  # of everything that decides the result; a checkpoint of another one is refused

    def run(self, tick: Tick = no_tick) -> dict[str, list[dict[str, Any]]]:
        """Train to the last epoch.

        Returns:
            `epochs`: one row an epoch (epoch, loss, learning_rate); `validation`: one row a held-out
            case and prior.

        Raises:
            TrainingError: The loss is not finite, or the checkpoint is of another training.
        """
        training = self.settings.training
        network = self.network.to(self.device)
        optimizer = make_optimizer(network, training)
        rows, checks = self._resume(network, optimizer)
        hold_weight_masks(network, self.weight_masks, optimizer)
        loader, sampler = self._loader()
        step = Step(network, optimizer, training, self.seed, self.device)
        for epoch in range(len(rows), training.epochs):
            tick("train", epoch, training.epochs)
            rate = learning_rate(training, epoch)
            for group in optimizer.param_groups:
                group["lr"] = rate
            sampler.epoch = epoch
            network.train()
            losses = [step(batch, epoch, number) for number, batch in enumerate(loader)]
            rows.append({"epoch": epoch, "loss": sum(losses) / len(losses), "learning_rate": rate})
            last = epoch + 1 == training.epochs
            if self.held_out and (last or _is_due(epoch, training.validate_every)):
                checks += [{"epoch": epoch, **row} for row in self._validate(network)]
            assert_held(network, self.weight_masks)
            about = {"fingerprint": self.fingerprint, "epochs": rows, "validation": checks}
            save_checkpoint(self.checkpoint, network, optimizer, about)
        tick("train", training.epochs, training.epochs)
        assert_held(network, self.weight_masks)
        return {"epochs": rows, "validation": checks}

    def _resume(
        self, network: nn.Module, optimizer: torch.optim.Optimizer
    ) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        if not self.checkpoint.is_file():
            return [], []
        about = read_checkpoint_about(self.checkpoint)
        if about["fingerprint"] != self.fingerprint:
            raise TrainingError(
                self.checkpoint, "is of a training with other settings or cases", "take --existing overwrite"
            )
        load_checkpoint(self.checkpoint, network, optimizer)
        return about["epochs"], about["validation"]

    def _loader(self) -> tuple[DataLoader[Patch], EpochSampler]:
        training = self.settings.training
        dataset = PatchDataset(self.learn, self.settings.preprocessing, training, self.seed)
        sampler = EpochSampler(len(dataset), self.seed)
        loader: DataLoader[Patch] = DataLoader(
            dataset,
            batch_size=training.batch_size,
            sampler=sampler,
            num_workers=training.workers,
            pin_memory=self.device.type == "cuda",
        )
        return loader, sampler

    def _validate(self, network: nn.Module) -> list[dict[str, Any]]:
        priors = self.settings.training.priors
        return validate(network, self.held_out, self.settings.preprocessing, priors, self.device)


class Step:
    """One step of the optimizer; what dropout draws depends on (seed, epoch, step) alone."""

    def __init__(
        self,
        network: RASeg,
        optimizer: torch.optim.Optimizer,
        training: TrainingSettings,
        seed: int,
        device: torch.device,
    ) -> None:
        self.network, self.optimizer, self.training = network, optimizer, training
        self.seed, self.device = seed, device
        self.loss = segmentation_loss()
        self.amp = training.amp and device.type == "cuda"
        self.half = torch.bfloat16 if self.amp and torch.cuda.is_bf16_supported() else torch.float16
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.amp and self.half is torch.float16)
        if training.channels_last and device.type == "cuda":
            network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        self.forward: nn.Module = InTraining(network)
        if training.compile:
            self.forward.compile()

    def __call__(self, batch: Sequence[Tensor], epoch: int, number: int) -> float:
        tensors = tuple(tensor.to(self.device, non_blocking=True) for tensor in batch)
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(chance_of_step(self.seed, epoch, number))  # dropout takes no generator
            with torch.autocast(self.device.type, dtype=self.half, enabled=self.amp):
                loss = self.loss(self.forward, tensors)
        value = loss.item()
        if not math.isfinite(value):
            raise TrainingError(
                f"epoch {epoch}, step {number}", "the loss is not finite", "lower training.learning_rate"
            )
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.network.parameters(), self.training.gradient_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return value


def make_optimizer(network: nn.Module, training: TrainingSettings) -> torch.optim.Optimizer:
    """AdamW or SGD over all weights."""
    rate, decay = training.learning_rate, training.weight_decay
    if training.optimizer == "sgd":
        return torch.optim.SGD(network.parameters(), rate, momentum=training.momentum, weight_decay=decay)
    return torch.optim.AdamW(network.parameters(), rate, weight_decay=decay)


def learning_rate(training: TrainingSettings, epoch: int) -> float:
    """The rate of an epoch: polynomial decay towards the last one."""
    return training.learning_rate * float((1 - epoch / training.epochs) ** training.decay_power)


def chance_of_step(seed: int, epoch: int, number: int) -> int:
    """A seed of its own for every step, so that a resumed run draws what an uninterrupted one drew."""
    return int(np.random.SeedSequence([seed, epoch, number]).generate_state(1, np.uint64)[0] >> 1)


def _is_due(epoch: int, every: int) -> bool:
    return every > 0 and (epoch + 1) % every == 0
