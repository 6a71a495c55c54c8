"""Lay the true lesion of a crop into the lungs of a scan: a crop holds too little of its surroundings.

What surrounds the lesion in the crop fades into the scan over a few millimetres. Walls and vessels of the
crop stay behind: they would end in the middle of the lung. Beyond a cut face its last slice fades out.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from radiogen.training.prepared import PreparedCase, read_close_up
from radiogen.training.synthetic_lesions import LEAST_VOXELS, AddedLesion
from radiogen.volume import FloatArray

BoolArray = npt.NDArray[np.bool_]
MARGIN_MM = 8.0  # of the crop that is taken round the lesion
KEPT_MM = (0.5, 1.5)  # round the lesion: as the crop shows it, with the blur of its own scanner
FADED_MM = (2.0, 4.0)  # over which the crop fades into the scan
WALL_HU = -300.0  # denser than lung and no lesion: a wall or a vessel of the crop
SCALE = 0.15  # largest change of a lesion's size, as a natural logarithm
ATTEMPTS = 8
LEAST_IN_LUNGS = 0.6  # share of the lesion
AERATED_HU = -500.0  # mean of the scan where the lesion is laid


@dataclass(frozen=True)
class LesionCrop:
    """A lesion and what is round it; arrays (d, h, w)."""

    hu: FloatArray
    lesion: BoolArray
    spacing_mm: tuple[float, float, float]  # (x, y, z)


def draw_crop(case: PreparedCase, label: int, rng: np.random.Generator) -> LesionCrop:
    """Read a lesion of a crop on the network's grid, mirrored, and larger or smaller, as drawn."""
    margins = [int(np.ceil(MARGIN_MM / step)) for step in case.spacing_mm[::-1]]
    first, shape = [], []
    for edge, margin in zip(case.lesion_boxes[label], margins, strict=True):
        first.append(edge.start - margin)
        shape.append(edge.stop - edge.start + 2 * margin)
    d, h, w = shape
    hu = read_close_up(case, "hu", first, (d, h, w)).astype(np.float32)
    lesion = read_close_up(case, "lesion", first, (d, h, w)) == label
    for axis, (start, length) in enumerate(zip(first, case.shape, strict=True)):
        # The lesion ends where the crop does; only its surroundings are repeated.
        outside = np.arange(start, start + lesion.shape[axis])
        beyond = np.flatnonzero((outside < 0) | (outside >= length))
        lesion[tuple(beyond if a == axis else slice(None) for a in range(3))] = False
    axes = tuple(axis for axis in range(3) if rng.random() < 0.5)
    scale = float(np.exp(rng.uniform(-SCALE, SCALE)))
    hu, lesion = np.flip(hu, axes), np.flip(lesion, axes)
    x_mm, y_mm, z_mm = (scale * step for step in case.spacing_mm)
    return LesionCrop(hu, lesion, (x_mm, y_mm, z_mm))


def on_spacing(crop: LesionCrop, spacing_mm: tuple[float, float, float]) -> LesionCrop:
    """Return a crop in voxels of another size."""
    factors = [old / new for old, new in zip(crop.spacing_mm[::-1], spacing_mm[::-1], strict=True)]
    hu = ndimage.zoom(crop.hu, factors, order=1, mode="nearest", grid_mode=True)
    share = ndimage.zoom(crop.lesion.astype(np.float32), factors, order=1, mode="nearest", grid_mode=True)
    return LesionCrop(hu, share >= 0.5, spacing_mm)


def lay_crop(
    hu: FloatArray,
    lungs: BoolArray,
    taken: BoolArray,
    spacing_mm: tuple[float, float, float],
    crop: LesionCrop,
    rng: np.random.Generator,
) -> AddedLesion | None:
    """Lay the lesion of a crop into a patch of a scan, centred anywhere in its lungs.

    Args:
        hu: The patch (D, H, W), HU; it stays as it is.
        lungs: Lung mask of the patch.
        taken: Lesions of the patch, which the new one does not touch.
        spacing_mm: Of the patch, (x, y, z): larger voxels show the lesion smaller.
        crop: The lesion.
        rng: Decides place and fading.

    Returns:
        The patch with the lesion; None where no aerated place was found.
    """
    crop = on_spacing(crop, spacing_mm)
    weight = _draw_weight(crop, spacing_mm, rng)
    places = np.flatnonzero(lungs)
    if not len(places) or np.count_nonzero(crop.lesion) < LEAST_VOXELS:
        return None
    for _ in range(ATTEMPTS):
        center = np.unravel_index(int(rng.choice(places)), hu.shape)
        first = np.array(center) - np.array(crop.hu.shape) // 2
        low, high = np.maximum(first, 0), np.minimum(first + crop.hu.shape, hu.shape)
        z, y, x = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
        own = tuple(slice(int(a), int(b)) for a, b in zip(low - first, high - first, strict=True))
        lesion = crop.lesion[own]
        if np.count_nonzero(lesion) < LEAST_VOXELS or (lesion & taken[z, y, x]).any():
            continue
        is_aerated = hu[z, y, x][lesion].mean() < AERATED_HU
        if not is_aerated or lungs[z, y, x][lesion].mean() < LEAST_IN_LUNGS:
            continue
        painted = hu.copy()
        painted[z, y, x] += weight[own] * (crop.hu[own] - painted[z, y, x])
        mask = np.zeros(hu.shape, bool)
        mask[z, y, x] = lesion
        return AddedLesion(painted, mask, "crop")
    return None


def _draw_weight(
    crop: LesionCrop, spacing_mm: tuple[float, float, float], rng: np.random.Generator
) -> FloatArray:
    """Return the share of the crop in each of its voxels: 1 in the lesion and close to it, then less."""
    step = spacing_mm[::-1]
    distance = ndimage.distance_transform_edt(~crop.lesion, sampling=step)
    weight = np.clip((rng.uniform(*KEPT_MM) - distance) / rng.uniform(*FADED_MM) + 1, 0, 1)
    weight[(crop.hu > WALL_HU) & (distance > max(step))] = 0
    return np.asarray(weight, np.float32)
