"""Foreign checkpoints become model folders: dense tensors only, names and shapes checked."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from radiogen.errors import ModelError, OutputError
from radiogen.model.card import model_card
from radiogen.model.folder import WEIGHTS, ModelConfig, save_model
from radiogen.model.network_input import Preprocessing
from radiogen.networks.published import load_published
from radiogen.networks.raseg import weight_count
from radiogen.provenance import RunRecord

NESTED = ("state_dict", "model_state_dict", "model")
PREFIX = "module."


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
    """The tensors of a PyTorch file, with or without a wrapping dictionary and a DataParallel prefix.

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
