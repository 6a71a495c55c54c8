"""The loss of the segmentation: Dice and cross-entropy together (MONAI)."""

from collections.abc import Callable
from functools import partial

from monai.losses import DiceCELoss
from torch import Tensor, nn

SegmentationBatch = tuple[Tensor, ...]  # image (B, C, D, H, W), prior (B, 1, D, H, W), target (B, 1, D, H, W)


def segmentation_loss() -> Callable[[nn.Module, SegmentationBatch], Tensor]:
    """The mean Dice and cross-entropy loss of a batch (image, prior, target) under a network.

    Dice is taken over the whole batch, so that a patch without a lesion does not count as a miss.
    """
    return partial(_dice_ce_loss, DiceCELoss(sigmoid=True, batch=True))


def _dice_ce_loss(dice_ce: DiceCELoss, network: nn.Module, batch: SegmentationBatch) -> Tensor:
    image, prior, target = batch
    value: Tensor = dice_ce(network(image, prior), target)
    return value
