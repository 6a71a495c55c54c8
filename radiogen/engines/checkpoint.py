"""Checkpoints of a running training: tensors in safetensors, the rest as JSON in its header."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from radiogen.errors import PruningError, TrainingError
from radiogen.pruning.sparse_files import load_tensors, read_about, save_tensors


def save_checkpoint(
    path: Path, network: nn.Module, optimizer: torch.optim.Optimizer, about: dict[str, Any]
) -> None:
    """Write weights, buffers and the optimizer's state; `about` holds epoch, rows and settings."""
    tensors = {f"network/{name}": tensor for name, tensor in network.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        for key, value in state.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer/{index}/{key}"] = value
    save_tensors(path, tensors, about)


def read_checkpoint_about(path: Path) -> dict[str, Any]:
    """What a checkpoint says of itself, without its tensors.

    Raises:
        TrainingError: The file is damaged.
    """
    try:
        return read_about(path)
    except PruningError as error:
        raise TrainingError(path, "is damaged", "begin anew with --existing overwrite") from error


def load_checkpoint(path: Path, network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Put weights, buffers and the optimizer's state back.

    Raises:
        TrainingError: The checkpoint is of another network.
    """
    weights: dict[str, Tensor] = {}
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in load_tensors(path).items():
        kind, _, rest = name.partition("/")
        if kind == "network":
            weights[rest] = tensor
        else:
            index, _, key = rest.partition("/")
            state.setdefault(int(index), {})[key] = tensor
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise TrainingError(path, "is of another network", "begin anew with --existing overwrite") from error
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
