"""Boxes are looked at in voxels of a size that suits them: large ones whole, small ones in detail."""

import math
from collections.abc import Sequence

import numpy as np
import SimpleITK as sitk

from radiogen.model.network_input import resample_ct
from radiogen.segmentation.inference import HalfArray, Inference, Piece, Voxels
from radiogen.segmentation.scanner_grid import box_of, grid_region
from radiogen.segmentation.sliding import NO_LESION, ArrayBox
from radiogen.volume import array_of, crop, grid_with_spacing, resample_to, volume_like

LEAST_ZOOM = 0.4  # finer voxels than that are finer than a scanner's own
MOST_ZOOM = 2.0  # beyond that a window slides over the box


def zoom_for(box: ArrayBox, size: Sequence[int], wanted: tuple[float, float] | None) -> float:
    """How much coarser (above 1) or finer the voxels must be for a box to fill a good share of a window.

    Args:
        box: On the network's grid.
        size: Of the window, (D, H, W).
        wanted: The least and the largest share; None leaves the voxels as they are.

    >>> zoom_for((slice(0, 20), slice(0, 20), slice(0, 20)), (48, 64, 64), (0.3, 0.75))
    1.0
    >>> zoom_for((slice(0, 54), slice(0, 20), slice(0, 20)), (48, 64, 64), (0.3, 0.75))
    1.5
    """
    edges = zip(box, size, strict=True)
    return zoom_to_fill(max((edge.stop - edge.start) / length for edge, length in edges), wanted)


def zoom_to_fill(share: float, wanted: tuple[float, float] | None) -> float:
    """The zoom of a box that fills a share of a window, at the longest of its sides against the window's.

    >>> zoom_to_fill(0.15, (0.3, 0.75)), zoom_to_fill(0.9, (0.3, 0.75)), zoom_to_fill(0.9, None)
    (0.5, 1.2, 1.0)
    """
    if wanted is None:
        return 1.0
    least, most = wanted
    zoom = share / most if share > most else min(1.0, share / max(least, 1e-6))
    return round(min(max(zoom, LEAST_ZOOM), MOST_ZOOM), 6)


def zoomed(size: Sequence[int], zoom: float) -> tuple[int, ...]:
    """Voxels of the network's grid that one window of coarser or finer voxels holds."""
    return tuple(max(1, math.floor(length * zoom)) for length in size)


def look_zoomed(
    inference: Inference, ct: sitk.Image, scan: sitk.Image, prior: Voxels, near: ArrayBox, zoom: float
) -> Piece:
    """What the networks say of a box of a case, seen in voxels `zoom` times as large.

    Args:
        inference: The networks.
        ct: The case on the network's grid, HU.
        scan: The case on the scanner's grid, which knows more than `ct` where voxels are finer.
        prior: (d, h, w), of the box: where to look.
        near: The box.
        zoom: 1 looks at the voxels as they are.

    Returns:
        Logits on the voxels of the network's grid, interpolated back; of finer voxels also as they are.
    """
    if zoom == 1.0:
        return inference.run(sitk.GetArrayViewFromImage(ct), prior, near, prior)
    here = crop(ct, box_of(near))
    spacing = here.GetSpacing()
    grid = grid_with_spacing(here, (spacing[0] * zoom, spacing[1] * zoom, spacing[2] * zoom))
    seen_ct = resample_ct(
        here if zoom > 1 else crop(scan, grid_region(here, scan, 2 * max(scan.GetSpacing()))), grid
    )
    there = resample_to(volume_like(prior.astype(np.uint8), here), grid, outside=0, nearest=True)
    where: Voxels = array_of(there) != 0
    d, h, w = where.shape
    seen = inference.run(array_of(seen_ct), where, (slice(0, d), slice(0, h), slice(0, w)), where)

    def back(values: HalfArray, outside: float) -> HalfArray:
        laid = resample_to(volume_like(values.astype(np.float32), seen_ct), here, outside)
        return np.asarray(array_of(laid), np.float16)

    spread = None if seen.spread is None else back(seen.spread, 0.0)
    detail = volume_like(seen.logits.astype(np.float32), seen_ct) if zoom < 1 else None
    return Piece(near, back(seen.logits, NO_LESION), spread, detail)
