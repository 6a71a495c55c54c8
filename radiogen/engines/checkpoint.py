"""Checkpoints of a running training: tensors in safetensors, the rest as JSON in its header."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from radiogen.errors import TrainingError
from radiogen.provenance import whole_file


def save_checkpoint(
    path: Path, network: nn.Module, optimizer: torch.optim.Optimizer, about: dict[str, Any]
) -> None:
    """Write weights, buffers and the optimizer's state; `about` holds epoch, rows and settings."""
    tensors = {f"network/{name}": tensor for name, tensor in network.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        for key, value in state.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer/{index}/{key}"] = value
    with whole_file(path) as draft:
        whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        save_file(whole, draft, metadata={"about": json.dumps(about)})


def read_checkpoint_about(path: Path) -> dict[str, Any]:
    """What a checkpoint says of itself, without its tensors.

    Raises:
        TrainingError: The file is damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            about: dict[str, Any] = json.loads(file.metadata()["about"])
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise TrainingError(path, "is damaged", "begin anew with --existing overwrite") from error
    return about


def load_checkpoint(path: Path, network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Put weights, buffers and the optimizer's state back.

    Raises:
        TrainingError: The checkpoint is of another network.
    """
    weights: dict[str, Tensor] = {}
    state: dict[int, dict[str, Tensor]] = {}
    with safe_open(path, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118 - a safetensors file is no mapping
            kind, _, rest = name.partition("/")
            if kind == "network":
                weights[rest] = file.get_tensor(name)
            else:
                index, _, key = rest.partition("/")
                state.setdefault(int(index), {})[key] = file.get_tensor(name)
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise TrainingError(path, "is of another network", "begin anew with --existing overwrite") from error
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
