"""Windows of a case that a network looks at, each told where to look, run in batches."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from torch import Tensor

from radiogen.model.folder import Model
from radiogen.errors import ConfigError
from radiogen.features.regions import Voxels, bounds
from radiogen.networks.raseg import SIZE_STEP
from radiogen.model.network_input import NetworkInput, to_array
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
