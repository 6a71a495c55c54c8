"""Controls: what a criterion must beat before it has shown anything (Frankle et al. 2021)."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import nn

from radiogen.pruning.signatures import WeightMasks
from radiogen.pruning.weight_masks import matched

ControlName = Literal["none", "shuffle", "reinit", "random-layerwise"]


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


def random_at_same_densities(masks: WeightMasks, generator: torch.Generator) -> WeightMasks:
    """Keep as many weights of each layer as the masks do, those with the highest of random scores.

    The law is that of `shuffle_within_layers`, the draw another: how far the two lie apart is what chance
    alone does.

    Args:
        masks: Weight masks; only how many each layer keeps is read.
        generator: Chance, on the CPU.
    """
    chosen = {}
    for name, mask in masks.items():
        scores = torch.rand(mask.numel(), generator=generator)
        kept = torch.zeros(mask.numel(), dtype=torch.bool)
        kept[scores.topk(int(mask.sum())).indices] = True
        chosen[name] = kept.view_as(mask).to(mask.device)
    return chosen


def _redrawn(model: nn.Module, masks: WeightMasks, generator: torch.Generator) -> WeightMasks:
    redraw_weights(model, masks, generator)
    return masks


CONTROLS: dict[ControlName, Callable[[nn.Module, WeightMasks, torch.Generator], WeightMasks]] = {
    "none": lambda _model, masks, _generator: masks,
    "shuffle": lambda _model, masks, generator: shuffle_within_layers(masks, generator),
    "reinit": _redrawn,
    "random-layerwise": lambda _model, masks, generator: random_at_same_densities(masks, generator),
}
"""By name: network at its dense start, weight masks and chance in, the control's weight masks out."""
