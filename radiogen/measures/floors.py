"""The Dice that needs no network: what filling the box of a lesion gives, with and without a threshold.

A network that is shown the box of a lesion has to do better than these.
"""

from math import nan

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
from scipy import ndimage

from radiogen.measures.overlap import label_parts
from radiogen.volume import Box, array_of, bounding_box, crop

TISSUE_HU = (-300.0, 250.0)
FLOORS = ("floor_box", "floor_ellipsoid", "floor_threshold", "floor_threshold_ellipsoid")

Voxels = npt.NDArray[np.bool_]


def floors(reference: sitk.Image, ct: sitk.Image | None) -> dict[str, float]:
    """Dice of four guesses that know the box of every lesion of the reference and nothing else of it.

    The box filled; the ellipsoid that touches its six faces; of either the voxels from -300 to 250 HU.

    Args:
        reference: Mask, all that is not 0 counts.
        ct: HU on the grid of `reference`; without it the floors by threshold are NaN.

    Returns:
        By the names of `FLOORS`; all NaN where the reference is empty, for there is no box.
    """
    box = bounding_box(reference)
    if box is None:
        return dict.fromkeys(FLOORS, nan)
    near = crop(reference, box)
    parts = label_parts(near)
    boxes, ellipsoids = _fill(parts)
    lesion = parts > 0
    found = {"floor_box": _dice(boxes, lesion), "floor_ellipsoid": _dice(ellipsoids, lesion)}
    tissue = None if ct is None else _tissue(ct, box)
    for name, guess in (("floor_threshold", boxes), ("floor_threshold_ellipsoid", ellipsoids)):
        found[name] = nan if tissue is None else _dice(guess & tissue, lesion)
    return found


def _fill(parts: npt.NDArray[np.integer]) -> tuple[Voxels, Voxels]:
    boxes, ellipsoids = np.zeros(parts.shape, np.bool_), np.zeros(parts.shape, np.bool_)
    for where in ndimage.find_objects(parts):
        boxes[where] = True
        ellipsoids[where] |= _ellipsoid([part.stop - part.start for part in where])
    return boxes, ellipsoids


def _ellipsoid(shape: list[int]) -> Voxels:
    """Voxels of a box whose centre lies in the ellipsoid inscribed in it."""
    along = [((np.arange(n) + 0.5) / (n / 2) - 1) ** 2 for n in shape]
    z, y, x = np.ix_(*along)
    return np.asarray(z + y + x <= 1)


def _tissue(ct: sitk.Image, box: Box) -> Voxels:
    low, high = TISSUE_HU
    hu = array_of(crop(ct, box))
    return np.asarray((hu >= low) & (hu <= high))


def _dice(guess: Voxels, lesion: Voxels) -> float:
    return float(2 * np.count_nonzero(guess & lesion) / (np.count_nonzero(guess) + np.count_nonzero(lesion)))
