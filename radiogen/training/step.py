"""One step of a training: the loss of its mini-batches, their gradients, and the update of the weights."""

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
from radiogen.runtime import has_fast_bfloat16, is_out_of_memory
from radiogen.training.batches import MiniBatch
from radiogen.training.patches import UNKNOWN
from radiogen.training.settings import TrainingSettings

SegmentationBatch = tuple[Tensor, ...]  # image (B, C, D, H, W), prior (B, 1, D, H, W), target (B, 1, D, H, W)
LogitsLoss = Callable[[Tensor, Tensor], Tensor]  # logits and target, both (B, 1, D, H, W)

SIDE_WEIGHT = 0.5  # of the logits at half size; those at a quarter weigh the square of it (Lee et al. 2015)
PRIOR_WEIGHT = 0.25  # of the predicted prior
SMOOTH = 1e-5  # added above and below in Dice, as MONAI does
PEER_LOST = ("closed by peer", "reset by peer", "nccl", "gloo", "broken pipe")
LESS_MEMORY = (
    "halve training.batch_size and double training.accumulate, which gives the same result; "
    "or training.checkpoint_activations=true; or a smaller preprocessing.size"
)


def batch_dice_ce(logits: Tensor, target: Tensor) -> Tensor:
    """Return 1 - Dice over the whole mini-batch, plus the mean cross-entropy.

    The value of MONAI's `DiceCELoss(sigmoid=True, batch=True)`, written out: pruning scores with it, its
    weight masks stay the same to the byte, and `radiogen prune` does without the 3 s of importing MONAI.
    """
    probability = torch.sigmoid(logits)
    known = known_voxels(target)
    if known is not None:
        probability, target = probability * known, target * known
    overlap = (probability * target).sum()
    dice = (2 * overlap + SMOOTH) / (probability.sum() + target.sum() + SMOOTH)
    return 1 - dice + functional.binary_cross_entropy_with_logits(logits, target, weight=known)


def patch_dice_ce(logits: Tensor, target: Tensor) -> Tensor:
    """Return the mean over patches of 1 - Dice, 0 for a patch without a lesion, plus the mean cross-entropy.

    A small lesion so counts as much as a large one beside it, and a patch without a lesion is no miss.
    Voxels beyond a crop, whose target is `UNKNOWN`, count for nothing. As a mean over patches it is the
    same for a batch that is cut in mini-batches or spread over processes.
    """
    from monai.losses import DiceLoss  # takes 3 s, and only a training needs it

    holds_lesion = target.amax(dim=(1, 2, 3, 4), keepdim=True) > 0
    known = known_voxels(target)
    if known is None:
        dice_loss = DiceLoss(sigmoid=True, reduction="none")(logits, target)  # (B, 1, 1, 1, 1)
        dice_term = torch.where(holds_lesion, dice_loss, 0.0).mean()
        return dice_term + functional.binary_cross_entropy_with_logits(logits, target)
    target = target * known
    dice_loss = DiceLoss(reduction="none")(torch.sigmoid(logits) * known, target)
    dice_term = torch.where(holds_lesion, dice_loss, 0.0).mean()
    entropy = functional.binary_cross_entropy_with_logits(logits, target, reduction="none") * known
    per_patch = entropy.sum(dim=(1, 2, 3, 4)) / known.sum(dim=(1, 2, 3, 4)).clamp(min=1)
    return dice_term + per_patch.mean()


def known_voxels(target: Tensor) -> Tensor | None:
    """Return 1 where a target is known and 0 where it is `UNKNOWN`; None where all of it is known."""
    known = target >= 0
    return None if bool(known.all()) else known.to(target.dtype)


DICE_LOSSES: dict[str, LogitsLoss] = {"batch": batch_dice_ce, "patch": patch_dice_ce}


