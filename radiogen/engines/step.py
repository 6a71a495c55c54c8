"""One step of a training: forward, backward, and what the optimizer makes of it."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from radiogen.engines.losses import segmentation_loss
from radiogen.engines.training_settings import TrainingSettings
from radiogen.errors import TrainingError
from radiogen.networks.raseg import InTraining, RASeg


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
        """Take a step and give its loss.

        Raises:
            TrainingError: The loss or its gradient is not finite; the weights are as they were before.
        """
        tensors = tuple(tensor.to(self.device, non_blocking=True) for tensor in batch)
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(chance_of_step(self.seed, epoch, number))  # dropout takes no generator
            with torch.autocast(self.device.type, dtype=self.half, enabled=self.amp):
                loss = self.loss(self.forward, tensors)
        value = loss.item()
        self._check(value, "loss", epoch, number)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self.scaler.unscale_(self.optimizer)
        length = nn.utils.clip_grad_norm_(self.network.parameters(), self.training.gradient_norm)
        if not self.scaler.is_enabled():  # which leaves out such a step by itself, and scales down
            self._check(length.item(), "gradient", epoch, number)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return value

    def _check(self, value: float, what: str, epoch: int, number: int) -> None:
        if not math.isfinite(value):
            raise TrainingError(
                f"epoch {epoch}, step {number}", f"the {what} is not finite", "lower training.learning_rate"
            )


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
