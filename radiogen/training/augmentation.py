"""How a patch is changed before it is learned from: what another scanner would have made of it, in HU."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from pydantic import Field

from radiogen.config import Settings
from radiogen.volume import FloatArray

Chance = np.random.Generator
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


def disturb(
    hu: FloatArray, spacing_mm: Sequence[float], augmentation: Augmentation, chance: Chance
) -> FloatArray:
    """A patch as another kernel, slice thickness, dose and calibration would show it.

    Args:
        hu: Shape (D, H, W), HU.
        spacing_mm: Of the voxels, (x, y, z).
        augmentation: How much.
        chance: Decides alone what is drawn; each kind has its own stream, so that one switched off
            leaves the others as they were.
    """
    kernel, thick, dose, noise, level = chance.spawn(5)
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
    hu: FloatArray, spacing_mm: Sequence[float], augmentation: Augmentation, chance: Chance
) -> FloatArray:
    """A softer or a sharper reconstruction: blurred in plane, or its in-plane detail added once more."""
    if chance.random() >= augmentation.kernel:
        return hu
    sharper = chance.random() < 0.5
    strength = chance.uniform(0.0, augmentation.sharpen if sharper else augmentation.blur_mm)
    if not strength:
        return hu
    width_mm = 1.5 * min(spacing_mm[:2]) if sharper else strength  # the detail of one or two voxels
    x_step, y_step = spacing_mm[:2]
    smooth = along(hu, gaussian_rows(hu.shape[2], width_mm / x_step), axis=2)
    smooth = along(smooth, gaussian_rows(hu.shape[1], width_mm / y_step), axis=1)
    return np.asarray(hu + np.float32(strength) * (hu - smooth), np.float32) if sharper else smooth


def thicker_slices(hu: FloatArray, step_mm: float, augmentation: Augmentation, chance: Chance) -> FloatArray:
    """What thick slices would have kept: means over a thickness, and straight lines between their middles."""
    if chance.random() >= augmentation.thick:
        return hu
    thickness = chance.uniform(0.0, augmentation.thickness_mm) / step_mm
    start = chance.uniform(-0.5, 0.5)
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


def lower_dose(hu: FloatArray, augmentation: Augmentation, chance: Chance) -> FloatArray:
    """Noise that neighbours in a slice share, as filtered back-projection leaves it."""
    if chance.random() >= augmentation.dose:
        return hu
    strength, width = chance.uniform(0.0, augmentation.dose_hu), chance.uniform(*SHARED_NOISE)
    if not strength:
        return hu
    noise = chance.standard_normal(hu.shape, dtype=np.float32)
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
