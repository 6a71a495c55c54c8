"""One number a channel: the scores of all weights that leave with it, summed."""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from radiogen.pruning.channel_groups import ChannelGroup, Slice
from radiogen.pruning.criteria import SIGNED, score_task
from radiogen.pruning.scoring import Scoring
from radiogen.pruning.settings import CriterionSettings, ScoringTask
from radiogen.pruning.signatures import Batch, Loss, Scores


def score_channels(
    model: nn.Module,
    batches: Iterable[Batch],
    loss: Loss,
    groups: Sequence[ChannelGroup],
    settings: CriterionSettings,
    generator: torch.Generator,
) -> Scoring:
    """Score every channel; scores are by group name, one number a channel. The network stays as it was.

    The Taylor terms of snip, fts and hts are summed with their signs and the absolute value is taken of the
    sum: it estimates what the loss changes by when the whole channel leaves. The other criteria sum their
    scores; `random` draws one number a channel.

    Args:
        model: The network, at the weights that training will start from.
        batches: A list or loader of mini-batches.
        loss: Mean loss of a mini-batch.
        groups: The channels; biases and norms that leave with them count too.
        settings: The criterion.
        generator: Chance.
    """
    if settings.criterion == "random":
        return Scoring({g.name: torch.rand(g.size, generator=generator) for g in groups})
    described = {part.tensor for group in groups for part in group.slices}
    task = ScoringTask(
        model=model,
        batches=batches,
        loss=loss,
        weights={name: p for name, p in model.named_parameters() if name in described},
        settings=settings,
        generator=generator,
        pool=lambda scores: _pool(scores, groups, absolute=settings.criterion in SIGNED),
    )
    return score_task(task)


def _pool(scores: Scores, groups: Sequence[ChannelGroup], absolute: bool) -> Scores:
    sums = {group.name: sum_over_channels(scores, group) for group in groups}
    return {name: value.abs() for name, value in sums.items()} if absolute else sums


def sum_over_channels(values: Mapping[str, Tensor], group: ChannelGroup) -> Tensor:
    """The sum of what goes with each channel of a group, each weight once.

    A weight from a channel to itself, as in a recurrent layer, lies in two slices of it.

    Args:
        values: One number a weight by parameter name; tensors that are missing are left out.
        group: The channels.
    """
    total, before = torch.zeros(group.size), list[Slice]()
    for part in group.slices:
        value = values.get(part.tensor)
        if value is None:
            continue
        own = value.narrow(part.axis, part.offset, group.size)
        total = total.to(own) + own.movedim(part.axis, 0).reshape(group.size, -1).sum(1)
        for other in before:
            if other.tensor == part.tensor and other.axis != part.axis:
                both = own.narrow(other.axis, other.offset, group.size)
                total -= both.diagonal(dim1=part.axis, dim2=other.axis).reshape(-1, group.size).sum(0)
        before.append(part)
    return total
