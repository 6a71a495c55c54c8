"""Channels that can leave a network, and the slices of its tensors that leave with them.

A network describes them itself, as lists: tools that trace a network to find them fail on U-Nets with
transposed convolutions and skip concatenations.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from radiogen.errors import PruningError
from radiogen.pruning.prunable import TRANSPOSED

Widths = Mapping[str, int]
"""Channels by the name of a width."""


@dataclass(frozen=True)
class ChannelSlice:
    """Place of the channels of a group in a tensor: channel i is index `offset + i` of an axis."""

    tensor: str  # name in the state dictionary
    axis: int
    offset: int = 0


@dataclass(frozen=True)
class ChannelGroup:
    """Channels of which each can leave by itself, with all that produces it and all that consumes it.

    Channels that are added to or multiplied with each other are one channel of one group, with the slices of
    all layers that produce them.
    """

    name: str
    size: int
    producers: tuple[ChannelSlice, ...]
    """Filters, biases and norms; when they are zero, the channel is zero."""
    consumers: tuple[ChannelSlice, ...]
    """What later layers multiply the channel with."""
    width: str = ""
    """Groups of one width keep equally many channels, whichever they are; a width of its own by default."""

    @property
    def slices(self) -> tuple[ChannelSlice, ...]:
        """Everything that leaves with the channels."""
        return self.producers + self.consumers

    @property
    def width_name(self) -> str:
        """Name of the width that the group shares, or its own."""
        return self.width or self.name


@dataclass(frozen=True)
class Channels:
    """Description of the channels of a network, and a function that builds it with other widths."""

    groups: tuple[ChannelGroup, ...]
    resized: Callable[[Widths], nn.Module]

    @property
    def widths(self) -> dict[str, int]:
        """Channels of each width in the network as it is."""
        return {group.width_name: group.size for group in self.groups}

    def widths_of(self, kept: Mapping[str, Tensor]) -> dict[str, int]:
        """Count the kept channels of each width, from booleans over those of each group."""
        return {group.width_name: int(kept[group.name].sum()) for group in self.groups}


def producer_slices(model: nn.Module, layer: str, offsets: Sequence[int] = (0,)) -> list[ChannelSlice]:
    """Return the slices of the channels that a layer produces: filter and bias, or those of a norm or PReLU.

    Args:
        model: The network.
        layer: Name of the module.
        offsets: Where in its output the channels start; several where each stands more than once, such as in
            the four gates of an LSTM.

    Raises:
        PruningError: The layer couples its channels, so that none can leave by itself.
    """
    module = model.get_submodule(layer)
    _refuse_coupled(layer, module)
    tensors = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
    axis = 1 if isinstance(module, TRANSPOSED) else 0
    return [
        ChannelSlice(f"{layer}.{name}", min(axis, tensor.dim() - 1), offset)
        for name, tensor in tensors
        if tensor.dim() > 0
        for offset in offsets
    ]


def consumer_slices(model: nn.Module, layer: str, offset: int = 0) -> list[ChannelSlice]:
    """Return the slices of the channels that a layer consumes, from `offset` of its input on.

    Raises:
        PruningError: The layer is a grouped convolution.
    """
    module = model.get_submodule(layer)
    _refuse_coupled(layer, module)
    return [ChannelSlice(f"{layer}.weight", 0 if isinstance(module, TRANSPOSED) else 1, offset)]


def check_groups(model: nn.Module, groups: Iterable[ChannelGroup]) -> None:
    """Refuse a description that does not fit a network.

    Raises:
        PruningError: A tensor is missing or too short; it is named.
    """
    state = model.state_dict()
    sizes: dict[str, int] = {}
    for group in groups:
        if sizes.setdefault(group.width_name, group.size) != group.size:
            raise PruningError(group.name, "differs in size from its width", "describe the network anew")
        for part in group.slices:
            tensor = state.get(part.tensor)
            if tensor is None or tensor.shape[part.axis] < part.offset + group.size:
                raise PruningError(
                    part.tensor,
                    f"has no {group.size} channels of {group.name} from {part.offset} on axis {part.axis}",
                    "describe the network anew",
                )


def _refuse_coupled(layer: str, module: nn.Module) -> None:
    # A norm over several channels, or filters that share inputs, change for the others when one leaves.
    coupled = getattr(module, "groups", 1) != 1 or isinstance(module, nn.LayerNorm)
    if isinstance(module, nn.GroupNorm):
        coupled = module.num_groups != module.num_channels
    if coupled:
        raise PruningError(
            layer, f"is a {type(module).__name__} that couples channels", "leave its channels as they are"
        )


KeptChannels = Mapping[str, Tensor]
"""Booleans over the channels of each group, by its name; true means kept."""


def kept_state(model: nn.Module, groups: Iterable[ChannelGroup], kept: KeptChannels) -> dict[str, Tensor]:
    """Return the state of the smaller network: each tensor without the slices of the channels that leave."""
    state = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    kept_along: dict[tuple[str, int], Tensor] = {}  # booleans by tensor and axis
    for group in groups:
        for part in group.slices:
            length = state[part.tensor].shape[part.axis]
            along = kept_along.setdefault((part.tensor, part.axis), torch.ones(length, dtype=torch.bool))
            # Groups may share a tensor: each marks its own part of the axis.
            along[part.offset : part.offset + group.size] = kept[group.name].cpu()
    for (name, axis), along in kept_along.items():
        index = along.nonzero().squeeze(1).to(state[name].device)
        state[name] = state[name].index_select(axis, index)
    return {name: tensor.clone() for name, tensor in state.items()}


def zero_channels(model: nn.Module, slices: Mapping[str, Iterable[ChannelSlice]], kept: KeptChannels) -> None:
    """Set the given slices of the channels that leave to zero, in place.

    Args:
        model: The network.
        slices: By group name; those of the producers are enough.
        kept: The channels that stay.
    """
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, parts in slices.items():
            leaving = (~kept[name]).nonzero().squeeze(1)
            for part in parts:
                # Buffers stay: where filter, bias and norm weight are zero, the statistics do not count.
                if part.tensor in parameters:
                    weight = parameters[part.tensor]
                    weight.index_fill_(part.axis, part.offset + leaving.to(weight.device), 0)
