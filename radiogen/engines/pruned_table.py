"""What a pruned network keeps, layer by layer, and what two of them keep in common."""

import csv
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch

from radiogen.engines.model_folder import WEIGHTS, load_model
from radiogen.engines.presets import RunSettings
from radiogen.engines.pruned_folder import CONFIG, LAYERS, MASKS, read_pruned
from radiogen.errors import PruningError
from radiogen.networks.raseg import RASeg, RASegSettings
from radiogen.pruning.comparing import Overlap, overlap, overlap_table
from radiogen.pruning.layers import LayerRow, layer_table
from radiogen.pruning.macs import weight_uses
from radiogen.pruning.mask_files import load_weight_masks
from radiogen.pruning.prunable import prunable
from radiogen.pruning.signatures import WeightMasks


@dataclass(frozen=True)
class PrunedTable:
    """A pruned network: what made it, and its layers."""

    about: dict[str, Any]
    layers: list[LayerRow]


def uses_of(settings: RunSettings) -> dict[str, int]:
    """How often RA-Seg multiplies each weight in one patch; nothing is computed for it."""
    return _uses(settings.network, settings.preprocessing.size)


def _uses(network: RASegSettings, size: tuple[int, int, int]) -> dict[str, int]:
    with torch.device("meta"):
        image, prior = torch.zeros(1, network.in_channels, *size), torch.zeros(1, 1, *size)
        return weight_uses(RASeg(network).eval(), (image, prior))


def show_pruned(folder: Path) -> PrunedTable:
    """The table of layers of a pruned folder, or of a model that was trained with weight masks.

    Raises:
        PruningError: The folder is neither, or damaged.
    """
    if (folder / WEIGHTS).is_file():
        model = load_model(folder, torch.device("cpu"))
        masks = _nonzero(model.network)
        uses = _uses(model.config.network, model.config.preprocessing.size)
        return PrunedTable({"sparsity": model.config.sparsity}, layer_table(model.network, masks, uses=uses))
    pruned = read_pruned(folder)
    _, about = load_weight_masks(folder / MASKS)
    return PrunedTable({**about, "warmup": pruned.config.warmup}, _read_layers(folder / LAYERS))


def compare_pruned(first: Path, second: Path) -> tuple[list[Overlap], Overlap]:
    """What two weight masks keep in common, layer by layer and over all.

    Args:
        first: A pruned folder, a file of weight masks, or a model trained with them.
        second: Another of the same network.

    Raises:
        PruningError: One cannot be read, or they are of different networks; the layer is named.
    """
    masks = read_masks(first), read_masks(second)
    return overlap_table(*masks), overlap(*masks)


def read_masks(path: Path) -> WeightMasks:
    """The weight masks of a pruned folder, a file, or the weights of a trained model that are not zero.

    Raises:
        PruningError: There are none.
    """
    if (path / WEIGHTS).is_file():
        return _nonzero(load_model(path, torch.device("cpu")).network)
    if path.is_dir() and not (path / MASKS).is_file():
        raise PruningError(path, "holds no weight masks", f"give a folder of radiogen prune, with {CONFIG}")
    return load_weight_masks(path / MASKS if path.is_dir() else path)[0]


def _nonzero(network: RASeg) -> WeightMasks:
    weights = prunable(network, exclude=[network.output_layer])
    return {name: weight.detach() != 0 for name, weight in weights.items()}


def _read_layers(path: Path) -> list[LayerRow]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [_layer_row(row) for row in csv.DictReader(file)]
    except (OSError, KeyError, ValueError) as error:
        raise PruningError(path, f"cannot be read: {error}", "prune again") from error


def _layer_row(row: dict[str, str]) -> LayerRow:
    values: dict[str, Any] = {field.name: row[field.name] for field in fields(LayerRow)}
    numbers = {name: int(value) for name, value in values.items() if name not in ("name", "is_cut")}
    return LayerRow(**{**numbers, "name": values["name"], "is_cut": values["is_cut"] == "True"})
