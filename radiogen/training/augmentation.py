"""Augmentation of patches in HU and millimetres: warps, other scanners, and priors as people draw them.

None of it is MONAI's. `RandAffine` and `Rand3DElastic` resample one after the other (a patch of 48 x 64 x
64 took 65 times as long), and do not tell which voxels they will read, which a lungs-only cohort has to
know before it reads. MONAI's smoothing counts voxels (3.7 times as long), its low resolution shrinks all
axes, its noise has no grain (white noise: 2.2 times as long, processor time on one thread). And `prune`
scores on these patches: its weight masks stay the same to the byte.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from scipy.ndimage import binary_dilation, find_objects
from torch.nn.functional import grid_sample

from radiogen.model.priors import point_prior
from radiogen.training.settings import Augmentation, TrainingSettings
from radiogen.volume import FloatArray

Rng = np.random.Generator
Shape = tuple[int, int, int]
Mask = npt.NDArray[np.bool_]
NOISE_GRAIN = (0.6, 1.5)  # voxels, standard deviation of the smoothing of correlated noise
CONTROL_MM = 32.0  # between the control points of an elastic deformation
TISSUE_HU = -500.0  # vessels, walls and scars: what a first pass takes for a lesion
NEAR_LUNGS = 3  # voxels
EMPTY_BOX_SIDES = (0.6, 1.4)  # of the box, relative to the wanted size
CARELESS_GROWTH = (0.5, 1.5)  # a box far too large: its faces move out by this share of the lesion's width
CARELESS_SHIFT = (0.25, 0.5)  # a box partly beside: shifted by this share of the lesion's width


def augment_intensity(
    hu: FloatArray, spacing_mm: Sequence[float], augmentation: Augmentation, rng: Rng
) -> FloatArray:
    """Return a patch (D, H, W) in HU as another kernel, slice thickness, dose and calibration would show it.

    `spacing_mm` is (x, y, z); `rng` alone decides what is drawn.
    """
    # A stream for each change, so that one switched off leaves the others as they were.
    kernel_rng, thick_rng, dose_rng, noise_rng, scale_rng = rng.spawn(5)
    changed = change_kernel(hu, spacing_mm, augmentation, kernel_rng)
    changed = thicken_slices(changed, spacing_mm[2], augmentation, thick_rng)
    changed = lower_dose(changed, augmentation, dose_rng)
    strength = noise_rng.uniform(0.0, augmentation.noise_hu)
    if strength:
        changed = changed + np.float32(strength) * noise_rng.standard_normal(hu.shape, dtype=np.float32)
    slope = 1.0 + scale_rng.uniform(-augmentation.slope, augmentation.slope)
    shift = scale_rng.normal(0.0, augmentation.shift_hu)
    return np.asarray(changed * np.float32(slope) + np.float32(shift), dtype=np.float32)


def change_kernel(
    hu: FloatArray, spacing_mm: Sequence[float], augmentation: Augmentation, rng: Rng
) -> FloatArray:
    """Return a patch of a softer or a sharper kernel: blurred in plane, or with in-plane detail added."""
    if rng.random() >= augmentation.kernel:
        return hu
    sharper = rng.random() < 0.5
    strength = rng.uniform(0.0, augmentation.sharpen if sharper else augmentation.blur_mm)
    if not strength:
        return hu
    width_mm = 1.5 * min(spacing_mm[:2]) if sharper else strength  # the detail of one or two voxels
    x_step, y_step = spacing_mm[:2]
    smooth = apply_along(hu, gaussian_matrix(hu.shape[2], width_mm / x_step), axis=2)
    smooth = apply_along(smooth, gaussian_matrix(hu.shape[1], width_mm / y_step), axis=1)
    return np.asarray(hu + np.float32(strength) * (hu - smooth), np.float32) if sharper else smooth


def thicken_slices(hu: FloatArray, step_mm: float, augmentation: Augmentation, rng: Rng) -> FloatArray:
    """Return a patch as thick slices show it: means over the thickness, linear between their centres."""
    if rng.random() >= augmentation.thick:
        return hu
    thickness = rng.uniform(0.0, augmentation.thickness_mm) / step_mm  # in slices
    start = rng.uniform(-0.5, 0.5)
    if thickness <= 1.0:
        return hu
    count = hu.shape[0]
    centers = np.arange(start * thickness, count - 1 + thickness, thickness)
    distance = np.abs(centers[:, None] - np.arange(count))
    means = np.clip(thickness / 2 + 0.5 - distance, 0.0, 1.0)  # the share of each slice in a thick one
    used = means.sum(axis=1) > 0
    centers, means = centers[used], means[used]
    means /= means.sum(axis=1, keepdims=True)
    between = np.stack([np.interp(np.arange(count), centers, row) for row in np.eye(len(centers))], axis=1)
    return apply_along(hu, between @ means, axis=0)


def lower_dose(hu: FloatArray, augmentation: Augmentation, rng: Rng) -> FloatArray:
    """Return a patch with noise that neighbours in a slice share, as filtered back-projection leaves it."""
    if rng.random() >= augmentation.dose:
        return hu
    strength, width = rng.uniform(0.0, augmentation.dose_hu), rng.uniform(*NOISE_GRAIN)
    if not strength:
        return hu
    noise = rng.standard_normal(hu.shape, dtype=np.float32)
    for axis in (1, 2):
        weights = gaussian_matrix(hu.shape[axis], width)
        # Rows of length 1 rather than of sum 1: smoothing then keeps the standard deviation at 1.
        noise = apply_along(noise, weights / np.linalg.norm(weights, axis=1, keepdims=True), axis)
    return np.asarray(hu + np.float32(strength) * noise, np.float32)


def gaussian_matrix(count: int, width: float) -> npt.NDArray[np.float64]:
    """Return the matrix (count, count) that smooths `count` samples by a Gaussian of `width` samples."""
    distance = np.arange(count)[:, None] - np.arange(count)
    weights = np.exp(-0.5 * np.square(distance / max(width, 1e-3)))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def apply_along(array: FloatArray, matrix: npt.NDArray[np.float64], axis: int) -> FloatArray:
    """Apply a matrix (new, old) along one axis of an array."""
    moved = np.moveaxis(array, axis, -1) @ matrix.T.astype(np.float32)
    return np.ascontiguousarray(np.moveaxis(moved, -1, axis))


@dataclass(frozen=True)
class SourceRegion:
    """The voxels that a patch is sampled from: `low` to `high`, counted from the patch's first voxel."""

    low: Shape
    high: Shape  # exclusive, so that (0, 0, 0) to the patch's size is the patch itself

    @property
    def shape(self) -> Shape:
        d, h, w = (high - low for low, high in zip(self.low, self.high, strict=True))
        return d, h, w

    def counted_from(self, first: Shape) -> "SourceRegion":
        """Return the same voxels, counted from another voxel of the patch."""
        return SourceRegion(_shape(np.subtract(self.low, first)), _shape(np.subtract(self.high, first)))


