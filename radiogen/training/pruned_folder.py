"""Pruned folders: what radiogen prune writes and radiogen train --pruned reads."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from radiogen.config import Settings, check_settings
from radiogen.training.presets import RunSettings
from radiogen.errors import ConfigError, PruningError
from radiogen.networks.raseg import RASeg, RASegSettings, build_raseg, weight_count
from radiogen.provenance import files_hash
from radiogen.pruning.mask_files import load_weight_masks
from radiogen.io.tensors import load_tensors
from radiogen.pruning.weight_masks import apply_weight_masks

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
        config = check_settings(PrunedConfig, values, what=str(folder / CONFIG))
    except (ValueError, TypeError, ConfigError) as error:
        raise PruningError(folder / CONFIG, f"cannot be used: {error}", "prune again") from error
    masks = {} if of_channels else load_weight_masks(folder / MASKS)[0]
    digest = files_hash(chosen, folder / CONFIG)
    return Pruned(folder, config, masks, digest)
