"""Deep features: what RA-Seg computes inside and round a lesion, pooled to one row of numbers."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from radiogen.errors import ConfigError
from radiogen.features.regions import Voxels, bounds
from radiogen.model.folder import Model
from radiogen.model.network_input import NetworkInput, to_array
from radiogen.networks.kernels import fast_cpu
from radiogen.networks.raseg import SIZE_STEP
from radiogen.volume import FloatArray, array_of


@dataclass(frozen=True)
class View:
    """One window: the voxels that are pooled from it by their name, and where the network is told to look."""

    key: str  # whose window it is
    regions: Mapping[str, FloatArray]  # 0/1 in the window, (D, H, W)
    prior: FloatArray  # in the window, [0, 1]
    start: tuple[int, int, int]  # in the case; the window may reach over its edges
    size: tuple[int, int, int]


def _view(
    key: str, regions: Mapping[str, Voxels], prior: FloatArray, start: Sequence[int], size: Sequence[int]
) -> View:
    pieces = {name: cut(voxels.astype(np.float32), start, size) for name, voxels in regions.items()}
    (z, y, x), (d, h, w) = start, size
    return View(key, pieces, cut(prior, start, size), (z, y, x), (d, h, w))


def prior_of(model: Model, sample: NetworkInput, looked_at: Voxels) -> FloatArray:
    """The box round what is looked at if the model knows boxes, else the lungs, else ones everywhere."""
    if "box" in model.config.priors:
        box = np.zeros(looked_at.shape, np.float32)
        (a, c, e), (b, d, f) = bounds(looked_at)
        box[a:b, c:d, e:f] = 1.0
        return box
    if "lungs" in model.config.priors:
        lungs: FloatArray = (array_of(sample.lungs) != 0).astype(np.float32)
        return lungs
    return np.ones(looked_at.shape, np.float32)


def view_of(key: str, regions: Mapping[str, Voxels], prior: FloatArray, least: Sequence[int]) -> View:
    """The window round some regions: of the network's size, larger only where they need it.

    It is moved into the case where it would reach over an edge and the case is large enough.
    """
    low, high = bounds(np.logical_or.reduce(list(regions.values())))
    start, size = [], []
    for first, last, wanted, length in zip(low, high, least, prior.shape, strict=True):
        width = max(int(wanted), -(-(last - first) // SIZE_STEP) * SIZE_STEP)
        middle = (first + last) // 2 - width // 2
        start.append(min(max(middle, 0), length - width) if width <= length else (length - width) // 2)
        size.append(width)
    return _view(key, regions, prior, start, size)


def tiles_of(
    key: str, name: str, voxels: Voxels, prior: FloatArray, size: tuple[int, int, int]
) -> list[View]:
    """Windows side by side that together hold a large region, each voxel in one of them."""
    low, high = bounds(voxels)
    starts = [range(first, last, width) for first, last, width in zip(low, high, size, strict=True)]
    tiles = []
    for z, y, x in product(*starts):
        piece = tuple(slice(first, first + width) for first, width in zip((z, y, x), size, strict=True))
        if voxels[piece].any():
            tiles.append(_view(key, {name: voxels}, prior, (z, y, x), size))
    return tiles


def run_views(
    model: Model, sample: NetworkInput, views: Sequence[View], levels: Sequence[str], batch: int
) -> Iterator[tuple[View, dict[str, Tensor]]]:
    """Run the network over windows, as many of one size at once as `batch` says, in the order of their sizes.

    Yields:
        A view with its levels (C, d, h, w), on the device of the network.

    Raises:
        ConfigError: The network has no such level.
    """
    image = to_array(sample, model.config.preprocessing)
    device = next(model.network.parameters()).device
    if device.type == "cpu":
        fast_cpu(model.network)
    ordered = sorted(views, key=lambda view: view.size)
    for group in _alike(ordered, batch):
        images = np.stack([np.stack([cut(c, view.start, view.size) for c in image]) for view in group])
        priors = np.stack([view.prior[None] for view in group])
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
        for number, view in enumerate(group):
            yield view, {level: outputs[level][number] for level in levels}


def _alike(views: Sequence[View], most: int) -> Iterator[list[View]]:
    group: list[View] = []
    for view in views:
        if group and (len(group) == most or group[0].size != view.size):
            yield group
            group = []
        group.append(view)
    if group:
        yield group


def cut(array: FloatArray, start: Sequence[int], size: Sequence[int]) -> FloatArray:
    """A piece of an array that may reach over its edges, where it is 0.

    >>> cut(np.arange(4, dtype=np.float32).reshape(1, 1, 4), (0, 0, 2), (1, 1, 3))
    array([[[2., 3., 0.]]], dtype=float32)
    """
    piece = np.zeros(tuple(size), np.float32)
    here, there = [], []
    for first, width, length in zip(start, size, array.shape, strict=True):
        low, high = max(0, first), min(length, first + width)
        there.append(slice(low, high))
        here.append(slice(low - first, high - first))
    piece[tuple(here)] = array[tuple(there)]
    return piece


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