@dataclass(frozen=True)
class Warp:
    """A random deformation of a patch: for each of its voxels the point (z, y, x) that it is sampled at.

    Rotation, scale, zoom and elastic deformation are one field of points, so that a patch is resampled once.
    """

    shape: Shape  # of the patch
    region: SourceRegion
    points: FloatArray | None  # (3, D, H, W), from the first voxel of the region; None: no deformation
    zoom: float = 1.0  # size of the patch's voxels relative to those of the case

    @property
    def covered(self) -> Shape:
        """The voxels of the case that the patch shows about its centre, fewer than its own if finer."""
        d, h, w = (max(1, int(n * min(self.zoom, 1.0))) for n in self.shape)
        return d, h, w

    @property
    def inset(self) -> Shape:
        """The offset from the first voxel of the patch to the first that it covers."""
        d, h, w = ((n - c) // 2 for n, c in zip(self.shape, self.covered, strict=True))
        return d, h, w

    def sample(self, channels: npt.NDArray[Any], mode: Literal["bilinear", "nearest"]) -> npt.NDArray[Any]:
        """Return the patches of arrays (C, d, h, w) of the shape of the region."""
        if self.points is None:
            return channels
        last = np.maximum(np.array(channels.shape[1:], np.float32) - 1, 1)
        scaled = self.points * (2 / last)[:, None, None, None] - 1  # grid_sample counts from -1 to 1
        grid = torch.from_numpy(np.ascontiguousarray(np.moveaxis(scaled[::-1], 0, -1), np.float32))
        image = torch.from_numpy(np.ascontiguousarray(channels, np.float32))
        sampled = grid_sample(image[None], grid[None], mode, padding_mode="border", align_corners=True)
        return np.asarray(sampled[0].numpy())


def identity_warp(shape: Shape) -> Warp:
    """Return the warp of a patch that is taken as it is."""
    return Warp(shape, SourceRegion((0, 0, 0), shape), None)


def draw_warp(
    shape: Shape,
    spacing_mm: Sequence[float],
    augmentation: Augmentation,
    rng: Rng,
    zoom: float | None = None,
) -> Warp:
    """Draw rotation and scale about the centre of a patch, a zoom, and an elastic deformation.

    Args:
        shape: Of the patch, (D, H, W).
        spacing_mm: Of the voxels, (x, y, z): rotations are made in millimetres, so that a sphere stays one.
        augmentation: Shares and strengths.
        rng: Decides alone what is drawn.
        zoom: How much coarser (above 1) or finer the voxels of the patch are; None draws it.
    """
    affine_rng, elastic_rng, zoom_rng = rng.spawn(3)
    has_affine = affine_rng.random() < augmentation.affine and bool(
        augmentation.rotation_deg or augmentation.scale
    )
    has_elastic = elastic_rng.random() < augmentation.elastic and augmentation.elastic_mm > 0
    if zoom is None:
        zoom = 1.0
        if zoom_rng.random() < augmentation.zoom:
            zoom = float(np.exp(zoom_rng.uniform(0, np.log(augmentation.zoom_most))))
    if not has_affine and not has_elastic and zoom == 1:
        return identity_warp(shape)
    step = np.array(spacing_mm[::-1], dtype=np.float64)
    center = (np.array(shape) - 1) / 2
    matrix = zoom * (draw_affine(augmentation, affine_rng) if has_affine else np.eye(3))
    voxels = (matrix * step) / step[:, None]  # from voxels to voxels, through millimetres
    axes = [np.arange(n) - m for n, m in zip(shape, center, strict=True)]
    points = np.empty((3, *shape), np.float32)
    for axis in range(3):
        z, y, x = (voxels[axis, i] * axes[i] for i in range(3))
        points[axis] = (z + center[axis])[:, None, None] + (y[:, None] + x).astype(np.float32)
    if has_elastic:
        shift = draw_elastic(shape, step, augmentation.elastic_mm, elastic_rng)
        points += shift * (1 / step)[:, None, None, None].astype(np.float32)
    low, high = np.floor(points.min(axis=(1, 2, 3))), np.ceil(points.max(axis=(1, 2, 3))) + 1
    points -= low[:, None, None, None].astype(np.float32)
    return Warp(shape, SourceRegion(_shape(low), _shape(high)), points, zoom)


def draw_affine(augmentation: Augmentation, rng: Rng) -> npt.NDArray[np.float64]:
    """Draw a rotation times a scale, (3, 3), from millimetres (z, y, x) to millimetres."""
    # A patient lies flat: turned about z more than about the other axes.
    largest = np.deg2rad(augmentation.rotation_deg) * np.array([1.0, 0.5, 0.5])
    matrix = np.eye(3)
    for axis, angle in enumerate(rng.uniform(-largest, largest)):
        first, second = (i for i in range(3) if i != axis)
        rotation = np.eye(3)
        rotation[first, first] = rotation[second, second] = np.cos(angle)
        rotation[first, second], rotation[second, first] = -np.sin(angle), np.sin(angle)
        matrix = matrix @ rotation
    growth = np.log1p(augmentation.scale)
    return np.asarray(matrix * np.exp(rng.uniform(-growth, growth)))


def draw_elastic(shape: Shape, step_mm: npt.NDArray[np.float64], largest_mm: float, rng: Rng) -> FloatArray:
    """Draw a smooth shift of each voxel in mm, (3, D, H, W): cubic B-splines over random control points.

    The shift nowhere exceeds `largest_mm` on an axis, since the weights of a B-spline add up to 1.
    """
    weights = [spline_matrix(n, step / CONTROL_MM) for n, step in zip(shape, step_mm, strict=True)]
    control = rng.uniform(-largest_mm, largest_mm, (3, *(matrix.shape[1] for matrix in weights)))
    shift = control.astype(np.float32)
    for axis, matrix in enumerate(weights, start=1):
        shift = apply_along(shift, matrix, axis)
    return shift


def spline_matrix(count: int, step: float) -> npt.NDArray[np.float64]:
    """Return weights (count, control points) of a uniform cubic B-spline at points `step` knots apart."""
    at = np.arange(count) * step
    knots = np.arange(-1, int(at[-1]) + 3)
    distance = np.abs(at[:, None] - knots)
    near = 2 / 3 - distance**2 + distance**3 / 2
    far = np.clip(2 - distance, 0, None) ** 3 / 6
    return np.asarray(np.where(distance < 1, near, far))


def _shape(values: npt.NDArray[np.float64]) -> Shape:
    d, h, w = (int(value) for value in values)
    return d, h, w


def draw_box(lesion: Mask, training: TrainingSettings, rng: Rng) -> FloatArray:
    """Draw the box around a lesion of a patch as a person would; 1 inside, 0 outside.

    Its faces are shifted (`box_jitter`) and moved out (`box_loosen`); a share of the boxes
    (`box_careless`) is far too large or partly beside the lesion, since people are not careful every time.
    The lesion is that of the patch after the warp, not empty.
    """
    careless: Literal["", "large", "beside"] = ""
    if rng.random() < training.box_careless:
        careless = "large" if rng.random() < 0.5 else "beside"
    widest = training.box_jitter + training.box_loosen
    prior = np.zeros(lesion.shape, np.float32)
    slices = []
    for edge, size in zip(find_objects(lesion.astype(np.uint8))[0], lesion.shape, strict=True):
        width = edge.stop - edge.start
        out_low, out_high = rng.uniform(-training.box_jitter, widest, size=2) * width
        grown, shift = rng.uniform(*CARELESS_GROWTH, size=2) * width, rng.uniform(*CARELESS_SHIFT) * width
        shift *= rng.choice([-1, 1])
        if careless == "large":
            out_low, out_high = grown
        if careless == "beside":
            out_low, out_high = out_low - shift, out_high + shift
        # Where the lesion reaches out of the patch, so does the box, as in a window of `radiogen segment`.
        low = 0 if edge.start == 0 else round(edge.start - out_low)
        high = size if edge.stop == size else round(edge.stop + out_high)
        low = int(np.clip(low, 0, size - 1))
        slices.append(slice(low, int(np.clip(high, low + 1, size))))
    prior[tuple(slices)] = 1.0
    return prior


def draw_point(lesion: Mask, rng: Rng) -> FloatArray:
    """Draw the prior of a click anywhere in the lesion of a patch, which is not empty."""
    inside = np.argwhere(lesion)
    return point_prior(lesion.shape, inside[rng.integers(len(inside))])


def draw_empty_box(
    hu: FloatArray, lungs: Mask, lesion: Mask, sides: npt.NDArray[np.float64], rng: Rng
) -> tuple[slice, slice, slice] | None:
    """Draw a box around tissue in or at the lungs that touches no lesion; None if none is found.

    `hu` is the patch (D, H, W); `sides` is the size of the box in voxels, (z, y, x), before it varies.
    """
    tissue = np.flatnonzero((hu > TISSUE_HU) & binary_dilation(lungs, iterations=NEAR_LUNGS) & ~lesion)
    if not len(tissue):
        return None
    center = np.unravel_index(int(rng.choice(tissue)), hu.shape)
    half = np.maximum(sides * rng.uniform(*EMPTY_BOX_SIDES, size=3) / 2, 1)
    z, y, x = (
        slice(max(0, round(at - h)), min(n, round(at + h) + 1))
        for at, h, n in zip(center, half, hu.shape, strict=True)
    )
    return None if lesion[z, y, x].any() else (z, y, x)


def loosen_mask(lesion: Mask, rng: Rng) -> FloatArray:
    """Return a mask that is up to three voxels too large."""
    rounds = int(rng.integers(0, 4))
    loose = binary_dilation(lesion, iterations=rounds) if rounds else lesion
    return np.asarray(loose, dtype=np.float32)
