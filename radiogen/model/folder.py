"""Model folders: model.safetensors, config.json, metrics.json, MODEL_CARD.md."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from radiogen.config import Settings, check_settings
from radiogen.errors import ConfigError, ModelError, PruningError
from radiogen.io.tensors import load_tensors, save_tensors
from radiogen.model.network_input import Preprocessing
from radiogen.model.priors import AUTO_PRIORS, PriorChoice, PriorName
from radiogen.networks.raseg import RASeg, RASegSettings
from radiogen.provenance import files_hash, write_json, write_text
from radiogen.runtime import AnyPath, pick_device

WEIGHTS, CONFIG, METRICS, CARD = "model.safetensors", "config.json", "metrics.json", "MODEL_CARD.md"
ENSEMBLE = "ensemble.json"


class ModelConfig(Settings):
    """What a model is: how it is built, what it sees, whom it has seen."""

    format_version: Literal[1] = 1
    architecture: Literal["RASeg"] = "RASeg"
    preset: str = ""
    network: RASegSettings = RASegSettings()
    preprocessing: Preprocessing = Preprocessing()
    priors: tuple[PriorName, ...] = ("box",)
    class_names: tuple[str, ...] = ("background", "lesion")
    threshold: float = 0.5
    least_candidate: float = 0.5  # mean probability of a part of the first look, from which it is a candidate
    seed: int = 0
    sparsity: float = 0.0
    control: str = "none"  # of the pruning: what took the place of the criterion's choice
    patients_seen: tuple[str, ...] | None = ()  # None: unknown, as for imported weights


@dataclass(frozen=True)
class Model:
    """A trained RA-Seg in evaluation mode, with its config and the hash of its folder."""

    network: RASeg
    config: ModelConfig
    hash: str
    folder: Path

    @property
    def members(self) -> "tuple[Model, ...]":
        """The networks that are asked: this one."""
        return (self,)


@dataclass(frozen=True)
class Ensemble:
    """Several models whose probabilities are averaged; made by `ensemble.load_models`."""

    members: tuple[Model, ...]
    config: ModelConfig  # what they share; the priors that all were trained with, the patients that any saw
    hash: str  # of all of them
    folder: Path


AnyModel = Model | Ensemble


def save_model(
    folder: Path,
    state: Mapping[str, Tensor],
    config: ModelConfig,
    metrics: Mapping[str, Any],
    card: str,
) -> None:
    """Write a model folder, the weights last; a pruned one takes the space of what is kept."""
    write_json(folder / CONFIG, config.model_dump(mode="json"))
    write_json(folder / METRICS, metrics)
    write_text(folder / CARD, card)
    save_tensors(folder / WEIGHTS, state)


def read_model_config(folder: Path) -> ModelConfig:
    """The config of a model folder.

    Raises:
        ModelError: The folder is not a whole model folder, or of a format of another version.
    """
    if (folder / ENSEMBLE).is_file():
        raise ModelError(folder, "is an ensemble of models", "give the folder of one member here")
    if not (folder / CONFIG).is_file() or not (folder / WEIGHTS).is_file():
        missing = CONFIG if not (folder / CONFIG).is_file() else WEIGHTS
        raise ModelError(folder, f"holds no {missing}", "give a folder that radiogen train finished")
    try:
        values = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        return check_settings(ModelConfig, values, source=str(folder / CONFIG))
    except (ValueError, TypeError, ConfigError) as error:
        raise ModelError(folder / CONFIG, f"cannot be used: {error}", "train or import it again") from error


def model_hash(folder: Path) -> str:
    """One hash for weights and config of a model folder."""
    return files_hash(folder / WEIGHTS, folder / CONFIG)


def load_model(folder: AnyPath, device: str | torch.device = "auto") -> Model:
    """Load a model folder; nothing in it is executed.

    Args:
        folder: Model folder of `train` or of `radiogen model import`.
        device: Where the network computes: `auto`, `cpu`, `cuda`, `cuda:N`, `mps` or a device.

    Raises:
        ModelError: The folder is not whole, or weights and config do not fit each other.
    """
    folder, device = Path(folder), pick_device(device)
    config = read_model_config(folder)
    network = RASeg(config.network)
    try:
        network.load_state_dict(load_tensors(folder / WEIGHTS))
    except PruningError as error:
        raise ModelError(folder / WEIGHTS, "is damaged", "copy or train it again") from error
    except RuntimeError as error:
        wrong = f"does not fit {CONFIG}: {str(error).splitlines()[-1].strip()}"
        raise ModelError(folder / WEIGHTS, wrong, "give weights and config of one training") from error
    return Model(network.to(device).eval(), config, model_hash(folder), folder)


def check_prior(config: ModelConfig, prior: PriorChoice, folder: Path) -> None:
    """Refuse a prior that the model was not trained with; `auto` needs lungs and box."""
    needed: tuple[PriorName, ...] = AUTO_PRIORS if prior == "auto" else (prior,)
    for prior in (each for each in needed if each not in config.priors):
        raise ModelError(
            f"model {folder.name}",
            f"was not trained with the prior {prior!r}",
            f"take --prior {' or '.join(config.priors)}",
        )
