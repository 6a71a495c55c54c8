"""Checkpoints of a running training: tensors in safetensors, the rest as JSON in its header."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from radiogen.errors import PruningError, TrainingError
from radiogen.io.tensors import load_tensors, read_about, save_tensors

ANEW = "begin anew with --existing overwrite"


@dataclass
class Learned:
    """All that a training has learned so far: weights, the optimizer's memory, averages, the best weights."""

    network: nn.Module
    optimizer: torch.optim.Optimizer
    averaged: AveragedModel | None = None
    best: dict[str, Tensor] = field(default_factory=dict)

    @property
    def in_use(self) -> nn.Module:
        """The network that is validated and written: the averages, if there are any."""
        averaged: nn.Module | None = self.averaged.module if self.averaged else None
        return averaged or self.network

    def keep_best(self) -> None:
        """Put the weights in use aside."""
        self.best = {name: tensor.detach().clone() for name, tensor in self.in_use.state_dict().items()}

    def kept(self, best: bool) -> Mapping[str, Tensor]:
        """The weights to write: the best ones put aside, or those in use."""
        state: Mapping[str, Tensor] = self.best if best else self.in_use.state_dict()
        return state

    def tensors(self) -> dict[str, Tensor]:
        """Everything under one name each."""
        parts: dict[str, Mapping[str, Tensor]] = {"network": self.network.state_dict(), "best": self.best}
        if self.averaged:
            parts["averaged"] = self.averaged.state_dict()
        for index, state in self.optimizer.state_dict()["state"].items():
            parts[f"optimizer/{index}"] = {k: v for k, v in state.items() if isinstance(v, Tensor)}
        return {f"{part}/{name}": tensor for part, some in parts.items() for name, tensor in some.items()}


def save_checkpoint(path: Path, learned: Learned, about: Mapping[str, Any]) -> None:
    """Write what was learned, and `about` it what JSON can hold; whole or not at all.

    Raises:
        TrainingError: A weight is not finite; the checkpoint before stays.
    """
    for name, weight in learned.network.named_parameters():
        if not bool(weight.isfinite().all()):
            raise TrainingError(name, "has weights that are not finite", "lower training.learning_rate")
    save_tensors(path, learned.tensors(), about)


def read_checkpoint_about(path: Path) -> dict[str, Any]:
    """What a checkpoint says of itself, without its tensors.

    Raises:
        TrainingError: The file is damaged.
    """
    try:
        return read_about(path)
    except PruningError as error:
        raise TrainingError(path, "is damaged", ANEW) from error


def load_checkpoint(path: Path, learned: Learned) -> None:
    """Put everything back.

    Raises:
        TrainingError: The checkpoint is damaged or of another network.
    """
    parts: dict[str, dict[str, Tensor]] = {"network": {}, "averaged": {}, "best": {}, "optimizer": {}}
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
        learned.network.load_state_dict(parts["network"])
        if learned.averaged:
            learned.averaged.load_state_dict(parts["averaged"])
    except RuntimeError as error:
        raise TrainingError(path, "is of another network", ANEW) from error
    learned.best = parts["best"]
    learned.optimizer.load_state_dict({**learned.optimizer.state_dict(), "state": state})
