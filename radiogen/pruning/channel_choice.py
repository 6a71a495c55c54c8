"""Choose the channels to keep: the highest scores that a target allows, in widths that hardware likes."""

from collections.abc import Callable, Mapping
from typing import Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from radiogen.config import Settings
from radiogen.errors import PruningError
from radiogen.pruning.channel_groups import Channels
from radiogen.pruning.settings import Scope

TargetName = Literal["keep", "flops", "memory"]


class ChannelSettings(Settings):
    """How small the network becomes, and in which steps."""

    target: TargetName = "keep"
    """What the share is of: the channels, the multiplications, or the memory of activations in training."""
    share: float = Field(0.5, gt=0, le=1)
    step: PositiveInt = 8
    """Widths are multiples of it."""
    floor: PositiveInt = 8
    """No layer has fewer channels."""
    per_flop: bool = False
    """Scores are divided by the multiplications that leave with the channel."""


def choose_channels(
    channels: Channels,
    scores: Mapping[str, Tensor],
    share_of: Callable[[Mapping[str, int]], float],
    settings: ChannelSettings,
    scope: Scope = "global",
) -> dict[str, Tensor]:
    """Keep as many of the highest scores as the target allows.

    Groups of one width keep equally many channels: their k-th best ones compete as one, with the mean of
    their scores. Each width is rounded up to a multiple of the step.

    Args:
        channels: The network's channels.
        scores: One number a channel by group name; higher means keep.
        share_of: What a network of other widths takes of what the dense one takes; more channels take more.
        settings: Target, step and floor.
        scope: `global` compares all channels with each other; `layer` narrows all layers by the same share.

    Returns:
        Booleans over the channels of each group.

    Raises:
        PruningError: Even the narrowest network takes more than the target.
    """
    ranks = _ranks(channels, scores, scope)

    def widths(count: int) -> dict[str, int]:
        return {
            name: _rounded(int((rank < count).sum()), len(rank), settings) for name, rank in ranks.items()
        }

    fits, too_many = 0, sum(len(rank) for rank in ranks.values()) + 1
    smallest = share_of(widths(0))
    if smallest > settings.share:
        raise PruningError(
            f"--{settings.target} {settings.share:g}",
            f"cannot be reached: {settings.floor} channels a layer still take {smallest:.3f}",
            "give a larger share",
        )
    while too_many - fits > 1:
        middle = (fits + too_many) // 2
        if share_of(widths(middle)) <= settings.share:
            fits = middle
        else:
            too_many = middle
    chosen = widths(fits)
    return {group.name: _highest(scores[group.name], chosen[group.width_name]) for group in channels.groups}


def _ranks(channels: Channels, scores: Mapping[str, Tensor], scope: Scope) -> dict[str, Tensor]:
    """The place of the best, second best, ... channel of each width among all of them, from 0."""
    curves = {
        name: torch.stack(
            [
                scores[group.name].double().cpu().sort(descending=True).values
                for group in channels.groups
                if group.width_name == name
            ]
        ).mean(0)
        for name in channels.widths
    }
    if scope == "layer":
        curves = {name: -torch.arange(len(curve)) / len(curve) for name, curve in curves.items()}
    order = torch.cat(list(curves.values())).argsort(descending=True, stable=True)
    places = torch.empty_like(order)
    places[order] = torch.arange(len(order))
    parts = torch.split(places, [len(curve) for curve in curves.values()])
    return dict(zip(curves, parts, strict=True))


def _rounded(count: int, size: int, settings: ChannelSettings) -> int:
    up = -(-max(count, settings.floor) // settings.step) * settings.step
    return min(size, up)


def _highest(scores: Tensor, count: int) -> Tensor:
    kept = torch.zeros(len(scores), dtype=torch.bool)
    kept[scores.cpu().argsort(descending=True, stable=True)[:count]] = True
    return kept
