"""The channels of RA-Seg: the layers that produce and consume each, and the settings of a smaller network.

Described by hand, across skip concatenations, transposed convolutions, attentions and the four gates of a
ConvLSTM. The proof is a test: the smaller network gives what the dense one gives with those slices at zero.
"""

from collections.abc import Iterator, Sequence

from radiogen.networks.raseg import RASeg, RASegSettings
from radiogen.pruning.channel_groups import (
    ChannelGroup,
    Channels,
    ChannelSlice,
    Widths,
    consumer_slices,
    producer_slices,
)


def raseg_channels(network: RASeg) -> Channels:
    """Describe every channel of RA-Seg that can leave; the logits and the inputs stay.

    - A channel of an encoder takes with it the channel of the attention that gates it.
    - A channel of a ConvLSTM is one of the hidden state and of the cell: four rows of both halves of the
      gates, and one column of the hidden half. The directions up and down stay equally wide.
    - The stage at full resolution, decoder 1, which it is joined to, and the joint block stay equally wide.
    """
    groups = (*_encoders(network), *_recurrence(network), *_decoders(network))
    return Channels(groups, lambda widths: RASeg(resized_settings(network.settings, widths)))


def resized_settings(settings: RASegSettings, widths: Widths) -> RASegSettings:
    """Return the settings with other widths, by the names that `raseg_channels` gives them."""
    # Two directions share a recurrent width; an odd one keeps its extra channel.
    recurrent = [
        before - 2 * (before // 2 - widths[name]) if settings.both_ways else widths[name]
        for before, name in _recurrent_names(settings)
    ]
    return settings.model_copy(
        update={
            "full_width": widths["full"] if settings.full_width else 0,
            "encoder_widths": tuple(widths[f"encoder{i}"] for i in (1, 2, 3, 4)),
            "recurrent_widths": tuple(recurrent),
            "decoder_widths": tuple(widths[f"decoder{i}"] for i in (4, 3, 2)),
        }
    )


def _recurrent_names(settings: RASegSettings) -> list[tuple[int, str]]:
    return [(width, f"recurrence{i}") for i, width in enumerate(settings.recurrent_widths, start=1)]


def _decoder_layer(settings: RASegSettings, number: int) -> str:
    return "decoder1" if number == 1 and not settings.full_width else f"decoder{number}.conv"


def _after_join(settings: RASegSettings) -> str:
    return "joint.conv" if settings.joint else "head"


def _produced(network: RASeg, *layers: str, offsets: Sequence[int] = (0,)) -> tuple[ChannelSlice, ...]:
    """Return the slices of the channels that come out of the layers."""
    return tuple(part for layer in layers for part in producer_slices(network, layer, offsets))


def _consumed(network: RASeg, *layers: str, offset: int = 0) -> tuple[ChannelSlice, ...]:
    """Return the slices of the channels that go into the layers, from `offset` of their input on."""
    return tuple(part for layer in layers for part in consumer_slices(network, layer, offset))


def _encoders(network: RASeg) -> Iterator[ChannelGroup]:
    """Stem and encoders; the attention that gates an encoder's skip has a channel for each of its own."""
    settings = network.settings
    if settings.full_width:
        yield ChannelGroup(
            "stem",
            settings.full_width,
            producers=_produced(network, "stem.conv"),
            consumers=_consumed(network, "encoders.0.conv")
            + _consumed(network, _after_join(settings), offset=settings.full_width),
            width="full",
        )
    # A decoder reads its skip behind what comes from below: offsets of the skips in decoders 1 to 4.
    skip_offsets = [*settings.decoder_widths[::-1], settings.recurrent_widths[-1]]
    for i, width in enumerate(settings.encoder_widths):
        deeper = [f"encoders.{i + 1}.conv"] if i < 3 else _input_gates(settings, 0)
        if i == 3 and settings.prior_head:
            deeper.append("prior_head")
        yield ChannelGroup(
            f"encoder{i + 1}",
            width,
            producers=_produced(
                network, f"encoders.{i}.conv", f"attentions.{i}.conv", f"attentions.{i}.norm"
            ),
            consumers=_consumed(network, *deeper)
            + _consumed(network, _decoder_layer(settings, i + 1), offset=skip_offsets[i]),
        )


def _cells(settings: RASegSettings, layer: int) -> list[str]:
    name = f"recurrence.layers.{layer}"
    return [f"{name}.up", f"{name}.down"] if settings.both_ways else [name]


def _input_gates(settings: RASegSettings, layer: int) -> list[str]:
    return [f"{cell}.input_gates" for cell in _cells(settings, layer)]


def _recurrence(network: RASeg) -> Iterator[ChannelGroup]:
    """One group for each ConvLSTM: its hidden state is produced by four gates and read by itself again."""
    settings = network.settings
    for layer, (width, name) in enumerate(_recurrent_names(settings)):
        is_last = layer + 1 == len(settings.recurrent_widths)
        deeper = ["decoder4.conv"] if is_last else _input_gates(settings, layer + 1)
        cells = _cells(settings, layer)
        size = width // len(cells)
        for place, cell in enumerate(cells):
            # Input, forget, output and candidate gates lie one after the other in the rows of both halves.
            rows = len(network.get_parameter(f"{cell}.hidden_gates.weight"))
            gates = [gate * rows // 4 for gate in range(4)]
            yield ChannelGroup(
                cell,
                size,
                producers=_produced(network, f"{cell}.input_gates", f"{cell}.hidden_gates", offsets=gates),
                consumers=_consumed(network, f"{cell}.hidden_gates")
                + _consumed(network, *deeper, offset=place * size),
                width=name,
            )


def _decoders(network: RASeg) -> Iterator[ChannelGroup]:
    settings = network.settings
    for number, width in zip((4, 3, 2), settings.decoder_widths, strict=True):
        consumers = [_decoder_layer(settings, number - 1)]
        if number - 2 < settings.deep_supervision:
            consumers.append(f"side_heads.{number - 2}")
        yield ChannelGroup(
            f"decoder{number}",
            width,
            producers=_produced(network, f"decoder{number}.conv"),
            consumers=_consumed(network, *consumers),
        )
    full_resolution = []
    if settings.full_width:
        full_resolution.append(("decoder1", _after_join(settings)))
    if settings.joint:
        full_resolution.append(("joint", "head"))
    for name, consumer in full_resolution:
        yield ChannelGroup(
            name,
            settings.full_width,
            producers=_produced(network, f"{name}.conv"),
            consumers=_consumed(network, consumer),
            width="full",
        )
