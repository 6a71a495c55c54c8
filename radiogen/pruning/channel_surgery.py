"""Take channels out of a network: what is left of its tensors, or the same network with them at zero."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from radiogen.pruning.channel_groups import ChannelGroup, Slice

KeptChannels = Mapping[str, Tensor]
"""Booleans over the channels of each group, by its name; true means kept."""


def kept_state(model: nn.Module, groups: Iterable[ChannelGroup], kept: KeptChannels) -> dict[str, Tensor]:
    """The state of the smaller network: each tensor without the slices of the channels that leave."""
    state = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    stays: dict[tuple[str, int], Tensor] = {}
    for group in groups:
        for part in group.slices:
            length = state[part.tensor].shape[part.axis]
            stay = stays.setdefault((part.tensor, part.axis), torch.ones(length, dtype=torch.bool))
            stay[part.offset : part.offset + group.size] = kept[group.name].cpu()
    for (name, axis), stay in stays.items():
        index = stay.nonzero().squeeze(1).to(state[name].device)
        state[name] = state[name].index_select(axis, index)
    return {name: tensor.clone() for name, tensor in state.items()}


def zero_channels(model: nn.Module, slices: Mapping[str, Iterable[Slice]], kept: KeptChannels) -> None:
    """Set the given slices of the channels that leave to zero, in place.

    Args:
        model: The network.
        slices: By group name; those that make the channels are enough.
        kept: The channels that stay.
    """
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, parts in slices.items():
            leaving = (~kept[name]).nonzero().squeeze(1)
            for part in parts:
                if part.tensor in parameters:
                    weight = parameters[part.tensor]
                    weight.index_fill_(part.axis, part.offset + leaving.to(weight.device), 0)
