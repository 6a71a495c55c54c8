"""How a patch is changed before it is learned from: what another scanner would have made of it, in HU."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch.nn.functional import grid_sample

from radiogen.config import Settings
from radiogen.volume import FloatArray

Rng = np.random.Generator
SHARED_NOISE = (0.6, 1.5)  # voxels over which the noise of a low dose is smoothed, standard deviation


class Augmentation(Settings):
    """What is drawn for each patch anew. A share of 0, or a strength of 0, switches a change off."""

    flip: bool = Field(True, description="each axis turned round in half of the patches")
    affine: float = Field(0.5, ge=0, le=1, description="share of patches that are turned and scaled")
    rotation_deg: float = Field(
        15.0, ge=0, le=90, description="largest turn about z; half of it about x and y"
    )
    scale: float = Field(0.15, ge=0, le=0.5, description="largest growth or shrinkage, a share of the size")
    zoom: float = Field(
        0, ge=0, le=1, description="share of patches seen in coarser voxels, as large boxes are"
    )
    zoom_most: float = Field(1.6, ge=1, le=2, description="how much coarser at most")
    elastic: float = Field(0.3, ge=0, le=1, description="share of patches that are bent")
    elastic_mm: float = Field(
        4.0, ge=0, le=10, description="largest shift of a control point, one each 32 mm"
    )
    kernel: float = Field(
        0.3, ge=0, le=1, description="share of patches that are blurred or sharpened in plane"
    )
    blur_mm: float = Field(1.0, ge=0, description="largest standard deviation of the blur")
    sharpen: float = Field(1.0, ge=0, description="largest share of the detail that is added once more")
    thick: float = Field(0.2, ge=0, le=1, description="share of patches seen in thicker slices")
    thickness_mm: float = Field(5.0, ge=0, description="thickest slice")
    dose: float = Field(0.3, ge=0, le=1, description="share of patches with noise that neighbours share")
    dose_hu: float = Field(40.0, ge=0, description="largest standard deviation of that noise")
    noise_hu: float = Field(25.0, ge=0, description="largest standard deviation of noise of each voxel alone")
    shift_hu: float = Field(20.0, ge=0, description="standard deviation of a shift of the whole patch")
    slope: float = Field(0.03, ge=0, lt=1, description="largest change of what one HU is worth")


def disturb(hu: FloatArray, spacing_mm: Sequence[float], augmentation: Augmentation, rng: Rng) -> FloatArray:
    """A patch as another kernel, slice thickness, dose and calibration would show it.

    Args:
        hu: Shape (D, H, W), HU.
        spacing_mm: Of the voxels, (x, y, z).
        augmentation: How much.
        chance: Decides alone what is drawn; each kind has its own stream, so that one switched off
            leaves the others as they were.
    """
    kernel, thick, dose, noise, level = rng.spawn(5)
    seen = another_kernel(hu, spacing_mm, augmentation, kernel)
    seen = thicker_slices(seen, spacing_mm[2], augmentation, thick)
    seen = lower_dose(seen, augmentation, dose)
    strength = noise.uniform(0.0, augmentation.noise_hu)
    if strength:
        seen = seen + np.float32(strength) * noise.standard_normal(hu.shape, dtype=np.float32)
    slope = 1.0 + level.uniform(-augmentation.slope, augmentation.slope)
    shift = level.normal(0.0, augmentation.shift_hu)
    return np.asarray(seen * np.float32(slope) + np.float32(shift), dtype=np.float32)


def another_kernel(
    hu: FloatArray, spacing_mm: Sequence[float], augmentation: Augmentation, rng: Rng
) -> FloatArray:
    """A softer or a sharper reconstruction: blurred in plane, or its in-plane detail added once more."""
    if rng.random() >= augmentation.kernel:
        return hu
    sharper = rng.random() < 0.5
    strength = rng.uniform(0.0, augmentation.sharpen if sharper else augmentation.blur_mm)
    if not strength:
        return hu
    width_mm = 1.5 * min(spacing_mm[:2]) if sharper else strength  # the detail of one or two voxels
    x_step, y_step = spacing_mm[:2]
    smooth = along(hu, gaussian_rows(hu.shape[2], width_mm / x_step), axis=2)
    smooth = along(smooth, gaussian_rows(hu.shape[1], width_mm / y_step), axis=1)
    return np.asarray(hu + np.float32(strength) * (hu - smooth), np.float32) if sharper else smooth


def thicker_slices(hu: FloatArray, step_mm: float, augmentation: Augmentation, rng: Rng) -> FloatArray:
    """What thick slices would have kept: means over a thickness, and straight lines between their middles."""
    if rng.random() >= augmentation.thick:
        return hu
    thickness = rng.uniform(0.0, augmentation.thickness_mm) / step_mm
    start = rng.uniform(-0.5, 0.5)
    if thickness <= 1.0:
        return hu
    count = hu.shape[0]
    middles = np.arange(start * thickness, count - 1 + thickness, thickness)
    distance = np.abs(middles[:, None] - np.arange(count))
    means = np.clip(thickness / 2 + 0.5 - distance, 0.0, 1.0)
    used = means.sum(axis=1) > 0
    middles, means = middles[used], means[used]
    means /= means.sum(axis=1, keepdims=True)
    between = np.stack([np.interp(np.arange(count), middles, row) for row in np.eye(len(middles))], axis=1)
    return along(hu, between @ means, axis=0)


def lower_dose(hu: FloatArray, augmentation: Augmentation, rng: Rng) -> FloatArray:
    """Noise that neighbours in a slice share, as filtered back-projection leaves it."""
    if rng.random() >= augmentation.dose:
        return hu
    strength, width = rng.uniform(0.0, augmentation.dose_hu), rng.uniform(*SHARED_NOISE)
    if not strength:
        return hu
    noise = rng.standard_normal(hu.shape, dtype=np.float32)
    for axis in (1, 2):
        rows = gaussian_rows(hu.shape[axis], width)
        noise = along(noise, rows / np.linalg.norm(rows, axis=1, keepdims=True), axis)
    return np.asarray(hu + np.float32(strength) * noise, np.float32)


def gaussian_rows(count: int, width: float) -> npt.NDArray[np.float64]:
    """The matrix (count, count) that smooths `count` samples by a Gaussian of `width` samples."""
    distance = np.arange(count)[:, None] - np.arange(count)
    rows = np.exp(-0.5 * np.square(distance / max(width, 1e-3)))
    return np.asarray(rows / rows.sum(axis=1, keepdims=True))


def along(array: FloatArray, rows: npt.NDArray[np.float64], axis: int) -> FloatArray:
    """A matrix (new, old) applied along one axis of an array."""
    turned = np.moveaxis(array, axis, -1) @ rows.T.astype(np.float32)
    return np.ascontiguousarray(np.moveaxis(turned, -1, axis))


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
    rng: Rng,
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
    turning, bending, zooming = rng.spawn(3)
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


def draw_zoom(augmentation: Augmentation, rng: Rng) -> float:
    """How much coarser a patch is seen that no box is asked for: mostly not at all."""
    if rng.random() >= augmentation.zoom:
        return 1.0
    return float(np.exp(rng.uniform(0, np.log(augmentation.zoom_most))))


def turn_and_scale(augmentation: Augmentation, rng: Rng) -> npt.NDArray[np.float64]:
    """A rotation times a scale, (3, 3), millimetres (z, y, x) to millimetres."""
    largest = np.deg2rad(augmentation.rotation_deg) * np.array([1.0, 0.5, 0.5])
    matrix = np.eye(3)
    for axis, angle in enumerate(rng.uniform(-largest, largest)):
        first, second = (i for i in range(3) if i != axis)
        turn = np.eye(3)
        turn[first, first] = turn[second, second] = np.cos(angle)
        turn[first, second], turn[second, first] = -np.sin(angle), np.sin(angle)
        matrix = matrix @ turn
    growth = np.log1p(augmentation.scale)
    return np.asarray(matrix * np.exp(rng.uniform(-growth, growth)))


def bend(shape: Shape, step_mm: npt.NDArray[np.float64], largest_mm: float, rng: Rng) -> FloatArray:
    """A smooth shift of each voxel in mm, (3, D, H, W): cubic B-splines over random control points.

    The shift nowhere exceeds `largest_mm` on an axis, since the weights of a B-spline add up to 1.
    """
    weights = [spline_rows(n, step / CONTROL_MM) for n, step in zip(shape, step_mm, strict=True)]
    control = rng.uniform(-largest_mm, largest_mm, (3, *(rows.shape[1] for rows in weights)))
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
