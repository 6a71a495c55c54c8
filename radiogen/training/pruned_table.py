"""What a pruned network keeps, layer by layer, and what two of them keep in common."""

import csv
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

import torch

from radiogen.model.folder import WEIGHTS, load_model
from radiogen.training.presets import RunSettings
from radiogen.training.pruned_folder import CHANNELS, CONFIG, LAYERS, MASKS, read_pruned
from radiogen.errors import PruningError
from radiogen.networks.raseg import RASeg, RASegSettings
from radiogen.pruning.channel_pruning import ChannelRow
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
    channels: list[ChannelRow] = field(default_factory=list)  # in place of layers, if whole channels left


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
    _, about = load_weight_masks(_masks_file(folder))
    about["warmup"] = pruned.config.warmup
    if pruned.config.network:
        del about["sparsity"]
        about.update(about.pop("channels"))
        return PrunedTable(about, [], _read_layers(folder / LAYERS, ChannelRow))
    return PrunedTable(about, _read_layers(folder / LAYERS, LayerRow))


def compare_pruned(first: Path, second: Path) -> tuple[list[Overlap], Overlap]:
    """What two choices of weights (or of channels) keep in common, layer by layer and over all.

    Args:
        first: A pruned folder, a file of weight masks, or a model trained with them.
        second: Another of the same network.

    Raises:
        PruningError: One cannot be read, they are of different networks (the layer is named), or of weights
            and of channels.
    """
    one, two = read_masks(first), read_masks(second)
    if _of_channels(one) != _of_channels(two):
        channels, weights = (first, second) if _of_channels(one) else (second, first)
        raise PruningError(
            channels, f"keeps channels, {weights.name} weights", "compare two of one --structure"
        )
    return overlap_table(one, two), overlap(one, two)


def _of_channels(masks: WeightMasks) -> bool:
    return all(mask.ndim == 1 for mask in masks.values())


def read_masks(path: Path) -> WeightMasks:
    """The weight masks or kept channels of a folder or file, or the weights of a model that are not zero.

    Raises:
        PruningError: There are none.
    """
    if (path / WEIGHTS).is_file():
        return _nonzero(load_model(path, torch.device("cpu")).network)
    if path.is_dir() and not _masks_file(path).is_file():
        raise PruningError(path, "holds no weight masks", f"give a folder of radiogen prune, with {CONFIG}")
    return load_weight_masks(_masks_file(path) if path.is_dir() else path)[0]


def _masks_file(folder: Path) -> Path:
    return folder / (CHANNELS if (folder / CHANNELS).is_file() else MASKS)


def _nonzero(network: RASeg) -> WeightMasks:
    weights = prunable(network, exclude=network.output_layers)
    return {name: weight.detach() != 0 for name, weight in weights.items()}


Row = TypeVar("Row", LayerRow, ChannelRow)


def _read_layers(path: Path, kind: type[Row]) -> list[Row]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [_layer_row(row, kind) for row in csv.DictReader(file)]
    except (OSError, KeyError, ValueError) as error:
        raise PruningError(path, f"cannot be read: {error}", "prune again") from error


def _layer_row(row: dict[str, str], kind: type[Row]) -> Row:
    values: dict[str, Any] = {column.name: row[column.name] for column in fields(kind)}
    words: dict[str, Any] = {"name": row["name"], "is_cut": row.get("is_cut") == "True"}
    read: dict[str, Any] = {n: words[n] if n in words else int(value) for n, value in values.items()}
    return kind(**read)
