"""Controls: what a criterion must beat before it has shown anything (Frankle et al. 2021).

`shuffle` and `random-layerwise` have the same law and are independent draws: how far the two lie apart is
what the draw alone does, and a criterion that lies no further from them has shown nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from radiogen.errors import PruningError
from radiogen.pruning.settings import WeightMasks
from radiogen.pruning.weight_masks import match_masks

ControlName = Literal["none", "shuffle", "reinit", "random-layerwise"]


def shuffle_within_layers(masks: WeightMasks, rng: torch.Generator) -> WeightMasks:
    """Keep as many weights of each layer, others of them: the same booleans in a random order.

    Args:
        masks: Weight masks.
        rng: Generator on the CPU.
    """
    return {
        name: mask.reshape(-1)[torch.randperm(mask.numel(), generator=rng).to(mask.device)].view_as(mask)
        for name, mask in masks.items()
    }


def redraw_weights(model: nn.Module, masks: WeightMasks, rng: torch.Generator) -> None:
    """Draw the masked layers anew, in place: each weight from a random place of its dense layer.

    The distribution of each layer's weights stays that of its initialisation or warm-up; only the tie
    between weights and weight masks is cut.

    Args:
        model: The network at its dense start, before the masks are applied.
        masks: Name the layers.
        rng: Generator on the CPU.

    Raises:
        PruningError: The masks are of another architecture; the layer is named.
    """
    with torch.no_grad():
        for weight, _ in match_masks(model, masks).values():
            # A permutation, not a new initialisation: the values stay those of the layer, whoever drew them.
            order = torch.randperm(weight.numel(), generator=rng).to(weight.device)
            weight.copy_(weight.reshape(-1)[order].view_as(weight))


def random_at_same_densities(masks: WeightMasks, rng: torch.Generator) -> WeightMasks:
    """Keep as many weights of each layer as the masks do, those with the highest of random scores.

    The same law as `shuffle_within_layers`, in another draw.

    Args:
        masks: Weight masks; only how many each layer keeps is read.
        rng: Generator on the CPU.
    """
    chosen = {}
    for name, mask in masks.items():
        scores = torch.rand(mask.numel(), generator=rng)
        kept = torch.zeros(mask.numel(), dtype=torch.bool)
        kept[scores.topk(int(mask.sum())).indices] = True
        chosen[name] = kept.view_as(mask).to(mask.device)
    return chosen


def _unchanged(_model: nn.Module, masks: WeightMasks, _rng: torch.Generator) -> WeightMasks:
    return masks


def _shuffled(_model: nn.Module, masks: WeightMasks, rng: torch.Generator) -> WeightMasks:
    return shuffle_within_layers(masks, rng)


def _random_layerwise(_model: nn.Module, masks: WeightMasks, rng: torch.Generator) -> WeightMasks:
    return random_at_same_densities(masks, rng)


def _with_redrawn_weights(model: nn.Module, masks: WeightMasks, rng: torch.Generator) -> WeightMasks:
    redraw_weights(model, masks, rng)
    return masks


CONTROLS: dict[ControlName, Callable[[nn.Module, WeightMasks, torch.Generator], WeightMasks]] = {
    "none": _unchanged,
    "shuffle": _shuffled,
    "reinit": _with_redrawn_weights,
    "random-layerwise": _random_layerwise,
}
"""By name: network at its dense start, weight masks and rng in, the control's weight masks out."""


@dataclass(frozen=True)
class MaskOverlap:
    """Weights that two masks keep in common, of one layer or of all."""

    name: str
    kept_first: int
    kept_second: int
    kept_both: int
    expected_both: float  # by chance, if both kept as many of each layer at random

    @property
    def shared(self) -> float:
        """Share of the smaller of the two that both keep."""
        return self.kept_both / max(1, min(self.kept_first, self.kept_second))

    @property
    def jaccard(self) -> float:
        """Share of what either keeps that both keep."""
        return self.kept_both / max(1, self.kept_first + self.kept_second - self.kept_both)


def overlap(first: WeightMasks, second: WeightMasks) -> MaskOverlap:
    """Count what two weight masks of one network keep in common, over all layers.

    Raises:
        PruningError: They are of different architectures; the layer is named.
    """
    rows = overlap_table(first, second)
    return MaskOverlap(
        "all",
        sum(row.kept_first for row in rows),
        sum(row.kept_second for row in rows),
        sum(row.kept_both for row in rows),
        sum(row.expected_both for row in rows),
    )


def overlap_table(first: WeightMasks, second: WeightMasks) -> list[MaskOverlap]:
    """Count what two weight masks of one network keep in common, layer by layer.

    Raises:
        PruningError: They are of different architectures; the layer is named.
    """
    for name in first.keys() ^ second.keys():
        raise PruningError(name, "is in one of the weight masks only", "compare masks of one network")
    rows = []
    for name, mask in first.items():
        other = second[name].to(mask.device)
        if mask.shape != other.shape:
            raise PruningError(
                name,
                f"has masks {tuple(mask.shape)} and {tuple(other.shape)}",
                "compare masks of one network",
            )
        kept_first = int(mask.sum())
        kept_second = int(other.sum())
        expected = kept_first * kept_second / mask.numel()
        rows.append(MaskOverlap(name, kept_first, kept_second, int((mask & other).sum()), expected))
    return rows
