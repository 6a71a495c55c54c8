"""Deep features: the feature maps of RA-Seg inside and round a lesion, pooled to one row of numbers."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, product

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from radiogen.errors import ConfigError
from radiogen.features.regions import Voxels, bounds
from radiogen.features.settings import LEVELS
from radiogen.model.folder import Model
from radiogen.model.network_input import NetworkInput, to_array
from radiogen.networks.kernels import fast_cpu
from radiogen.networks.raseg import SIZE_STEP
from radiogen.volume import FloatArray, array_of

KINDS = ("mean", "std", "max")
Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class FeatureWindow:
    """One input of the network, cut out of a case, with the regions whose feature maps are pooled."""

    key: str  # lesion and repeat, or another name under which the pooled numbers are returned
    regions: Mapping[str, FloatArray]  # name -> 0/1 in the window, (D, H, W)
    prior: FloatArray  # in the window, [0, 1]
    start: tuple[int, int, int]  # in the case; the window may reach over its edges
    size: tuple[int, int, int]


def _cut_window(
    key: str, regions: Mapping[str, Voxels], prior: FloatArray, start: Sequence[int], size: Sequence[int]
) -> FeatureWindow:
    in_window = {name: cut(voxels.astype(np.float32), start, size) for name, voxels in regions.items()}
    (z, y, x), (d, h, w) = start, size
    return FeatureWindow(key, in_window, cut(prior, start, size), (z, y, x), (d, h, w))


def make_prior(model: Model, sample: NetworkInput, region: Voxels) -> FloatArray:
    """Return the box round a region if the model knows boxes, else the lungs, else ones everywhere."""
    if "box" in model.config.priors:
        box = np.zeros(region.shape, np.float32)
        low, high = bounds(region)
        box[tuple(slice(first, last) for first, last in zip(low, high, strict=True))] = 1.0
        return box
    if "lungs" in model.config.priors:
        lungs: FloatArray = (array_of(sample.lungs) != 0).astype(np.float32)
        return lungs
    return np.ones(region.shape, np.float32)


def window_round(
    key: str, regions: Mapping[str, Voxels], prior: FloatArray, min_size: Sequence[int]
) -> FeatureWindow:
    """Return the window round some regions: of the network's size, larger only where they need it.

    It is moved into the case where it would reach over an edge and the case is large enough.
    """
    low, high = bounds(np.logical_or.reduce(list(regions.values())))
    start, size = [], []
    for first, last, smallest, length in zip(low, high, min_size, prior.shape, strict=True):
        width = max(int(smallest), -(-(last - first) // SIZE_STEP) * SIZE_STEP)
        centred = (first + last) // 2 - width // 2
        start.append(min(max(centred, 0), length - width) if width <= length else (length - width) // 2)
        size.append(width)
    return _cut_window(key, regions, prior, start, size)


def tile_region(
    key: str, name: str, voxels: Voxels, prior: FloatArray, size: tuple[int, int, int]
) -> list[FeatureWindow]:
    """Return windows side by side that together hold a large region, each voxel in one of them."""
    low, high = bounds(voxels)
    starts = [range(first, last, width) for first, last, width in zip(low, high, size, strict=True)]
    tiles = []
    for start in product(*starts):
        tile = tuple(slice(first, first + width) for first, width in zip(start, size, strict=True))
        if voxels[tile].any():
            tiles.append(_cut_window(key, {name: voxels}, prior, start, size))
    return tiles


def run_windows(
    model: Model, sample: NetworkInput, windows: Sequence[FeatureWindow], levels: Sequence[str], batch: int
) -> Iterator[tuple[FeatureWindow, dict[str, Tensor]]]:
    """Run the network over windows, up to `batch` of one size at once, in the order of their sizes.

    Yields:
        A window with its feature maps by level, (C, d, h, w), on the device of the network.

    Raises:
        ConfigError: The network has no such level.
    """
    image = to_array(sample, model.config.preprocessing)
    device = next(model.network.parameters()).device
    # faster layers with the same weights; other devices have kernels of their own
    if device.type == "cpu":
        fast_cpu(model.network)
    # sorted, so that windows of one size come together and fill the batches
    ordered = sorted(windows, key=lambda window: window.size)
    for group in _batches(ordered, batch):
        images = np.stack([np.stack([cut(c, each.start, each.size) for c in image]) for each in group])
        priors = np.stack([each.prior[None] for each in group])
        with torch.inference_mode():
            outputs = model.network.levels(
                torch.from_numpy(images).to(device, non_blocking=True),
                torch.from_numpy(priors).to(device, non_blocking=True),
            )
        for level in levels:
            if level not in outputs:
                raise ConfigError(
                    f"level {level}", "is not part of RA-Seg", f"there are {', '.join(outputs)}"
                )
        for number, window in enumerate(group):
            yield window, {level: outputs[level][number] for level in levels}


def _batches(windows: Sequence[FeatureWindow], batch: int) -> Iterator[Sequence[FeatureWindow]]:
    """Yield up to `batch` neighbours of one size at a time."""
    for _, alike in groupby(windows, key=lambda window: window.size):
        same_size = list(alike)
        for start in range(0, len(same_size), batch):
            yield same_size[start : start + batch]


def cut(array: FloatArray, start: Sequence[int], size: Sequence[int]) -> FloatArray:
    """Return a part of an array that may reach over its edges, where it is 0.

    >>> cut(np.arange(4, dtype=np.float32).reshape(1, 1, 4), (0, 0, 2), (1, 1, 3))
    array([[[2., 3., 0.]]], dtype=float32)
    """
    part = np.zeros(tuple(size), np.float32)
    inside, source = [], []
    for first, width, length in zip(start, size, array.shape, strict=True):
        low, high = max(0, first), min(length, first + width)
        source.append(slice(low, high))
        inside.append(slice(low - first, high - first))
    part[tuple(inside)] = array[tuple(source)]
    return part


class RegionStatistics:
    """Mean, standard deviation and maximum of every channel over a region that comes in several windows.

    At a level's resolution a cell counts by the share of it that lies in the region, so that a region smaller
    than a cell is not lost; the maximum is over all cells that it touches.
    """

    def __init__(self) -> None:
        self.weight = 0.0
        self.total: Values = np.zeros(0)
        self.squares: Values = np.zeros(0)
        self.highest: Values = np.zeros(0)

    def add(self, output: Tensor, inside: Tensor) -> None:
        """Add a feature map (C, d, h, w) under a region given as 0/1 at full resolution (D, H, W)."""
        d, h, w = output.shape[1:]
        share = functional.adaptive_avg_pool3d(inside[None], (d, h, w))[0]
        touched = share > 0
        if not touched.any():
            return
        # sums in double precision: thousands of cells are added up over several windows
        weights = share[touched].cpu().numpy().astype(np.float64)
        values = output[:, touched.to(output.device)].float().cpu().numpy().astype(np.float64)  # (C, n)
        if not self.weight:
            self.total = np.zeros(len(values))
            self.squares = np.zeros(len(values))
            self.highest = np.full(len(values), -np.inf)
        self.weight += float(weights.sum())
        self.total += values @ weights
        self.squares += values**2 @ weights
        self.highest = np.maximum(self.highest, values.max(axis=1))

    def result(self, channels: int) -> dict[str, Values]:
        """Return the statistics by kind, one number a channel; NaN for a region that was in no window."""
        if not self.weight:
            return dict.fromkeys(KINDS, np.full(channels, np.nan))
        mean = self.total / self.weight
        variance = np.maximum(self.squares / self.weight - mean**2, 0.0)
        return {"mean": mean, "std": np.sqrt(variance), "max": self.highest}


def deep_features(
    model: Model,
    sample: NetworkInput,
    windows: Sequence[FeatureWindow],
    levels: Sequence[str] = LEVELS,
    batch: int = 1,
) -> dict[str, dict[str, float]]:
    """Pool every channel of some levels over the regions of each window.

    Args:
        model: A loaded model.
        sample: The case on the network's grid.
        windows: What the network is run on; those with the same key and region are pooled together.
        levels: Names of `RASeg.levels`.
        batch: Windows of one size that go through the network at once.

    Returns:
        key -> `deep_<region_><level>_<mean|std|max>_<channel>` -> number, in the order of the windows.

    Raises:
        ConfigError: The network has no such level.
    """
    pooled = {
        (window.key, name, level): RegionStatistics()
        for window in windows
        for name in window.regions
        for level in levels
    }
    channels: dict[str, int] = {}
    for window, outputs in run_windows(model, sample, windows, levels, batch):
        for name, voxels in window.regions.items():
            inside = torch.from_numpy(voxels)
            for level, output in outputs.items():
                pooled[window.key, name, level].add(output, inside)
                channels[level] = output.shape[0]
    features: dict[str, dict[str, float]] = {window.key: {} for window in windows}
    for (key, name, level), statistics in pooled.items():
        stem = f"deep_{name}_{level}" if name else f"deep_{level}"
        for kind, values in statistics.result(channels[level]).items():
            for channel, value in enumerate(values):
                features[key][f"{stem}_{kind}_{channel:03d}"] = float(value)
    return features


def paper_features(model: Model, sample: NetworkInput, lesions: Voxels) -> dict[str, float]:
    """Return the published features: decoder 2's output of the whole lungs, averaged over rows and columns.

    64 channels x 128 slices = 8192 numbers for the published network. The lesions only decide the box that
    the network gets as prior, one round all of them.

    Raises:
        ConfigError: The model does not squeeze the lungs into one size, so the numbers would not line up.
    """
    if model.config.preprocessing.layout != "squeeze":
        raise ConfigError("--paper", "needs a model of layout squeeze", "train with --preset paper")
    d, h, w = lesions.shape
    prior = make_prior(model, sample, lesions)
    window = FeatureWindow("paper", {}, prior, start=(0, 0, 0), size=(d, h, w))
    _, outputs = next(run_windows(model, sample, [window], ["decoder2"], batch=1))  # (C, D/2, H/2, W/2)
    flat = outputs["decoder2"].float().mean(dim=(2, 3)).flatten().cpu().numpy()
    return {f"deep_paper_{i:04d}": float(value) for i, value in enumerate(flat)}
