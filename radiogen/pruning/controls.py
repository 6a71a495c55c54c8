"""Controls: what a criterion must beat before it has shown anything (Frankle et al. 2021)."""

import torch
from torch import nn

from radiogen.pruning.signatures import WeightMasks
from radiogen.pruning.weight_masks import matched


def shuffle_within_layers(masks: WeightMasks, generator: torch.Generator) -> WeightMasks:
    """Keep as many weights of each layer, others of them: the same booleans in a random order.

    Args:
        masks: Weight masks.
        generator: Chance, on the CPU.
    """
    return {
        name: mask.reshape(-1)[torch.randperm(mask.numel(), generator=generator).to(mask.device)].view_as(
            mask
        )
        for name, mask in masks.items()
    }


def redraw_weights(model: nn.Module, masks: WeightMasks, generator: torch.Generator) -> None:
    """Draw the masked layers anew, in place: each weight from a random place of its dense layer.

    The distribution of each layer's weights stays as its initialisation made it, the tie between weights and
    weight masks is cut.

    Args:
        model: The network at its dense start, before the masks are applied.
        masks: Name the layers.
        generator: Chance, on the CPU.

    Raises:
        PruningError: The masks are of another architecture; the layer is named.
    """
    with torch.no_grad():
        for weight, _ in matched(model, masks).values():
            order = torch.randperm(weight.numel(), generator=generator).to(weight.device)
            weight.copy_(weight.reshape(-1)[order].view_as(weight))