def segmentation_loss(dice: str = "batch") -> Callable[[nn.Module, SegmentationBatch], Tensor]:
    """Return the Dice and cross-entropy loss of a batch (image, prior, target) under a network.

    The logits of coarser decoders are compared with the share of lesion in their voxels, all weights adding
    up to 1; the predicted prior with whether its voxel holds any lesion, by cross-entropy. A network that
    returns its logits alone, as RA-Seg does while it is scored for pruning, is measured by these.
    `dice` says what Dice is taken over: `batch` or `patch`.
    """
    return partial(_supervised_loss, DICE_LOSSES[dice])


def _supervised_loss(loss: LogitsLoss, network: nn.Module, batch: SegmentationBatch) -> Tensor:
    image, prior, target = batch
    output = network(image, prior)
    if isinstance(output, Tensor):
        output = SupervisedLogits(output, (), None)
    levels = (output.logits, *output.sides)
    weights = [SIDE_WEIGHT**level for level in range(len(levels))]
    losses = [loss(_in_float32(logits), _at_size_of(logits, target)) for logits in levels]
    value = sum(w * one for w, one in zip(weights, losses, strict=True)) / sum(weights)
    if output.prior is not None:
        holds_lesion = functional.adaptive_max_pool3d(target, output.prior.shape[2:])
        value = value + PRIOR_WEIGHT * functional.binary_cross_entropy_with_logits(
            _in_float32(output.prior), holds_lesion.clamp(min=0), weight=known_voxels(holds_lesion)
        )
    return torch.as_tensor(value)


def _at_size_of(logits: Tensor, target: Tensor) -> Tensor:
    if logits.shape == target.shape:
        return target
    known = known_voxels(target)
    size = logits.shape[2:]
    if known is None:
        return functional.interpolate(target, size, mode="area")
    share = functional.interpolate(known, size, mode="area")
    lesion = functional.interpolate(target * known, size, mode="area") / share.clamp(min=0.5)
    return torch.where(share >= 0.5, lesion, UNKNOWN)


def _in_float32(logits: Tensor) -> Tensor:
    """Return half-precision logits in float32; sums over a volume need it."""
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits


def prepare_network(network: RASeg, training: TrainingSettings, device: torch.device) -> RASeg:
    """Set a network up for training, in place; names and values of its weights stay."""
    freeze_idle_biases(network)
    if device.type == "cpu":
        fast_cpu(network)
    if training.channels_last and device.type == "cuda":
        volumes_channels_last(network)
    if world_size() > 1 and device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
    if training.checkpoint_activations:
        checkpoint_activations(network)
    return network


def freeze_idle_biases(network: nn.Module) -> None:
    """Freeze the biases of convolutions whose output is normalised channel by channel at once.

    The norm removes them again, so that their gradient is nothing but rounding, which Adam would turn into
    whole steps: other ones for every order of summation.
    """
    for block in network.modules():
        if isinstance(block, Attention | ConvBlock | UpBlock) and block.conv.bias is not None:
            block.conv.bias.requires_grad_(False)


def checkpoint_activations(network: RASeg) -> None:
    """Keep only the inputs of the large parts of RA-Seg; backward computes the rest again, part by part.

    The attentions are left as they are: batch norm in them would count every mini-batch twice.
    """
    parts = [network.stem, *network.encoders, network.recurrence, network.joint]
    parts += [network.decoder4, network.decoder3, network.decoder2, network.decoder1]
    for part in parts:
        if part is not None:
            part.forward = partial(checkpoint, part.forward, use_reentrant=False)


