"""The networks of a run: those that segment, as one, and the one whose features are taken."""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path

import torch

from radiogen.cohorts.ledger import stamp
from radiogen.model.ensemble import all_members, load_models
from radiogen.model.folder import (
    CONFIG,
    WEIGHTS,
    AnyModel,
    Model,
    ModelConfig,
    model_hash,
    read_model_config,
)
from radiogen.runtime import pick_device

Folders = tuple[Path, ...]


def read_networks(folders: Sequence[Path]) -> tuple[ModelConfig, str]:
    """What the networks of a run share, and one hash for them.

    Raises:
        ModelError: A folder is not whole, or the networks see their input differently.
    """
    members = all_members(folders)
    if len(members) == 1:
        return read_model_config(members[0]), model_hash(members[0])
    joined = load_models(folders, torch.device("cpu"))
    return joined.config, joined.hash


def networks_of(folders: Folders, device: str) -> AnyModel:
    """All that segment; loaded once in each process, again only when their files have changed."""
    return _loaded(folders, device, stamp(files_of(folders)))


def network_of_features(folders: Folders, device: str) -> Model:
    """The first one."""
    return networks_of(folders, device).members[0]


def files_of(folders: Iterable[Path]) -> list[Path]:
    """The files that make the networks."""
    return [folder / name for folder in all_members(folders) for name in (WEIGHTS, CONFIG)]


@lru_cache(maxsize=1)
def _loaded(folders: Folders, device: str, _stamp: str) -> AnyModel:
    return load_models(folders, pick_device(device))
