"""The pruned folder that radiogen prune writes and radiogen train --pruned reads."""

import csv
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import TypeAdapter
from torch import Tensor, nn

from radiogen.config import Settings, check_settings
from radiogen.errors import ConfigError, PruningError
from radiogen.io.tensors import load_tensors
from radiogen.model.folder import WEIGHTS, load_model
from radiogen.networks.raseg import RASeg, RASegSettings, build_raseg, weight_count
from radiogen.provenance import files_hash
from radiogen.pruning.channel_pruning import ChannelRow
from radiogen.pruning.controls import MaskOverlap, overlap, overlap_table
from radiogen.pruning.costs import weight_uses
from radiogen.pruning.layers import LayerRow, layer_table
from radiogen.pruning.paths import find_paths
from radiogen.pruning.prunable import prunable
from radiogen.pruning.settings import WeightMasks
from radiogen.pruning.weight_masks import apply_weight_masks, load_weight_masks
from radiogen.training.settings import RunSettings
from radiogen.training.step import segmentation_loss

MASKS = "weight_masks.safetensors"
CHANNELS = "channel_masks.safetensors"
CONFIG = "config.json"
LAYERS = "layers.csv"
START = "start.safetensors"
LARGEST_FLOW = 64  # voxels of an axis on which the paths of a trained model are followed


class PrunedConfig(Settings):
    """The network that the weight masks belong to; it is drawn anew from the seed.

    If channels were removed there are no weight masks, and `network` has the smaller widths.
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
class PrunedFolder:
    """A pruned folder that has been read."""

    folder: Path
    config: PrunedConfig
    weight_masks: dict[str, Tensor]
    hash: str

    @property
    def network(self) -> RASegSettings:
        """Settings of the network that is trained."""
        return self.config.network or self.config.settings.network

    @property
    def note(self) -> str:
        """Sentence for the model card, if the network has fewer channels than its preset."""
        if self.config.network is None:
            return ""
        with torch.device("meta"):
            left = weight_count(RASeg(self.network))
            dense = weight_count(RASeg(self.config.settings.network))
        return f"Channels were taken out before training; {left:,} of {dense:,} weights are left."

    def start(self) -> RASeg:
        """Return the network at the weights it was scored at (those of the control if there is one), masked.

        Raises:
            PruningError: They cannot be restored.
        """
        network = build_raseg(self.network, self.config.seed)
        if (self.folder / START).is_file():
            try:
                network.load_state_dict(load_tensors(self.folder / START))
            except RuntimeError as error:
                wrong = f"is not the start of the network that {CONFIG} describes"
                raise PruningError(self.folder / START, wrong, "prune again") from error
        apply_weight_masks(network, self.weight_masks)
        # Another torch may draw other numbers from the same seed: masks would then hold other weights.
        if start_hash(network) != self.config.start_hash:
            wrong = f"was made with other starting weights than torch {torch.__version__} draws"
            raise PruningError(self.folder, wrong, "prune again with this torch")
        return network


def start_hash(network: nn.Module) -> str:
    """Return one hash of all weights and buffers of a network."""
    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]


def read_pruned(folder: Path) -> PrunedFolder:
    """Read a pruned folder.

    Raises:
        PruningError: A file is missing or damaged.
    """
    of_channels = (folder / CHANNELS).is_file()
    tensors = folder / (START if of_channels else MASKS)
    if not (folder / CONFIG).is_file() or not tensors.is_file():
        raise PruningError(folder, "is not a pruned folder", "give a folder that radiogen prune wrote")
    try:
        values = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        config = check_settings(PrunedConfig, values, source=str(folder / CONFIG))
    except (ValueError, TypeError, ConfigError) as error:
        raise PruningError(folder / CONFIG, f"cannot be used: {error}", "prune again") from error
    masks = {} if of_channels else load_weight_masks(folder / MASKS)[0]
    digest = files_hash(tensors, folder / CONFIG)
    return PrunedFolder(folder, config, masks, digest)


@dataclass(frozen=True)
class PrunedTable:
    """The settings a network was pruned with, and its layers."""

    about: dict[str, Any]
    layers: list[LayerRow]
    channels: list[ChannelRow] = field(default_factory=list)  # in place of layers, if whole channels left


def count_uses(network: RASegSettings, size: tuple[int, int, int]) -> dict[str, int]:
    """Count how often RA-Seg multiplies each weight in one patch (D, H, W), on the meta device."""
    with torch.device("meta"):
        image, prior = torch.zeros(1, network.in_channels, *size), torch.zeros(1, 1, *size)
        return weight_uses(RASeg(network).eval(), (image, prior))


def show_pruned(folder: Path) -> PrunedTable:
    """Return the layers of a pruned folder, or of a model that was trained with weight masks.

    Raises:
        PruningError: The folder is neither, or damaged.
    """
    if (folder / WEIGHTS).is_file():
        model = load_model(folder, torch.device("cpu"))
        masks, size = _nonzero(model.network), model.config.preprocessing.size
        channels = model.config.network.in_channels
        patch = [torch.ones(1, width, *(min(n, LARGEST_FLOW) for n in size)) for width in (channels, 1, 1)]
        cut = find_paths(model.network, masks, [tuple(patch)], segmentation_loss()).cut
        uses = count_uses(model.config.network, size)
        return PrunedTable({"sparsity": model.config.sparsity}, layer_table(model.network, masks, cut, uses))
    pruned = read_pruned(folder)
    _, about = load_weight_masks(_masks_file(folder))
    about["warmup"] = pruned.config.warmup
    if pruned.config.network:
        del about["sparsity"]
        about.update(about.pop("channels"))
        return PrunedTable(about, [], _read_layers(folder / LAYERS, ChannelRow))
    return PrunedTable(about, _read_layers(folder / LAYERS, LayerRow))


def compare_pruned(first: Path, second: Path) -> tuple[list[MaskOverlap], MaskOverlap]:
    """Count what two choices of weights (or of channels) keep in common, by layer and over all.

    Each is a pruned folder, a file of weight masks, or a model trained with them.

    Raises:
        PruningError: One cannot be read, they are of different networks (the layer is named), or of weights
            and of channels.
    """
    first_masks, second_masks = read_masks(first), read_masks(second)
    # Channels have masks of one axis.
    of_channels = [all(mask.ndim == 1 for mask in masks.values()) for masks in (first_masks, second_masks)]
    if of_channels[0] != of_channels[1]:
        channels, weights = (first, second) if of_channels[0] else (second, first)
        raise PruningError(
            channels, f"keeps channels, {weights.name} weights", "compare two of one --structure"
        )
    return overlap_table(first_masks, second_masks), overlap(first_masks, second_masks)


def read_masks(path: Path) -> WeightMasks:
    """Read weight masks or kept channels of a folder or file, or the weights of a model that are not zero.

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
            return [TypeAdapter(kind).validate_python(row) for row in csv.DictReader(file)]
    except (OSError, ValueError) as error:
        raise PruningError(path, f"cannot be read: {error}", "prune again") from error
