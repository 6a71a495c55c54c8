"""Where a training begins: weights drawn from the seed, what pruning left of them, or a trained model."""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from radiogen.model.folder import load_model
from radiogen.training.presets import RunSettings
from radiogen.training.pruned_folder import Pruned, read_pruned
from radiogen.training.options import TrainOptions
from radiogen.errors import ConfigError
from radiogen.networks.raseg import RASeg, build_raseg


@dataclass(frozen=True)
class Start:
    """The network at its start, and what its model card has to say of that."""

    network: RASeg
    weight_masks: dict[str, Tensor] = field(default_factory=dict)
    patients_seen: frozenset[str] | None = frozenset()  # None: unknown
    hash: str = ""  # of what it was read from
    note: str = ""
    sparsity: float = 0.0
    control: str = "none"


def find_start(settings: RunSettings, options: TrainOptions) -> Start:
    """The start that the options name.

    Raises:
        ConfigError: The pruned folder or the model is of another network, preprocessing or seed.
        PruningError: The pruned folder is not whole.
        ModelError: The model folder is not whole.
    """
    if options.pruned and options.start:
        raise ConfigError("--start", "has no place beside --pruned", "take one of them")
    if options.pruned:
        return _from_pruned(read_pruned(options.pruned), settings, options)
    if options.start:
        return _from_model(options.start, settings)
    return Start(build_raseg(settings.network, options.seed))


def _from_pruned(pruned: Pruned, settings: RunSettings, options: TrainOptions) -> Start:
    """Refuses weight masks of another network, seed or preprocessing."""
    made = pruned.config
    same = settings.network == made.settings.network and options.seed == made.seed
    if not same or settings.preprocessing != made.settings.preprocessing:
        raise ConfigError(
            f"--pruned {pruned.folder}",
            f"was made with --preset {made.preset} --seed {made.seed} and its settings",
            "train with the same --preset, --seed, --config and --set",
        )
    return Start(
        network=pruned.start(),
        weight_masks=pruned.weight_masks,
        patients_seen=frozenset(made.patients_seen),
        hash=pruned.hash,
        note=pruned.note,
        sparsity=made.sparsity,
        control=made.control,
    )


def _from_model(folder: Path, settings: RunSettings) -> Start:
    """Refuses a model that sees or computes otherwise, and one whose zeros would be trained away."""
    model = load_model(folder, torch.device("cpu"))
    made = model.config
    if made.network != settings.network or made.preprocessing != settings.preprocessing:
        wrong = (
            f"was made with --preset {made.preset} and its settings" if made.preset else "is another network"
        )
        raise ConfigError(f"--start {folder}", wrong, "train with the same --preset, --config and --set")
    if made.sparsity:
        raise ConfigError(f"--start {folder}", "is pruned, and would not stay so", "take one that is not")
    seen = None if made.patients_seen is None else frozenset(made.patients_seen)
    of = f"model {model.hash}" + (f" (preset {made.preset})" if made.preset else "")
    return Start(model.network, patients_seen=seen, hash=model.hash, note=f"Training began with {of}.")
