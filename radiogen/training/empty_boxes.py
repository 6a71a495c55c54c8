"""Boxes round tissue that is no lesion, so that a network learns to find nothing in them."""

import numpy as np
import numpy.typing as npt
from scipy.ndimage import binary_dilation

from radiogen.volume import FloatArray

TISSUE_HU = -500.0  # vessels, walls and scars: what a first pass takes for a lesion
NEAR_LUNGS = 3  # voxels
SIDES = (0.6, 1.4)  # of the box, against the wanted size


def empty_box(
    hu: FloatArray,
    lungs: npt.NDArray[np.bool_],
    lesion: npt.NDArray[np.bool_],
    sides: npt.NDArray[np.float64],
    chance: np.random.Generator,
) -> tuple[slice, slice, slice] | None:
    """A box about a voxel of tissue in or at the lungs, clear of every lesion; None if none is found.

    Args:
        hu: The patch, shape (D, H, W), HU.
        lungs: Lung mask of the patch.
        lesion: What the box must not touch.
        sides: Voxels of a box of the wanted size, (z, y, x).
        chance: Decides alone what is drawn.
    """
    tissue = np.flatnonzero((hu > TISSUE_HU) & binary_dilation(lungs, iterations=NEAR_LUNGS) & ~lesion)
    if not len(tissue):
        return None
    middle = np.unravel_index(int(chance.choice(tissue)), hu.shape)
    half = np.maximum(sides * chance.uniform(*SIDES, size=3) / 2, 1)
    z, y, x = (
        slice(max(0, round(at - h)), min(n, round(at + h) + 1))
        for at, h, n in zip(middle, half, hu.shape, strict=True)
    )
    return None if lesion[z, y, x].any() else (z, y, x)