class TrainingStep:
    """One step of the optimizer over the mini-batches of this process and of all others.

    The step is that of one large batch of all of them: loss and gradients are means over patches, and what
    dropout draws depends on (seed, epoch, draw) alone. Batch norm, where a network has it, is the exception:
    it sees one mini-batch, on several GPUs those of all processes at the time; so is `dice: batch`.
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
        self.loss = segmentation_loss(training.dice)
        on_cuda = device.type == "cuda"
        self.amp = training.amp and (on_cuda or (device.type == "cpu" and training.amp_cpu))
        # float16 overflows where bfloat16 does not, and so needs a scaled loss.
        self.half = torch.bfloat16 if not on_cuda or torch.cuda.is_bf16_supported() else torch.float16
        if self.amp and not on_cuda and not has_fast_bfloat16():
            raise TrainingError(
                "training.amp_cpu", "this processor has no bfloat16 instructions", "set it to false"
            )
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.amp and self.half is torch.float16)
        in_training = SupervisedRASeg(prepare_network(network, training, device))
        if training.compile:
            in_training.compile()
        self.forward: nn.Module = in_training
        if world_size() > 1:
            self.forward = DistributedDataParallel(in_training)

    def __call__(self, batches: Sequence[MiniBatch], epoch: int, number: int) -> float:
        """Take a step and return its loss, the mean over all mini-batches of all processes.

        Raises:
            TrainingError: The loss or its gradient is not finite; the weights are as they were before.
        """
        self.optimizer.zero_grad(set_to_none=True)
        value = torch.zeros((), device=self.device)
        for place, batch in enumerate(batches, start=1):
            with self._no_sync_until(place == len(batches)), self._seeded(batch):
                loss = self._loss(batch) / len(batches)
                self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            value += loss.detach() / world_size()
        all_reduce([value])
        self._check(value.item(), "loss", epoch, number)
        self.scaler.unscale_(self.optimizer)
        norm = clip_grad_norm_(self.network.parameters(), self.training.gradient_norm)
        # The scaler skips a step with such a gradient by itself, and lowers the scale.
        if not self.scaler.is_enabled():
            self._check(norm.item(), "gradient", epoch, number)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return value.item()

    def _loss(self, batch: MiniBatch) -> Tensor:
        tensors = tuple(tensor.to(self.device, non_blocking=True) for tensor in batch.patches)
        with torch.autocast(self.device.type, dtype=self.half, enabled=self.amp):
            return self.loss(self.forward, tensors)

    @contextmanager
    def _seeded(self, batch: MiniBatch) -> Iterator[None]:
        """Let dropout draw from the draws of a mini-batch alone, so that a step can be repeated or cut."""
        samples = [(self.seed, *draw) for draw in batch.draws]
        devices = [self.device] if self.device.type == "cuda" else []
        with sample_seeds(self.network, samples), torch.random.fork_rng(devices):
            # A compiled network draws from torch's own generator: such a step can be repeated, but not cut.
            torch.manual_seed(seed_of(*samples[0]))
            yield

    def _no_sync_until(self, is_last: bool) -> AbstractContextManager[None]:
        """Let the processes all-reduce their gradients once a step, with the last mini-batch."""
        if is_last or not isinstance(self.forward, DistributedDataParallel):
            return nullcontext()
        return self.forward.no_sync()

    def _check(self, value: float, name: str, epoch: int, number: int) -> None:
        if not math.isfinite(value):
            hint = "lower training.learning_rate and begin anew with --existing overwrite"
            place = f"epoch {epoch + 1}, step {number + 1}"
            raise as_rank_zero_reports(TrainingError(place, f"the {name} is not finite", hint))


def make_optimizer(network: nn.Module, training: TrainingSettings) -> torch.optim.Optimizer:
    """Return AdamW or SGD over all weights."""
    rate, decay = training.learning_rate, training.weight_decay
    if training.optimizer == "sgd":
        return torch.optim.SGD(network.parameters(), rate, momentum=training.momentum, weight_decay=decay)
    return torch.optim.AdamW(network.parameters(), rate, weight_decay=decay)


def learning_rate(training: TrainingSettings, epoch: int) -> float:
    """Return the learning rate of an epoch: polynomial decay towards the last one."""
    return training.learning_rate * float((1 - epoch / training.epochs) ** training.decay_power)


@contextmanager
def training_errors(place: str) -> Iterator[None]:
    """Turn what the machine does to a training at a place, such as a device, into one line with a hint.

    Raises:
        TrainingError: Memory is not enough, or another process of this training is lost.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            raise TrainingError(place, "has not enough memory", LESS_MEMORY) from error
        if any(word in str(error).lower() for word in PEER_LOST):
            raise TrainingError(
                place,
                "stops, since another process of this training has ended",
                "see its own message; if it has none, the system killed it, mostly because memory ran out",
            ) from error
        raise
