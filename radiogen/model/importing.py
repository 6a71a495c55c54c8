"""Import checkpoints of the published RA-Seg code: dense tensors only, names and shapes checked."""

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from radiogen.errors import ModelError, OutputError
from radiogen.model.card import model_card
from radiogen.model.folder import WEIGHTS, ModelConfig, save_model
from radiogen.model.network_input import Preprocessing
from radiogen.networks.raseg import RASeg, RASegSettings, weight_count
from radiogen.provenance import RunRecord

NESTED = ("state_dict", "model_state_dict", "model")
PREFIX = "module."
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


def import_published(checkpoint: Path, out: Path) -> ModelConfig:
    """Write a model folder from a checkpoint with the names of the published RA-Seg code.

    Nothing but tensors is unpickled (`weights_only=True`). The patients it has seen are unknown.

    Raises:
        ModelError: The file cannot be read safely, or names or shapes do not fit.
        OutputError: The folder holds a model already.
    """
    if (out / WEIGHTS).exists():
        raise OutputError(out, "holds a model already", "choose another folder")
    record = RunRecord("model import", {}, inputs=[checkpoint])
    network = load_published(read_checkpoint(checkpoint)).float()
    config = ModelConfig(
        preset="paper",
        network=network.settings,
        preprocessing=Preprocessing(),
        priors=("box",),
        patients_seen=None,
    )
    note = "Imported weights of the published code, taken to need the published preprocessing."
    card = model_card(config, {}, weight_count(network), note)
    save_model(out, network.state_dict(), config, {}, card)
    record.finish(out, [out / WEIGHTS])
    return config


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a PyTorch file, with or without a wrapping dictionary and a DataParallel prefix.

    Raises:
        ModelError: It cannot be read safely or holds something other than dense tensors.
    """
    if not path.is_file():
        raise ModelError(path, "is not a file", "give a .pt or .pth file")
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise ModelError(path, "cannot be read as tensors only", "save its state_dict() anew") from error
    for key in NESTED:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not content:
        raise ModelError(path, "holds no state dictionary", "save the network's state_dict()")
    for name, tensor in content.items():
        if not isinstance(tensor, Tensor) or tensor.layout != torch.strided:
            raise ModelError(path, f"{name} is no dense tensor", "save the network's state_dict()")
    return {str(name).removeprefix(PREFIX): tensor for name, tensor in content.items()}


def from_published(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Translate tensors under published names into the state of our RA-Seg.

    The ConvLSTM's one convolution over [input, hidden] is cut into its input and hidden halves, since
    ours keeps them apart (`networks.blocks.ConvLSTM`).

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
    """Read the widths of a published RA-Seg from the shapes of its weights.

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
    """Build RA-Seg with published weights, in their precision.

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
