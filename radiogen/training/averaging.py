"""Averages of the weights over the steps of a training (exponential moving average)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


def averaged_copy(network: nn.Module, decay: float) -> AveragedModel:
    """A copy of a network that follows it: average = d average + (1 - d) weight after each step.

    d rises to `decay` as (1 + n) / (10 + n) over the first n steps, so that the start is soon forgotten.
    Buffers are those of the network itself.

    Args:
        network: The bare network, before it is wrapped.
        decay: In (0, 1).
    """

    def follow(averages: Sequence[Tensor], weights: Sequence[Tensor], steps: Tensor | int) -> None:
        count = int(steps)
        kept = min(decay, (1 + count) / (10 + count))
        with torch.no_grad():
            torch._foreach_lerp_(tuple(averages), tuple(weights), 1 - kept)

    return AveragedModel(network, multi_avg_fn=follow)
