"""Choose the channels to keep: the highest scores that a target allows, in widths of whole steps."""

import bisect
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
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
Fits = Callable[[Widths], bool]


class ChannelSettings(Settings):
    """How small the network becomes, and in which steps."""

    target: TargetName = "keep"
    """What the share is of: the channels, the multiplications, or the memory of activations in training."""
    share: float = Field(0.5, ge=0, le=1)
    """Of the dense network, at most."""
    scope: Scope = "layer"
    """`layer` keeps the same share of every layer, its best channels; with `global` all channels compete, and
    the scores decide the widths too."""
    floor: float = Field(0.5, ge=0, le=1)
    """With `global`, each layer keeps at least this share of what it would keep with `layer`."""
    step: PositiveInt = 8
    """Widths are multiples of it, and at least one step."""
    per_flop: bool = False
    """With `global`, scores are divided by the multiplications that leave with the channel."""
    control: ChannelControl = "none"
    """Other channels of each layer (shuffle), other values (reinit), or the plain narrow network
    (uniform-width: random channels, the same share of every layer). A criterion has to beat them."""

    @model_validator(mode="after")
    def _layers_compete(self) -> Self:
        if self.per_flop and self.scope == "layer":
            raise ValueError("per_flop needs scope global; with layer no layers compete")
        return self


def choose_channels(
    channels: Channels,
    scores: Mapping[str, Tensor],
    share_of: ShareOf,
    settings: ChannelSettings,
    most: Widths | None = None,
) -> dict[str, Tensor]:
    """Choose as many of the highest scores as the target allows.

    Channels come and go in whole steps, a step with the mean of its scores. Groups of one width keep equally
    many: their k-th best channels compete as one, with the mean of their scores.

    Args:
        channels: The network's channels.
        scores: One number a channel by group name; higher means keep.
        share_of: Cost of a network of other widths as a share of the dense one; wider ones cost more.
        settings: Target, scope, floor and step.
        most: Upper limit of each width, where channels have left before; default: that of the network.

    Returns:
        Booleans over the channels of each group.

    Raises:
        PruningError: Even the narrowest network costs more than the target.
    """
    step = settings.step
    sizes = channels.widths
    narrowest = check_reachable(channels, share_of, settings)
    # Scores that fall evenly from 0 to -1 in every layer, whatever its width: steps by them narrow all layers
    # by the same share.
    even = {name: -torch.arange(size) / size for name, size in sizes.items()}

    def fits(widths: Widths) -> bool:
        return share_of(widths) <= settings.share

    steps = _steps(even, narrowest, step)
    widths = _widen(narrowest, steps, channels, settings, fits, skip_too_wide=False)
    if settings.scope == "global":
        # Without a floor fts left 8 of 512 channels in each recurrent layer of the untrained RA-Seg: a layer
        # collapse that kept half of the multiplications.
        floors = {name: step * math.ceil(settings.floor * width / step) for name, width in widths.items()}
        lowest = {name: min(sizes[name], max(step, floor)) for name, floor in floors.items()}
        most = most or sizes
        curves = {name: _sorted_scores(channels, scores, name)[: most[name]] for name in sizes}
        steps = _steps(curves, lowest, step)
        widths = _widen(lowest, steps, channels, settings, fits, skip_too_wide=True)
    return {group.name: _highest(scores[group.name], widths[group.width_name]) for group in channels.groups}


def check_reachable(channels: Channels, share_of: ShareOf, settings: ChannelSettings) -> dict[str, int]:
    """Return the narrowest widths, of one step each, if they stay within the target.

    Raises:
        PruningError: They do not.
    """
    narrowest = {name: min(settings.step, size) for name, size in channels.widths.items()}
    smallest = share_of(narrowest)
    if smallest > settings.share:
        raise PruningError(
            f"--{settings.target} {settings.share:g}",
            f"cannot be reached: layers of {settings.step} channels still take {smallest:.3f}",
            "give a larger share or a smaller step",
        )
    return narrowest


def _steps(curves: Mapping[str, Tensor], lowest: Widths, step: int) -> list[str]:
    """Return the widths that grow by a step, one after the other, by the mean score of the step.

    Args:
        curves: Scores of each width, the highest first.
        lowest: Where each width begins to grow.
        step: Channels in a step.
    """
    means = [
        (-float(part.double().mean()), name)
        for name, curve in curves.items()
        for part in torch.split(curve[lowest[name] :], step)
        if len(part)
    ]
    return [name for _, name in sorted(means, key=lambda pair: pair[0])]


def _widen(
    lowest: Widths,
    steps: Sequence[str],
    channels: Channels,
    settings: ChannelSettings,
    fits: Fits,
    skip_too_wide: bool,
) -> dict[str, int]:
    """Take the steps in their order for as long as the network fits the target.

    Args:
        lowest: Where each width begins.
        steps: From `_steps`.
        channels: Gives the upper limit of each width.
        settings: Gives the length of a step.
        fits: Whether a network of some widths stays within the target.
        skip_too_wide: Go on with the other widths when the next step of one does not fit; otherwise stop, so
            that all layers keep the same share.
    """
    step = settings.step
    sizes = channels.widths

    def after(count: int) -> dict[str, int]:
        taken = Counter(steps[:count])
        return {name: min(sizes[name], width + step * taken[name]) for name, width in lowest.items()}

    # Costs grow with the steps, so the last count that fits is found by bisection.
    most = bisect.bisect_left(range(1, len(steps) + 1), True, key=lambda count: not fits(after(count)))
    widths = after(most)
    full: set[str] = set()
    for name in steps[most:] if skip_too_wide else ():
        wider = {**widths, name: min(sizes[name], widths[name] + step)}
        if name not in full and fits(wider):
            widths = wider
        else:
            full.add(name)
    return widths


def _sorted_scores(channels: Channels, scores: Mapping[str, Tensor], width: str) -> Tensor:
    """Return the best, second best, ... score of a width, the mean over its groups."""
    of_width = [scores[group.name] for group in channels.groups if group.width_name == width]
    return torch.stack([score.double().cpu().sort(descending=True).values for score in of_width]).mean(0)


def _highest(scores: Tensor, count: int) -> Tensor:
    kept = torch.zeros(len(scores), dtype=torch.bool)
    kept[scores.cpu().argsort(descending=True, stable=True)[:count]] = True
    return kept
