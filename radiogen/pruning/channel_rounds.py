"""Take channels out in rounds: score, let some leave, score what is left."""

import copy
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from radiogen.pruning.channel_choice import ChannelSettings, ShareOf, choose_channels
from radiogen.pruning.channel_groups import Channels
from radiogen.pruning.channel_surgery import zero_channels
from radiogen.pruning.signatures import Scores


def choose_in_rounds(
    model: nn.Module,
    channels: Channels,
    share_of: ShareOf,
    target: ChannelSettings,
    rounds: int,
    score: Callable[[nn.Module], Scores],
) -> dict[str, Tensor]:
    """The channels that are kept after n rounds; round i keeps at most the share target^(i/n).

    A channel that left is zero in the rounds that follow. It does not come back, and no width grows again.

    Args:
        model: The network; it stays as it was.
        channels: Its channels.
        share_of: What a network of other widths takes of what the dense one takes.
        target: How small it becomes in the end.
        rounds: How often to score.
        score: Scores of a network by group name, one number a channel.

    Returns:
        Booleans over the channels of each group.
    """
    network = copy.deepcopy(model) if rounds > 1 else model
    made = {group.name: group.made for group in channels.groups}
    kept = {group.name: torch.ones(group.size, dtype=torch.bool) for group in channels.groups}
    for number in range(1, rounds + 1):
        zero_channels(network, made, kept)
        scores = {name: one.cpu() for name, one in score(network).items()}
        for name, mask in kept.items():
            scores[name] = scores[name].masked_fill(~mask, -math.inf)
        now = target.model_copy(update={"share": target.share ** (number / rounds)})
        kept = choose_channels(channels, scores, share_of, now, most=channels.widths_of(kept))
    return kept
