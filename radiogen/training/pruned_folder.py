"""Pruned folders: what radiogen prune writes and radiogen train --pruned reads."""

import csv
import hashlib
import json
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from radiogen.config import Settings, check_settings
from radiogen.errors import ConfigError, PruningError
from radiogen.io.tensors import load_tensors
from radiogen.model.folder import WEIGHTS, load_model
from radiogen.networks.raseg import RASeg, RASegSettings, build_raseg, weight_count
from radiogen.provenance import files_hash
from radiogen.pruning.channel_pruning import ChannelRow
from radiogen.pruning.controls import Overlap, overlap, overlap_table
from radiogen.pruning.layers import LayerRow, layer_table
from radiogen.pruning.prunable import prunable, weight_uses
from radiogen.pruning.settings import WeightMasks
from radiogen.pruning.weight_masks import apply_weight_masks, load_weight_masks
from radiogen.training.settings import RunSettings

MASKS, CONFIG, LAYERS, START = "weight_masks.safetensors", "config.json", "layers.csv", "start.safetensors"
CHANNELS = "channel_masks.safetensors"


class PrunedConfig(Settings):
    """What the weight masks belong to; the network at its start is drawn anew from the seed.

    Without channels the network is smaller than that of the settings: `network` says how, and there are no
    weight masks.
    """

    preset: str
    seed: int
    sparsity: float
    warmup: str
    control: str = "none"
    start_hash: str  # of the masked weights at the start, so that another torch cannot slip in other ones
    patients_seen: tuple[str, ...]
    settings: RunSettings
    network: RASegSettings | None = None


@dataclass(frozen=True)
class Pruned:
    """A pruned folder that has been read."""

    folder: Path
    config: PrunedConfig
    weight_masks: dict[str, Tensor]
    hash: str

    @property
    def network(self) -> RASegSettings:
        """The widths of the network that is trained."""
        return self.config.network or self.config.settings.network

    @property
    def note(self) -> str:
        """A sentence for the model card, if the network has fewer channels than its preset."""
        if self.config.network is None:
            return ""
        with torch.device("meta"):
            left, dense = (weight_count(RASeg(s)) for s in (self.network, self.config.settings.network))
        return f"Channels were taken out before training; {left:,} of {dense:,} weights are left."

    def start(self) -> RASeg:
        """The network at the weights it was scored at (those of the control, if one was taken), masked.

        Raises:
            PruningError: They cannot be had again.
        """
        network = build_raseg(self.network, self.config.seed)
        if (self.folder / START).is_file():
            try:
                network.load_state_dict(load_tensors(self.folder / START))
            except RuntimeError as error:
                wrong = f"is not the start of the network that {CONFIG} describes"
                raise PruningError(self.folder / START, wrong, "prune again") from error
        apply_weight_masks(network, self.weight_masks)
        if start_hash(network) != self.config.start_hash:
            wrong = f"was made with other starting weights than torch {torch.__version__} draws"
            raise PruningError(self.folder, wrong, "prune again with this torch")
        return network


def start_hash(network: nn.Module) -> str:
    """One hash for all weights and buffers of a network."""
    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]


def read_pruned(folder: Path) -> Pruned:
    """Read a pruned folder.

    Raises:
        PruningError: It is not whole.
    """
    of_channels = (folder / CHANNELS).is_file()
    chosen = folder / (START if of_channels else MASKS)
    if not (folder / CONFIG).is_file() or not chosen.is_file():
        raise PruningError(folder, "is not a pruned folder", "give a folder that radiogen prune wrote")
    try:
        values = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        config = check_settings(PrunedConfig, values, source=str(folder / CONFIG))
    except (ValueError, TypeError, ConfigError) as error:
        raise PruningError(folder / CONFIG, f"cannot be used: {error}", "prune again") from error
    masks = {} if of_channels else load_weight_masks(folder / MASKS)[0]
    digest = files_hash(chosen, folder / CONFIG)
    return Pruned(folder, config, masks, digest)


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
