"""One step of a training: forward, backward, and what the optimizer makes of it."""

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grad_norm_

from radiogen.training.losses import segmentation_loss
from radiogen.training.network_setup import fit_network
from radiogen.training.shared_sums import SharedSums
from radiogen.training.plan import Batch
from radiogen.training.settings import TrainingSettings
from radiogen.errors import TrainingError
from radiogen.networks.dropout import sample_seeds, seed_of
from radiogen.networks.raseg import InTraining, RASeg
from radiogen.distributed import add_up, process_count
from radiogen.runtime import has_fast_bfloat16, said_once


class Step:
    """One step of the optimizer over mini-batches, to which other processes may add theirs.

    The step is that of one large batch of all of them: gradients are means, Dice is taken over all, and what
    dropout draws depends on (seed, epoch, draw) alone. Batch norm, where a network has it, is the exception:
    it sees one mini-batch, on several GPUs those of all processes at the time.
    """

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
        self.sums = SharedSums()
        self.loss = segmentation_loss(self.sums, each_patch=training.dice == "patch")
        on_cuda = device.type == "cuda"
        self.amp = training.amp and (on_cuda or (device.type == "cpu" and training.amp_cpu))
        self.half = torch.bfloat16 if not on_cuda or torch.cuda.is_bf16_supported() else torch.float16
        if self.amp and not on_cuda and not has_fast_bfloat16():
            raise TrainingError(
                "training.amp_cpu", "this processor has no bfloat16 instructions", "set it to false"
            )
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.amp and self.half is torch.float16)
        self.alone = InTraining(fit_network(network, training, device))
        if training.compile:
            self.alone.compile()
        self.forward: nn.Module = self.alone
        if process_count() > 1:
            self.forward = DistributedDataParallel(self.alone)

    def __call__(self, batches: Sequence[Batch], epoch: int, number: int) -> float:
        """Take a step and give its loss, the mean over all mini-batches of all processes.

        Raises:
            TrainingError: The loss or its gradient is not finite; the weights are as they were before.
        """
        self._count_sums(batches)
        self.optimizer.zero_grad(set_to_none=True)
        value = torch.zeros((), device=self.device)
        for place, batch in enumerate(batches, start=1):
            with self._quiet_until(place == len(batches)), self._draws_of(batch):
                loss = self._loss(self.forward, batch) / len(batches)
                self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            value += loss.detach() / process_count()
        add_up([value])
        self._check(value.item(), "loss", epoch, number)
        self.scaler.unscale_(self.optimizer)
        length = clip_grad_norm_(self.network.parameters(), self.training.gradient_norm)
        if not self.scaler.is_enabled():  # which leaves out such a step by itself, and scales down
            self._check(length.item(), "gradient", epoch, number)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return value.item()

    def _loss(self, forward: nn.Module, batch: Batch) -> Tensor:
        tensors = tuple(tensor.to(self.device, non_blocking=True) for tensor in batch.patches)
        with torch.autocast(self.device.type, dtype=self.half, enabled=self.amp):
            return self.loss(forward, tensors)

    def _count_sums(self, batches: Sequence[Batch]) -> None:
        """Go over several mini-batches without gradients first: Dice of the whole batch needs sums of all."""
        if len(batches) == 1 or self.training.dice == "patch":
            self.sums.share_at_once()
            return
        buffers = [(buffer, buffer.clone()) for buffer in self.network.buffers()]
        with torch.no_grad(), self.sums.counting(len(batches)):
            for batch in batches:
                with self._draws_of(batch):
                    self._loss(self.alone, batch)
        for buffer, before in buffers:
            buffer.copy_(before)

    @contextmanager
    def _draws_of(self, batch: Batch) -> Iterator[None]:
        samples = [(self.seed, *draw) for draw in batch.draws]
        devices = [self.device] if self.device.type == "cuda" else []
        with sample_seeds(self.network, samples), torch.random.fork_rng(devices):
            torch.manual_seed(seed_of(*samples[0]))  # a compiled network draws from torch's own generator
            yield

    def _quiet_until(self, is_last: bool) -> AbstractContextManager[None]:
        """Processes add up their gradients once a step, with the last mini-batch."""
        if is_last or not isinstance(self.forward, DistributedDataParallel):
            return nullcontext()
        return self.forward.no_sync()

    def _check(self, value: float, what: str, epoch: int, number: int) -> None:
        if not math.isfinite(value):
            cure = "lower training.learning_rate and begin anew with --existing overwrite"
            where = f"epoch {epoch + 1}, step {number + 1}"
            raise said_once(TrainingError(where, f"the {what} is not finite", cure))


def make_optimizer(network: nn.Module, training: TrainingSettings) -> torch.optim.Optimizer:
    """AdamW or SGD over all weights."""
    rate, decay = training.learning_rate, training.weight_decay
    if training.optimizer == "sgd":
        return torch.optim.SGD(network.parameters(), rate, momentum=training.momentum, weight_decay=decay)
    return torch.optim.AdamW(network.parameters(), rate, weight_decay=decay)


def learning_rate(training: TrainingSettings, epoch: int) -> float:
    """The rate of an epoch: polynomial decay towards the last one."""
    return training.learning_rate * float((1 - epoch / training.epochs) ** training.decay_power)
