"""Choose the channels to keep: the highest scores that a target allows, in widths of whole steps."""

import math
from collections.abc import Callable, Mapping
from typing import Literal, Self

import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor

from radiogen.config import Settings
from radiogen.errors import PruningError
from radiogen.pruning.channel_groups import Channels, Widths
from radiogen.pruning.settings import Scope

TargetName = Literal["keep", "flops", "memory"]
ChannelControl = Literal["none", "shuffle", "reinit", "uniform-width"]
ShareOf = Callable[[Widths], float]


class ChannelSettings(Settings):
    """How small the network becomes, and in which steps."""

    target: TargetName = "keep"
    """What the share is of: the channels, the multiplications, or the memory of activations in training."""
    share: float = Field(0.5, ge=0, le=1)
    scope: Scope = "layer"
    """`layer` narrows all layers alike and keeps the best channels of each; with `global` all channels
    compete, and the scores decide the widths too."""
    floor: float = Field(0.5, ge=0, le=1)
    """With `global`, each layer keeps at least this share of what it would keep with `layer`."""
    step: PositiveInt = 8
    """Widths are multiples of it, and at least one step."""
    per_flop: bool = False
    """With `global`, scores are divided by the multiplications that leave with the channel."""
    control: ChannelControl = "none"
    """Other channels of each layer, other values, or the plain narrow network: random channels of layers that
    are narrowed alike. What does not beat them has shown nothing."""

    @model_validator(mode="after")
    def _competing(self) -> Self:
        if self.per_flop and self.scope == "layer":
            raise ValueError("per_flop needs scope global; with layer no layers compete")
        return self


def choose_channels(
    channels: Channels, scores: Mapping[str, Tensor], share_of: ShareOf, settings: ChannelSettings
) -> dict[str, Tensor]:
    """Keep as many of the highest scores as the target allows.

    Groups of one width keep equally many channels: their k-th best ones compete as one, with the mean of
    their scores. Each width is rounded to a whole step, the nearest one.

    Args:
        channels: The network's channels.
        scores: One number a channel by group name; higher means keep.
        share_of: What a network of other widths takes of what the dense one takes; wider ones take more.
        settings: Target, scope, floor and step.

    Returns:
        Booleans over the channels of each group.

    Raises:
        PruningError: Even the narrowest network takes more than the target.
    """
    step, sizes = settings.step, channels.widths
    alike = {name: torch.arange(size) / size for name, size in sizes.items()}
    widths = _widest(_places(alike), dict.fromkeys(sizes, step), share_of, settings)
    if settings.scope == "global":
        floors = {name: step * math.ceil(settings.floor * width / step) for name, width in widths.items()}
        curves = {name: -_sorted_scores(channels, scores, name) for name in sizes}
        widths = _widest(_places(curves), floors, share_of, settings)
    return {group.name: _highest(scores[group.name], widths[group.width_name]) for group in channels.groups}


def _widest(
    places: Mapping[str, Tensor], floors: Widths, share_of: ShareOf, settings: ChannelSettings
) -> dict[str, int]:
    """The widths of the most channels, counted from the first place on, that stay within the target."""

    def widths(count: int) -> dict[str, int]:
        counts = {name: int((place < count).sum()) for name, place in places.items()}
        return {
            name: min(len(places[name]), max(floors[name], _whole_steps(n, len(places[name]), settings.step)))
            for name, n in counts.items()
        }

    fits, too_many = 0, sum(len(place) for place in places.values()) + 1
    smallest = share_of(widths(0))
    if smallest > settings.share:
        raise PruningError(
            f"--{settings.target} {settings.share:g}",
            f"cannot be reached: layers of {settings.step} channels still take {smallest:.3f}",
            "give a larger share or a smaller step",
        )
    while too_many - fits > 1:
        middle = (fits + too_many) // 2
        if share_of(widths(middle)) <= settings.share:
            fits = middle
        else:
            too_many = middle
    return widths(fits)


def _whole_steps(count: int, size: int, step: int) -> int:
    """The nearest multiple of a step, at least one; all channels are kept whatever their number."""
    return size if count == size else max(step, (2 * count + step) // (2 * step) * step)


def _places(curves: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The place of each number among those of all curves, the smallest first."""
    order = torch.cat([curve.double() for curve in curves.values()]).argsort(stable=True)
    places = torch.empty_like(order)
    places[order] = torch.arange(len(order))
    parts = torch.split(places, [len(curve) for curve in curves.values()])
    return dict(zip(curves, parts, strict=True))


def _sorted_scores(channels: Channels, scores: Mapping[str, Tensor], width: str) -> Tensor:
    """The best, second best, ... score of a width, the mean over its groups."""
    of_width = [scores[group.name] for group in channels.groups if group.width_name == width]
    return torch.stack([score.double().cpu().sort(descending=True).values for score in of_width]).mean(0)


def _highest(scores: Tensor, count: int) -> Tensor:
    kept = torch.zeros(len(scores), dtype=torch.bool)
    kept[scores.cpu().argsort(descending=True, stable=True)[:count]] = True
    return kept
