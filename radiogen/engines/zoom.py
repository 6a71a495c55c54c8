"""Boxes too large for one window are looked at in coarser voxels, so that the network sees them whole."""

import math
from collections.abc import Sequence

import numpy as np
import SimpleITK as sitk

from radiogen.engines.inference import HalfArray, Inference, Piece, Voxels
from radiogen.engines.scanner_grid import box_of
from radiogen.engines.sliding import NO_LESION, ArrayBox
from radiogen.preprocess.network_input import resample_ct
from radiogen.volume import array_of, crop, grid_with_spacing, resample_to, volume_like

BOX_SHARE = 0.75  # of the window that a box may fill; the rest shows what is round it
MOST_ZOOM = 2.0  # beyond that a window slides over the box


def zoom_for(box: ArrayBox, size: Sequence[int]) -> float:
    """How much coarser the voxels must be for a box to fill no more than `BOX_SHARE` of a window.

    Args:
        box: On the network's grid.
        size: Of the window, (D, H, W).

    >>> zoom_for((slice(0, 20), slice(0, 20), slice(0, 20)), (48, 64, 64))
    1.0
    >>> zoom_for((slice(0, 54), slice(0, 20), slice(0, 20)), (48, 64, 64))
    1.5
    """
    fills = max((edge.stop - edge.start) / length for edge, length in zip(box, size, strict=True))
    return float(min(max(1.0, fills / BOX_SHARE), MOST_ZOOM))


def zoomed(size: Sequence[int], zoom: float) -> tuple[int, ...]:
    """Voxels of the network's grid that a window of coarser voxels covers."""
    return tuple(math.ceil(length * zoom) for length in size)


def look_zoomed(inference: Inference, ct: sitk.Image, prior: Voxels, near: ArrayBox, zoom: float) -> Piece:
    """What the networks say of a box of a case, seen in voxels `zoom` times as large.

    Args:
        inference: The networks.
        ct: The case on the network's grid, HU.
        prior: (d, h, w), of the box: where to look.
        near: The box.
        zoom: 1 looks at the voxels as they are.

    Returns:
        Logits on the voxels of the network's grid, interpolated back.
    """
    if zoom == 1.0:
        return inference.run(sitk.GetArrayViewFromImage(ct), prior, near, prior)
    fine = crop(ct, box_of(near))
    spacing = fine.GetSpacing()
    grid = grid_with_spacing(fine, (spacing[0] * zoom, spacing[1] * zoom, spacing[2] * zoom))
    coarse = resample_ct(fine, grid)
    there = resample_to(volume_like(prior.astype(np.uint8), fine), grid, outside=0, nearest=True)
    where: Voxels = array_of(there) != 0
    d, h, w = where.shape
    seen = inference.run(array_of(coarse), where, (slice(0, d), slice(0, h), slice(0, w)), where)

    def back(values: HalfArray, outside: float) -> HalfArray:
        finer = resample_to(volume_like(values.astype(np.float32), coarse), fine, outside)
        return np.asarray(array_of(finer), np.float16)

    spread = None if seen.spread is None else back(seen.spread, 0.0)
    return Piece(near, back(seen.logits, NO_LESION), spread)
