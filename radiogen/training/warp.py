"""Where each voxel of a patch is read: turned, scaled and bent in one go, so that it is resampled once."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import grid_sample

from radiogen.training.augmentation import Augmentation, Chance, along
from radiogen.volume import FloatArray

Shape = tuple[int, int, int]
CONTROL_MM = 32.0  # between the control points of a bend


@dataclass(frozen=True)
class Reading:
    """The voxels round a patch that have to be read: `low` to `high` from the patch's first voxel."""

    low: Shape
    high: Shape  # the first voxel behind, so that (0, 0, 0) to the patch's size is the patch itself

    @property
    def shape(self) -> Shape:
        d, h, w = (high - low for low, high in zip(self.low, self.high, strict=True))
        return d, h, w

    def moved(self, inset: Shape) -> "Reading":
        """The same voxels, counted from a first voxel that lies further in."""
        low, high = (_shape(np.subtract(ends, inset)) for ends in (self.low, self.high))
        return Reading(low, high)


@dataclass(frozen=True)
class Warp:
    """For each voxel of a patch (D, H, W), the voxel (z, y, x) it comes from; None: from itself."""

    shape: Shape  # of the patch
    reading: Reading
    points: FloatArray | None  # (3, D, H, W), from the first voxel that is read
    zoom: float = 1.0  # how much coarser the patch's voxels are than those of the case

    @property
    def covered(self) -> Shape:
        """The voxels of the case that the patch shows about its middle, fewer than its own if finer."""
        d, h, w = (max(1, int(n * min(self.zoom, 1.0))) for n in self.shape)
        return d, h, w

    @property
    def inset(self) -> Shape:
        """From the first voxel of the patch to the first that it covers."""
        d, h, w = ((n - c) // 2 for n, c in zip(self.shape, self.covered, strict=True))
        return d, h, w

    def hu(self, read: FloatArray) -> FloatArray:
        """The patch of an array in HU of the shape of `reading`: linear between voxels."""
        return read if self.points is None else _sample(read[None], self.points, "bilinear")[0]

    def labels(self, read: Sequence[npt.NDArray[np.int16]]) -> list[npt.NDArray[np.int16]]:
        """The patches of several label arrays of the shape of `reading`: the nearest voxel."""
        if self.points is None:
            return list(read)
        stacked = np.stack(read).astype(np.float32)
        return list(_sample(stacked, self.points, "nearest").astype(np.int16))


def no_warp(shape: Shape) -> Warp:
    """A patch as it lies there."""
    return Warp(shape, Reading((0, 0, 0), shape), None)


def draw_warp(
    shape: Shape,
    spacing_mm: Sequence[float],
    augmentation: Augmentation,
    chance: Chance,
    zoom: float | None = None,
) -> Warp:
    """A turn and scale about the middle of a patch, a zoom, and a smooth bend: each drawn or not.

    Args:
        shape: Of the patch, (D, H, W).
        spacing_mm: Of the voxels, (x, y, z): a sphere stays a sphere when it is turned.
        augmentation: How much.
        chance: Decides alone what is drawn.
        zoom: How much coarser (above 1) or finer the patch is seen; None draws it.
    """
    turning, bending, zooming = chance.spawn(3)
    turns = turning.random() < augmentation.affine and bool(augmentation.rotation_deg or augmentation.scale)
    bends = bending.random() < augmentation.elastic and augmentation.elastic_mm > 0
    if zoom is None:
        zoom = draw_zoom(augmentation, zooming)
    if not turns and not bends and zoom == 1:
        return no_warp(shape)
    step = np.array(spacing_mm[::-1], dtype=np.float64)
    middle = (np.array(shape) - 1) / 2
    matrix = zoom * (turn_and_scale(augmentation, turning) if turns else np.eye(3))
    voxels = (matrix * step) / step[:, None]  # from voxels to voxels, through millimetres
    axes = [np.arange(n) - m for n, m in zip(shape, middle, strict=True)]
    points = np.empty((3, *shape), np.float32)
    for axis in range(3):
        z, y, x = (voxels[axis, i] * axes[i] for i in range(3))
        points[axis] = (z + middle[axis])[:, None, None] + (y[:, None] + x).astype(np.float32)
    if bends:
        shift = bend(shape, step, augmentation.elastic_mm, bending)
        points += shift * (1 / step)[:, None, None, None].astype(np.float32)
    low, high = np.floor(points.min(axis=(1, 2, 3))), np.ceil(points.max(axis=(1, 2, 3))) + 1
    points -= low[:, None, None, None].astype(np.float32)
    return Warp(shape, Reading(_shape(low), _shape(high)), points, zoom)


def draw_zoom(augmentation: Augmentation, chance: Chance) -> float:
    """How much coarser a patch is seen that no box is asked for: mostly not at all."""
    if chance.random() >= augmentation.zoom:
        return 1.0
    return float(np.exp(chance.uniform(0, np.log(augmentation.zoom_most))))


def turn_and_scale(augmentation: Augmentation, chance: Chance) -> npt.NDArray[np.float64]:
    """A rotation times a scale, (3, 3), millimetres (z, y, x) to millimetres."""
    largest = np.deg2rad(augmentation.rotation_deg) * np.array([1.0, 0.5, 0.5])
    matrix = np.eye(3)
    for axis, angle in enumerate(chance.uniform(-largest, largest)):
        first, second = (i for i in range(3) if i != axis)
        turn = np.eye(3)
        turn[first, first] = turn[second, second] = np.cos(angle)
        turn[first, second], turn[second, first] = -np.sin(angle), np.sin(angle)
        matrix = matrix @ turn
    growth = np.log1p(augmentation.scale)
    return np.asarray(matrix * np.exp(chance.uniform(-growth, growth)))


def bend(shape: Shape, step_mm: npt.NDArray[np.float64], largest_mm: float, chance: Chance) -> FloatArray:
    """A smooth shift of each voxel in mm, (3, D, H, W): cubic B-splines over random control points.

    The shift nowhere exceeds `largest_mm` on an axis, since the weights of a B-spline add up to 1.
    """
    weights = [spline_rows(n, step / CONTROL_MM) for n, step in zip(shape, step_mm, strict=True)]
    control = chance.uniform(-largest_mm, largest_mm, (3, *(rows.shape[1] for rows in weights)))
    shift = control.astype(np.float32)
    for axis, rows in enumerate(weights, start=1):
        shift = along(shift, rows, axis)
    return shift


def spline_rows(count: int, step: float) -> npt.NDArray[np.float64]:
    """Weights (count, control points) of a uniform cubic B-spline at `count` places `step` knots apart."""
    at = np.arange(count) * step
    knots = np.arange(-1, int(at[-1]) + 3)
    distance = np.abs(at[:, None] - knots)
    near = 2 / 3 - distance**2 + distance**3 / 2
    far = np.clip(2 - distance, 0, None) ** 3 / 6
    return np.asarray(np.where(distance < 1, near, far))


def _sample(channels: FloatArray, points: FloatArray, mode: str) -> FloatArray:
    last = np.maximum(np.array(channels.shape[1:], np.float32) - 1, 1)
    scaled = points * (2 / last)[:, None, None, None] - 1
    grid = torch.from_numpy(np.ascontiguousarray(np.moveaxis(scaled[::-1], 0, -1), np.float32))
    image = torch.from_numpy(np.ascontiguousarray(channels, np.float32))
    sampled = grid_sample(image[None], grid[None], mode, padding_mode="border", align_corners=True)
    return np.asarray(sampled[0].numpy())


def _shape(values: npt.NDArray[np.float64]) -> Shape:
    d, h, w = (int(value) for value in values)
    return d, h, w
