"""Deep features: what RA-Seg computes inside and round a lesion, pooled to one row of numbers."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from radiogen.model.folder import Model
from radiogen.errors import ConfigError
from radiogen.features.regions import Voxels
from radiogen.features.views import View, prior_of, run_views
from radiogen.model.network_input import NetworkInput

LEVELS = ("encoder2", "decoder3", "decoder2")
KINDS = ("mean", "std", "max")

Values = npt.NDArray[np.float64]


class Pool:
    """Mean, standard deviation and maximum of every channel over a region that comes in pieces.

    At a level's size a cell counts by the share of it that lies in the region, so that no region is lost
    by its size; the maximum is over all cells that it touches.
    """

    def __init__(self) -> None:
        self.weight = 0.0
        self.total: Values = np.zeros(0)
        self.squares: Values = np.zeros(0)
        self.highest: Values = np.zeros(0)

    def add(self, output: Tensor, inside: Tensor) -> None:
        """Take in (C, d, h, w) under a region given as 0/1 at full size (D, H, W)."""
        d, h, w = output.shape[1:]
        share = functional.adaptive_avg_pool3d(inside[None], (d, h, w))[0]
        touched = share > 0
        if not touched.any():
            return
        weights = share[touched].cpu().numpy().astype(np.float64)
        values = output[:, touched.to(output.device)].float().cpu().numpy().astype(np.float64)  # (C, n)
        if not self.weight:
            self.total, self.squares = np.zeros((2, len(values)))
            self.highest = np.full(len(values), -np.inf)
        self.weight += float(weights.sum())
        self.total += values @ weights
        self.squares += values**2 @ weights
        self.highest = np.maximum(self.highest, values.max(axis=1))

    def result(self, channels: int) -> dict[str, Values]:
        """The three, one number a channel; NaN for a region that was nowhere."""
        if not self.weight:
            return dict.fromkeys(KINDS, np.full(channels, np.nan))
        mean = self.total / self.weight
        variance = np.maximum(self.squares / self.weight - mean**2, 0.0)
        return {"mean": mean, "std": np.sqrt(variance), "max": self.highest}


def deep_features(
    model: Model, sample: NetworkInput, views: Sequence[View], levels: Sequence[str] = LEVELS, batch: int = 1
) -> dict[str, dict[str, float]]:
    """Pool every channel of some levels over the regions of each view.

    Args:
        model: A loaded model.
        sample: The case on the network's grid.
        views: The windows; those with the same key and region are pooled together.
        levels: Names of `RASeg.levels`.
        batch: Windows of one size that go through the network at once.

    Returns:
        key -> `deep_<region_><level>_<mean|std|max>_<channel>` -> number, in the order of the views.

    Raises:
        ConfigError: The network has no such level.
    """
    pools = {(view.key, name, level): Pool() for view in views for name in view.regions for level in levels}
    channels: dict[str, int] = {}
    for view, outputs in run_views(model, sample, views, levels, batch):
        for name, voxels in view.regions.items():
            inside = torch.from_numpy(voxels)
            for level, output in outputs.items():
                pools[view.key, name, level].add(output, inside)
                channels[level] = output.shape[0]
    features: dict[str, dict[str, float]] = {view.key: {} for view in views}
    for (key, name, level), pool in pools.items():
        stem = f"deep_{name}_{level}" if name else f"deep_{level}"
        features[key] |= _named(stem, pool.result(channels[level]))
    return features


def _named(stem: str, pooled: Mapping[str, Values]) -> dict[str, float]:
    return {
        f"{stem}_{kind}_{channel:03d}": float(value)
        for kind, values in pooled.items()
        for channel, value in enumerate(values)
    }


def paper_features(model: Model, sample: NetworkInput, lesions: Voxels) -> dict[str, float]:
    """The published features: decoder 2's output of the whole lungs, averaged over rows and columns.

    64 channels x 128 slices = 8192 numbers for the published network; the lesions give no more than the box
    that the network is shown, one round all of them.

    Raises:
        ConfigError: The model does not press the lungs into one size, so the numbers would not line up.
    """
    if model.config.preprocessing.layout != "squeeze":
        raise ConfigError("--paper", "needs a model of layout squeeze", "train with --preset paper")
    size = lesions.shape
    prior = prior_of(model, sample, lesions)
    view = View("paper", {}, prior, (0, 0, 0), (size[0], size[1], size[2]))
    _, outputs = next(run_views(model, sample, [view], ["decoder2"], batch=1))  # (C, D/2, H/2, W/2)
    flat = outputs["decoder2"].float().mean(dim=(2, 3)).flatten().cpu().numpy()
    return {f"deep_paper_{i:04d}": float(value) for i, value in enumerate(flat)}
