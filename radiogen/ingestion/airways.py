"""Find windpipe and main bronchi in the air that the body encloses."""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
from scipy import ndimage

AIR_BELOW_HU = (-900.0, -930.0, -950.0, -970.0)  # stricter where a lenient one leaks into the lung
WINDPIPE_MM2 = (40.0, 900.0)  # cross section
LARGEST_ML = 120.0  # windpipe and main bronchi hold less
SHORTEST_MM = 30.0
OFF_MIDLINE_MM = 35.0
WALL_MM = 3.0

BoolArray = npt.NDArray[np.bool_]


def find_airways(
    hu: npt.NDArray[np.float32], air: BoolArray, spacing_mm: Sequence[float], midline: float
) -> BoolArray:
    """Windpipe and main bronchi with their walls.

    Args:
        hu: CT of about 2 mm, shape (z, y, x), z to the head.
        air: Air that the body encloses, same shape.
        spacing_mm: In the order (x, y, z).
        midline: Column of the spine.

    Returns:
        Same shape; empty if no windpipe is seen, as in a scan of the lower chest.
    """
    voxel_ml = float(np.prod(spacing_mm)) / 1000
    labelled = [ndimage.label(air & (hu < below))[0] for below in AIR_BELOW_HU]
    tried = np.zeros_like(air)
    for seed in _round_holes(hu, air, spacing_mm, midline):
        if tried[seed]:
            continue
        for labels in labelled:
            grown = labels == labels[seed] if labels[seed] else np.zeros_like(air)
            if grown.sum() * voxel_ml <= LARGEST_ML:
                break
        else:
            grown = _tube(hu, air, seed, spacing_mm)
        tried |= grown
        length_mm = grown.any(axis=(1, 2)).sum() * spacing_mm[2]
        if length_mm >= min(SHORTEST_MM, 0.5 * len(hu) * spacing_mm[2]):
            return _widen(grown, spacing_mm)
    return np.zeros_like(air)


def _round_holes(
    hu: npt.NDArray[np.float32], air: BoolArray, spacing_mm: Sequence[float], midline: float
) -> Iterator[tuple[int, int, int]]:
    """Middles (z, y, x) of round holes near the midline that look like a windpipe, from the head down."""
    pixel_mm2 = spacing_mm[0] * spacing_mm[1]
    for k in range(len(hu) - 1, -1, -1):
        labels, _ = ndimage.label(air[k])
        for label, place in enumerate(ndimage.find_objects(labels), start=1):
            hole = labels[place] == label
            area = float(hole.sum()) * pixel_mm2
            sides = [n * mm for n, mm in zip(hole.shape, spacing_mm[1::-1], strict=True)]
            center_y, center_x = ndimage.center_of_mass(hole)
            y, x = round(place[0].start + center_y), round(place[1].start + center_x)
            is_round = max(sides) < 2.5 * min(sides) and area > 0.5 * sides[0] * sides[1]
            is_central = abs(x - midline) * spacing_mm[0] < OFF_MIDLINE_MM
            is_air = labels[y, x] == label and hu[k, y, x] < AIR_BELOW_HU[0]
            if WINDPIPE_MM2[0] <= area <= WINDPIPE_MM2[1] and is_round and is_central and is_air:
                yield k, y, x


def _tube(
    hu: npt.NDArray[np.float32], air: BoolArray, seed: tuple[int, int, int], spacing_mm: Sequence[float]
) -> BoolArray:
    """The windpipe alone, followed downwards slice by slice while its cross section stays small."""
    tube = np.zeros_like(air)
    above = np.zeros(air.shape[1:], dtype=bool)
    above[seed[1:]] = True
    for k in range(seed[0], -1, -1):
        labels, _ = ndimage.label(air[k] & (hu[k] < AIR_BELOW_HU[1]))
        met = np.setdiff1d(labels[above], 0)
        here = np.isin(labels, met) & (labels > 0)
        if not here.any() or here.sum() * spacing_mm[0] * spacing_mm[1] > WINDPIPE_MM2[1]:
            break
        tube[k] = above = here
    return tube


def _widen(airways: BoolArray, spacing_mm: Sequence[float]) -> BoolArray:
    if not airways.any():
        return airways
    distance = ndimage.distance_transform_edt(~airways, sampling=tuple(spacing_mm)[::-1])
    return np.asarray(distance <= WALL_MM)
