"""The loss of the segmentation: Dice and cross-entropy together, at each trained resolution."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from radiogen.networks.raseg import Supervised

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
        found = Supervised(found, (), None)
    every = (found.logits, *found.sides)
    weights = [SIDE_WEIGHT**level for level in range(len(every))]
    losses = [loss(_whole_precision(logits), _at_size_of(logits, target)) for logits in every]
    value = sum(w * one for w, one in zip(weights, losses, strict=True)) / sum(weights)
    if found.where is not None:
        holds_lesion = functional.adaptive_max_pool3d(target, found.where.shape[2:])
        value = value + WHERE_WEIGHT * functional.binary_cross_entropy_with_logits(
            _whole_precision(found.where), holds_lesion
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
