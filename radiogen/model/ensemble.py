"""Several models as one: an ensemble folder of K folds, or several model folders."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field, field_validator

from radiogen.config import Settings, check_settings
from radiogen.errors import ConfigError, ModelError
from radiogen.model.folder import (
    CONFIG,
    ENSEMBLE,
    WEIGHTS,
    AnyModel,
    Ensemble,
    Model,
    ModelConfig,
    load_model,
    model_hash,
    read_model_config,
)
from radiogen.provenance import short_hash, write_json
from radiogen.resources import data_folder
from radiogen.runtime import AnyPath

SHARED = ("preprocessing", "class_names", "threshold", "least_candidate")


class EnsembleConfig(Settings):
    """ensemble.json: the folders of the members, inside the ensemble's own."""

    format_version: Literal[1] = 1
    members: tuple[str, ...] = Field(min_length=1)

    @field_validator("members")
    @classmethod
    def _plain_names(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name in (".", "..") or Path(name).name != name:
                raise ValueError(f"member {name!r} must be the name of a folder inside the ensemble's")
        if len(set(names)) < len(names):
            raise ValueError("a member is named twice")
        return names


def write_ensemble(folder: Path, members: Sequence[str]) -> None:
    """Make a folder of model folders an ensemble."""
    write_json(folder / ENSEMBLE, EnsembleConfig(members=tuple(members)).model_dump(mode="json"))


def member_folders(folder: Path) -> list[Path]:
    """The model folders of an ensemble folder; a model folder is its own only member.

    Raises:
        ModelError: ensemble.json cannot be used.
    """
    path = folder / ENSEMBLE
    if not path.is_file():
        return [folder]
    try:
        config = check_settings(EnsembleConfig, dict(json.loads(path.read_text("utf-8"))), source=str(path))
    except (ValueError, TypeError, OSError, ConfigError) as error:
        raise ModelError(path, f"cannot be used: {error}", "train the folds again") from error
    return [folder / name for name in config.members]


def all_members(folders: Iterable[Path]) -> list[Path]:
    """The model folders that models and ensembles come to, in their order.

    Raises:
        ModelError: An ensemble.json cannot be used.
    """
    return [member for folder in folders for member in member_folders(folder)]


def load_models(folders: Sequence[AnyPath], device: str | torch.device = "auto") -> AnyModel:
    """Load a model folder, an ensemble folder, or several of either, whose probabilities are averaged.

    Args:
        folders: Model folders and ensemble folders.
        device: Where the networks compute: `auto`, `cpu`, `cuda`, `cuda:N`, `mps` or a device.

    Raises:
        ModelError: A folder is not whole, one comes twice, or the models see their input differently.
    """
    paths = [Path(folder) for folder in folders]
    models = [load_model(folder, device) for folder in all_members(paths)]
    return models[0] if len(models) == 1 else join(models, paths[0])


def join(models: Sequence[Model], folder: Path) -> Ensemble:
    """Several models as one.

    Raises:
        ModelError: They see their input differently, or one comes twice.
    """
    first = models[0].config
    for other in models[1:]:
        for name in SHARED:
            if getattr(other.config, name) != getattr(first, name):
                wrong = f"differs from {models[0].folder.name} in {name}"
                raise ModelError(other.folder, wrong, "join models of one preset and training")
    hashes = [model.hash for model in models]
    if len(set(hashes)) < len(hashes):
        raise ModelError(folder, "holds or names the same model twice", "name each model once")
    members = tuple(models)
    return Ensemble(members, _shared_config(members), short_hash("".join(sorted(hashes))), folder)


def _shared_config(models: Sequence[Model]) -> ModelConfig:
    configs = [model.config for model in models]
    priors = [prior for prior in configs[0].priors if all(prior in each.priors for each in configs)]
    seen = [each.patients_seen for each in configs]
    known = None if None in seen else tuple(sorted({patient for each in seen for patient in each or ()}))
    return configs[0].model_copy(update={"priors": tuple(priors), "patients_seen": known})


STARTER = "raseg-starter"


def starter_model() -> Path:
    """The folder of the model that is shipped.

    Raises:
        ModelError: It is not there.
    """
    folder = data_folder("models") / STARTER
    if not (folder / WEIGHTS).is_file():
        hint = "name a model folder with --model"
        raise ModelError(f"the starter model {STARTER}", "is not part of this installation", hint)
    return folder


def find_models(folder: Path | None = None) -> list[dict[str, Any]]:
    """Name, preset, priors, sparsity and hash of each model folder in a folder (or itself one).

    Args:
        folder: Where to look; None for the models that radiogen ships.

    Raises:
        ModelError: The folder does not exist.
    """
    root = data_folder("models") if folder is None else folder
    if not root.is_dir():
        raise ModelError(root, "is not a folder", "give a folder that holds model folders")
    candidates = [root, *sorted(path for path in root.iterdir() if path.is_dir())]
    rows = []
    for path in candidates:
        if (path / WEIGHTS).is_file() and (path / CONFIG).is_file():
            config = read_model_config(path)
            rows.append(
                {
                    "name": path.resolve().name,
                    "preset": config.preset,
                    "priors": ",".join(config.priors),
                    "sparsity": config.sparsity,
                    "hash": model_hash(path),
                }
            )
    return rows
