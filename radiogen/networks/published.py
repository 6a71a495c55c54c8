"""Bring in weights under the names of the published RA-Seg code."""

import re
from collections.abc import Mapping

from torch import Tensor

from radiogen.errors import ModelError
from radiogen.networks.raseg import RASeg, RASegSettings

_RENAMED = (
    (re.compile(r"encoder([1-4])\.conv\.(\w+)"), r"encoders.{stage}.conv.\2"),
    (re.compile(r"encoder([1-4])\.adn\.A\.weight"), r"encoders.{stage}.prelu.weight"),
    (re.compile(r"a2o_encoder([1-4])\.conv\.(\w+)"), r"attentions.{stage}.conv.\2"),
    (re.compile(r"a2o_encoder([1-4])\.adn\.N\.(\w+)"), r"attentions.{stage}.norm.\2"),
    (re.compile(r"(decoder[2-4])\.conv\.(\w+)"), r"\1.conv.\2"),
    (re.compile(r"(decoder[2-4])\.adn\.A\.weight"), r"\1.prelu.weight"),
    (re.compile(r"decoder1\.conv\.(\w+)"), r"decoder1.\1"),
)
_GATES = re.compile(r"bottom\.cell_list\.(\d+)\.conv\.(weight|bias)")


def from_published(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state of our RA-Seg from tensors under published names.

    The ConvLSTM's one convolution over [input, hidden] is cut into its input and hidden halves.

    Raises:
        ModelError: A name that the published network does not have.
    """
    state: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        gates = _GATES.fullmatch(name)
        if gates:
            layer = f"recurrence.layers.{gates[1]}"
            if gates[2] == "bias":
                state[f"{layer}.input_gates.bias"] = tensor
            else:
                width = tensor.shape[0] // 4
                state[f"{layer}.input_gates.weight"] = tensor[:, : tensor.shape[1] - width]
                state[f"{layer}.hidden_gates.weight"] = tensor[:, tensor.shape[1] - width :]
            continue
        state[_our_name(name)] = tensor
    return {name: tensor.contiguous() for name, tensor in state.items()}


def _our_name(name: str) -> str:
    for pattern, ours in _RENAMED:
        match = pattern.fullmatch(name)
        if match:
            stage = int(match[1]) - 1 if match[1].isdecimal() else 0
            return match.expand(ours.replace("{stage}", str(stage)))
    raise ModelError(f"weight {name}", "is not part of the published RA-Seg", "give the authors' checkpoint")


def published_settings(weights: Mapping[str, Tensor]) -> RASegSettings:
    """The widths of a published RA-Seg, read from the shapes of its weights.

    Raises:
        ModelError: A weight is missing or has another number of axes.
    """
    try:
        encoders = [weights[f"encoder{i}.conv.weight"].shape for i in (1, 2, 3, 4)]
        decoders = [weights[f"decoder{i}.conv.weight"].shape for i in (4, 3, 2)]
        layers = sum(1 for name in weights if _GATES.fullmatch(name) and name.endswith("weight"))
        cells = [weights[f"bottom.cell_list.{i}.conv.weight"].shape for i in range(layers)]
        return RASegSettings(
            in_channels=encoders[0][1],
            encoder_widths=(encoders[0][0], encoders[1][0], encoders[2][0], encoders[3][0]),
            recurrent_widths=tuple(shape[0] // 4 for shape in cells),
            decoder_widths=(decoders[0][1], decoders[1][1], decoders[2][1]),
        )
    except (KeyError, IndexError, ValueError) as error:
        raise ModelError(
            "checkpoint", f"lacks a weight of RA-Seg: {error}", "give the whole state"
        ) from error


def load_published(weights: Mapping[str, Tensor]) -> RASeg:
    """RA-Seg with published weights, in their precision.

    Raises:
        ModelError: Names or shapes do not fit.
    """
    network = RASeg(published_settings(weights))
    state = from_published(weights)
    network.to(next(iter(state.values())).dtype)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise ModelError("checkpoint", f"does not fit RA-Seg: {error}", "give the whole state") from error
    return network
