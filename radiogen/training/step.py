"""One step of a training: forward, backward, and what the optimizer makes of it."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grad_norm_
from torch.utils.checkpoint import checkpoint

from radiogen.distributed import all_reduce, as_rank_zero_reports, world_size
from radiogen.errors import TrainingError
from radiogen.networks.blocks import Attention, ConvBlock, UpBlock, sample_seeds, seed_of
from radiogen.networks.kernels import fast_cpu, volumes_channels_last
from radiogen.networks.raseg import RASeg, SupervisedLogits, SupervisedRASeg
from radiogen.runtime import has_fast_bfloat16
from radiogen.training.plan import Batch
from radiogen.training.settings import TrainingSettings
from radiogen.training.shared_sums import SharedSums

SegmentationBatch = tuple[Tensor, ...]  # image (B, C, D, H, W), prior (B, 1, D, H, W), target (B, 1, D, H, W)
Share = Callable[[Tensor], Tensor]  # from the sums over a mini-batch to those that Dice is made of

SIDE_WEIGHT = 0.5  # of the logits at half size; those at a quarter weigh the square of it (Lee et al. 2015)
WHERE_WEIGHT = 0.25  # of the predicted prior
SMOOTH = 1e-5  # added above and below in Dice, as MONAI does


def own_sums(sums: Tensor) -> Tensor:
    """Dice of the mini-batch by itself."""
    return sums


def segmentation_loss(
    share: Share = own_sums, each_patch: bool = False
) -> Callable[[nn.Module, SegmentationBatch], Tensor]:
    """The mean Dice and cross-entropy loss of a batch (image, prior, target) under a network.

    Dice is taken over the whole batch, so that a patch without a lesion does not count as a miss, or patch by
    patch over those that hold one, so that a small lesion counts as much as a large one beside it. The logits
    of coarser decoders are compared with the share of lesion in their voxels, all weights adding up to 1; the
    predicted prior with whether its voxel holds any lesion, by cross-entropy. A network that answers with its
    logits alone (pruning asks RA-Seg so) is measured by these.

    Args:
        share: Gives the sums of the whole batch for those of this part of it, where a batch is cut in parts.
        each_patch: Dice patch by patch.
    """
    if each_patch:
        return partial(_supervised_loss, dice_of_patches_ce)
    return partial(_supervised_loss, partial(dice_ce, share=share))


def _supervised_loss(
    loss: Callable[[Tensor, Tensor], Tensor], network: nn.Module, batch: SegmentationBatch
) -> Tensor:
    image, prior, target = batch
    found = network(image, prior)
    if isinstance(found, Tensor):
        found = SupervisedLogits(found, (), None)
    every = (found.logits, *found.sides)
    weights = [SIDE_WEIGHT**level for level in range(len(every))]
    losses = [loss(_whole_precision(logits), _at_size_of(logits, target)) for logits in every]
    value = sum(w * one for w, one in zip(weights, losses, strict=True)) / sum(weights)
    if found.prior is not None:
        holds_lesion = functional.adaptive_max_pool3d(target, found.prior.shape[2:])
        value = value + WHERE_WEIGHT * functional.binary_cross_entropy_with_logits(
            _whole_precision(found.prior), holds_lesion
        )
    return torch.as_tensor(value)


def dice_ce(logits: Tensor, target: Tensor, share: Share = own_sums) -> Tensor:
    """1 - Dice of the probabilities, plus the mean cross-entropy: MONAI's DiceCELoss(sigmoid, batch).

    Its own lets nobody at the three sums that Dice is made of, which parts of a batch have to share.
    """
    probability = torch.sigmoid(logits)
    overlap, found = (probability * target).sum(), probability.sum()
    sums = share(torch.stack([overlap, found + target.sum()]))
    dice = (2 * sums[0] + SMOOTH) / (sums[1] + SMOOTH)
    return 1 - dice + functional.binary_cross_entropy_with_logits(logits, target)


def dice_of_patches_ce(logits: Tensor, target: Tensor) -> Tensor:
    """1 - Dice of each patch that holds a lesion, 0 for the others, plus the mean cross-entropy; the mean."""
    probability, inside = torch.sigmoid(logits), (1, 2, 3, 4)
    lesion = target.sum(dim=inside)
    overlap = (probability * target).sum(dim=inside)
    dice = (2 * overlap + SMOOTH) / (probability.sum(dim=inside) + lesion + SMOOTH)
    missed = torch.where(lesion > 0, 1 - dice, torch.zeros_like(dice)).mean()
    return missed + functional.binary_cross_entropy_with_logits(logits, target)


def _at_size_of(logits: Tensor, target: Tensor) -> Tensor:
    return (
        target
        if logits.shape == target.shape
        else functional.interpolate(target, logits.shape[2:], mode="area")
    )


def _whole_precision(logits: Tensor) -> Tensor:
    """Half-precision logits in float32; sums over a volume need it."""
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits


def fit_network(network: RASeg, training: TrainingSettings, device: torch.device) -> RASeg:
    """Make a network ready, in place; names and values of its weights stay."""
    rest_idle_biases(network)
    if device.type == "cpu":
        fast_cpu(network)
    if training.channels_last and device.type == "cuda":
        volumes_channels_last(network)
    if world_size() > 1 and device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
    if training.checkpoint_activations:
        checkpoint_activations(network)
    return network


def rest_idle_biases(network: nn.Module) -> None:
    """Leave alone the bias of a convolution whose output is normalised, channel by channel, at once.

    The norm takes it off again, so that its gradient is nothing but rounding, which Adam would blow up to
    whole steps: different ones for every order of adding up.
    """
    for block in network.modules():
        if isinstance(block, Attention | ConvBlock | UpBlock) and block.conv.bias is not None:
            block.conv.bias.requires_grad_(False)


def checkpoint_activations(network: RASeg) -> None:
    """Keep only what the large parts of RA-Seg are given; backward computes them once more, one at a time.

    The attentions are left as they are: batch norm in them would count every mini-batch twice.
    """
    parts = [network.stem, *network.encoders, network.recurrence, network.joint]
    parts += [network.decoder4, network.decoder3, network.decoder2, network.decoder1]
    for part in parts:
        if part is not None:
            kept_small = partial(checkpoint, part.forward, use_reentrant=False)
            part.forward = kept_small


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
        self.alone = SupervisedRASeg(fit_network(network, training, device))
        if training.compile:
            self.alone.compile()
        self.forward: nn.Module = self.alone
        if world_size() > 1:
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
            value += loss.detach() / world_size()
        all_reduce([value])
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
            raise as_rank_zero_reports(TrainingError(where, f"the {what} is not finite", cure))


def make_optimizer(network: nn.Module, training: TrainingSettings) -> torch.optim.Optimizer:
    """AdamW or SGD over all weights."""
    rate, decay = training.learning_rate, training.weight_decay
    if training.optimizer == "sgd":
        return torch.optim.SGD(network.parameters(), rate, momentum=training.momentum, weight_decay=decay)
    return torch.optim.AdamW(network.parameters(), rate, weight_decay=decay)


def learning_rate(training: TrainingSettings, epoch: int) -> float:
    """The rate of an epoch: polynomial decay towards the last one."""
    return training.learning_rate * float((1 - epoch / training.epochs) ** training.decay_power)
