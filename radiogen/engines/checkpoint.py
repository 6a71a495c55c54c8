"""Checkpoints of a running training: tensors in safetensors, the rest as JSON in its header."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from radiogen.errors import PruningError, TrainingError
from radiogen.pruning.sparse_files import load_tensors, read_about, save_tensors

ANEW = "begin anew with --existing overwrite"


def save_checkpoint(
    path: Path,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    about: dict[str, Any],
    averaged: nn.Module | None = None,
) -> None:
    """Write weights, buffers and the optimizer's state; `about` holds epoch, rows and settings.

    Args:
        path: File to write, whole or not at all.
        network: The bare network.
        optimizer: Of its weights.
        about: What else there is to know, as JSON can hold it.
        averaged: The averages of the weights, if there are any.
    """
    tensors = {f"network/{name}": tensor for name, tensor in network.state_dict().items()}
    if averaged is not None:
        tensors |= {f"averaged/{name}": tensor for name, tensor in averaged.state_dict().items()}
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
        raise TrainingError(path, "is damaged", ANEW) from error


def load_checkpoint(
    path: Path, network: nn.Module, optimizer: torch.optim.Optimizer, averaged: nn.Module | None = None
) -> None:
    """Put weights, buffers, averages and the optimizer's state back.

    Raises:
        TrainingError: The checkpoint is damaged or of another network.
    """
    parts: dict[str, dict[str, Tensor]] = {"network": {}, "averaged": {}, "optimizer": {}}
    try:
        for name, tensor in load_tensors(path).items():
            kind, _, rest = name.partition("/")
            parts[kind][rest] = tensor
    except (PruningError, KeyError) as error:
        raise TrainingError(path, "is damaged", ANEW) from error
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in parts["optimizer"].items():
        index, _, key = name.partition("/")
        state.setdefault(int(index), {})[key] = tensor
    try:
        network.load_state_dict(parts["network"])
        if averaged is not None:
            averaged.load_state_dict(parts["averaged"])
    except RuntimeError as error:
        raise TrainingError(path, "is of another network", ANEW) from error
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
