"""The channels of RA-Seg: what makes each, what reads it, and the settings of a smaller one."""

from collections.abc import Iterator
from functools import partial

from radiogen.networks.raseg import RASeg, RASegSettings
from radiogen.pruning.channel_groups import ChannelGroup, Channels, Widths, made_by, read_by


def raseg_channels(network: RASeg) -> Channels:
    """Every channel of RA-Seg that can leave; the logits and the inputs stay.

    - A channel of an encoder takes with it the channel of the attention that gates it.
    - A channel of a ConvLSTM is one of the hidden state and of the cell: four rows of both halves of the
      gates, and one column of the hidden half. The directions up and down stay equally wide.
    - The stage at full resolution, decoder 1, which it is joined to, and the joint block stay equally wide.
    """
    groups = (*_encoders(network), *_recurrence(network), *_decoders(network))
    return Channels(groups, lambda widths: RASeg(resized_settings(network.settings, widths)))


def resized_settings(settings: RASegSettings, widths: Widths) -> RASegSettings:
    """The settings with other widths, by the names that `raseg_channels` gives them."""
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


def _encoders(network: RASeg) -> Iterator[ChannelGroup]:
    settings = network.settings
    made, read = partial(made_by, network), partial(read_by, network)
    if settings.full_width:
        after = [*read("encoders.0.conv"), *read(_after_join(settings), settings.full_width)]
        yield ChannelGroup("stem", settings.full_width, tuple(made("stem.conv")), tuple(after), "full")
    # Decoders 1 to 4 read the skip behind what comes from below.
    beside = [*settings.decoder_widths[::-1], settings.recurrent_widths[-1]]
    for i, width in enumerate(settings.encoder_widths):
        deeper = [f"encoders.{i + 1}.conv"] if i < 3 else [f"{c}.input_gates" for c in _cells(settings, 0)]
        if i == 3 and settings.prior_head:
            deeper.append("prior_head")
        yield ChannelGroup(
            f"encoder{i + 1}",
            width,
            made=(*made(f"encoders.{i}.conv"), *made(f"attentions.{i}.conv"), *made(f"attentions.{i}.norm")),
            read=(
                *(part for layer in deeper for part in read(layer)),
                *read(_decoder_layer(settings, i + 1), beside[i]),
            ),
        )


def _cells(settings: RASegSettings, layer: int) -> list[str]:
    name = f"recurrence.layers.{layer}"
    return [f"{name}.up", f"{name}.down"] if settings.both_ways else [name]


def _recurrence(network: RASeg) -> Iterator[ChannelGroup]:
    settings = network.settings
    made, read = partial(made_by, network), partial(read_by, network)
    for layer, (width, name) in enumerate(_recurrent_names(settings)):
        is_last = layer + 1 == len(settings.recurrent_widths)
        deeper = (
            ["decoder4.conv"] if is_last else [f"{cell}.input_gates" for cell in _cells(settings, layer + 1)]
        )
        cells = _cells(settings, layer)
        size = width // len(cells)
        for place, cell in enumerate(cells):
            rows = len(network.get_parameter(f"{cell}.hidden_gates.weight"))
            gates = [gate * rows // 4 for gate in range(4)]
            yield ChannelGroup(
                cell,
                size,
                made=(*made(f"{cell}.input_gates", gates), *made(f"{cell}.hidden_gates", gates)),
                read=(
                    *read(f"{cell}.hidden_gates"),
                    *(part for reader in deeper for part in read(reader, place * size)),
                ),
                width=name,
            )


def _decoders(network: RASeg) -> Iterator[ChannelGroup]:
    settings = network.settings
    made, read = partial(made_by, network), partial(read_by, network)
    for number, width in zip((4, 3, 2), settings.decoder_widths, strict=True):
        after = [*read(_decoder_layer(settings, number - 1))]
        if number - 2 < settings.deep_supervision:
            after += read(f"side_heads.{number - 2}")
        yield ChannelGroup(f"decoder{number}", width, tuple(made(f"decoder{number}.conv")), tuple(after))
    if settings.full_width:
        made_here, joined = tuple(made("decoder1.conv")), tuple(read(_after_join(settings)))
        yield ChannelGroup("decoder1", settings.full_width, made_here, joined, "full")
    if settings.joint:
        yield ChannelGroup(
            "joint", settings.full_width, tuple(made("joint.conv")), tuple(read("head")), "full"
        )
