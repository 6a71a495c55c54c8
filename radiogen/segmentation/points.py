"""Turn a click in a lesion into its box, from a first look at a window round the click."""

from functools import partial

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from radiogen.model.network_input import NetworkInput
from radiogen.model.priors import POINT_VOXELS, BoxMm, PointMm, box_region, box_round, point_prior
from radiogen.segmentation.inference import Inference, Voxels, infer_zoomed
from radiogen.segmentation.lesion_map import box_of, crop_grid, holds_lung
from radiogen.segmentation.sliding import COARSEST_ZOOM, logit, window_about, zoomed
from radiogen.volume import volume_like

CLICK_MM = 2.0  # round a click: the network sees the mean, and a hand is no steadier
AIR_BELOW_HU = -750.0  # no voxel near a click is denser: a lesion, and be it ground glass, lies elsewhere
BONE_ABOVE_HU = 250.0
LARGEST_SHARE = 0.75  # of a window that the answer to a click fills; a larger one is looked at again, coarser


def box_at(point: PointMm, ct: sitk.Image) -> BoxMm:
    """Return a small box round a click; where the CT is coarse, large enough to hold a voxel."""
    half_mm = max(CLICK_MM, 0.51 * max(ct.GetSpacing()))
    low, high = (tuple(mm + side for mm in point) for side in (-half_mm, half_mm))
    return BoxMm((low[0], low[1], low[2]), (high[0], high[1], high[2]))


def loosened(box: BoxMm, share: float) -> BoxMm:
    """Move each face of a box out by a share of its width."""
    low, high = np.array(box.low), np.array(box.high)
    out = share * (high - low)
    return BoxMm(tuple((low - out).tolist()), tuple((high + out).tolist()))


def objection(point: PointMm, ct: sitk.Image, lungs: sitk.Image) -> str:
    """Return why there can be no lesion at a click; empty where there can be one."""
    near = box_region(box_at(point, ct), ct)
    if near is None:
        return "lies outside the CT"
    hu = sitk.GetArrayViewFromImage(ct)[near.array_slices()]
    if hu.max() < AIR_BELOW_HU:
        return f"lies in air ({hu.mean():.0f} HU)"
    if hu.mean() > BONE_ABOVE_HU and not holds_lung(lungs, near):
        return f"lies in bone or metal ({hu.mean():.0f} HU)"
    return ""


def box_of_answer(
    point: PointMm, inference: Inference, sample: NetworkInput, ct: sitk.Image, loosen: float
) -> BoxMm | None:
    """Return the box of what the networks find in a window round a click; None if they find nothing.

    Args:
        point: Of the click.
        inference: The networks.
        sample: The case on the network's grid.
        ct: The same on the scanner's grid, HU.
        loosen: Share of its width by which each face of the box moves out.
    """
    grid = sample.ct
    config, size = inference.model.config, grid.GetSize()[::-1]
    at = grid.TransformPhysicalPointToContinuousIndex(point)[::-1]
    voxel = [min(max(round(index), 0), length - 1) for index, length in zip(at, size, strict=True)]
    z, y, x = (slice(index, index + 1) for index in voxel)
    box = None
    for zoom in (1.0, COARSEST_ZOOM):
        window = window_about((z, y, x), size, zoomed(inference.size, zoom))
        own = [index - edge.start for index, edge in zip(voxel, window, strict=True)]
        shape = [edge.stop - edge.start for edge in window]
        found = infer_zoomed(inference, grid, ct, partial(_ball_at, point), box_of(window), zoom)
        touched = point_prior(shape, own, POINT_VOXELS * zoom) > 0
        answer = part_at(found.logits >= logit(config.threshold), touched)
        if answer is None:
            continue
        mask = volume_like(answer.astype(np.uint8), crop_grid(grid, box_of(window)))
        box = box_round(mask, 1)
        size_mm = np.subtract(box.high, box.low)
        room_mm = LARGEST_SHARE * np.array(mask.GetSize()) * mask.GetSpacing()
        if config.preprocessing.layout == "squeeze" or (size_mm <= room_mm).all():
            break
    return None if box is None else loosened(box, loosen)


def _ball_at(point: PointMm, grid: sitk.Image) -> Voxels:
    at = grid.TransformPhysicalPointToContinuousIndex(point)[::-1]
    inside = [min(max(round(index), 0), n - 1) for index, n in zip(at, grid.GetSize()[::-1], strict=True)]
    return np.asarray(point_prior(grid.GetSize()[::-1], inside) > 0)


def part_at(found: Voxels, prior: Voxels) -> Voxels | None:
    """Return the connected parts of an answer that the ball of a click touches; None if it touches none."""
    parts, _ = ndimage.label(found, structure=np.ones((3, 3, 3)))
    touched = np.unique(parts[prior & found])
    return np.isin(parts, touched) if touched.size else None
