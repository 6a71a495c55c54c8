"""Stack the frames of a DICOM SEG into one mask by where they lie, in any order."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from radiogen.errors import OutlineError
from radiogen.io.polygons import Points
from radiogen.io.dicom.seg_frames import Frame, FramePlace

OFF_PLACE = 0.1  # of the slice spacing: how far a frame may lie off the grid of the others
SIDEWAYS = 0.25  # of a pixel: how far a frame may be shifted against the others
TURNED = 1e-3  # difference of direction cosines
MOST_VOXELS = 1_000_000_000
WAY_OUT = "convert it to a mask file"


def check_extent(places: Sequence[FramePlace], size: tuple[int, int], ct: sitk.Image, source: Path) -> None:
    """Refuse frames whose stack would not fit into memory.

    Raises:
        OutlineError: They lie too far apart, or their axes are no axes.
    """
    normal = _normal(places[0].axes, source)
    heights = np.array([place.position_mm @ normal for place in places])
    slices = np.ptp(heights) / _slice_spacing(heights, normal, ct) + 1
    if slices * size[0] * size[1] > MOST_VOXELS:
        raise OutlineError(source, f"has frames {np.ptp(heights):.0f} mm apart that fill no volume", WAY_OUT)


def stack_frames(frames: Sequence[Frame], ct: sitk.Image, source: Path) -> tuple[sitk.Image, list[str]]:
    """One mask of the frames of one segment.

    Args:
        frames: In any order; flipped ones are turned back, equal ones at one place count once.
        ct: Gives the slice spacing if the frames fit it, so that frames left out stay empty.
        source: The file, for messages.

    Returns:
        uint8, 0 and 1, and what was decided.

    Raises:
        OutlineError: The frames do not form one grid, or two at one place differ.
    """
    normal = _normal(frames[0].axes, source)
    frames = [_turned_like(frame, frames[0], source) for frame in frames]
    heights = np.array([float(frame.position_mm @ normal) for frame in frames])
    lowest = frames[int(np.argmin(heights))]
    spacing = _slice_spacing(heights, normal, ct)
    steps = np.rint((heights - heights.min()) / spacing).astype(int)
    _check_on_grid(frames, lowest, steps[:, np.newaxis] * spacing * normal, spacing, source)
    voxels = np.zeros((int(steps.max()) + 1, *lowest.inside.shape), dtype=np.uint8)
    seen: set[int] = set()
    for step, frame in zip(steps.tolist(), frames, strict=True):
        if step in seen and not np.array_equal(voxels[step], frame.inside):
            z = frame.position_mm[2]
            raise OutlineError(source, f"has frames at z {z:.2f} mm that differ", WAY_OUT)
        voxels[step] = frame.inside
        seen.add(step)
    mask = sitk.GetImageFromArray(voxels)
    mask.SetOrigin(lowest.position_mm.tolist())
    mask.SetSpacing((*lowest.spacing_mm, spacing))
    row, column = lowest.axes
    mask.SetDirection(np.stack([row, column, normal], axis=1).ravel().tolist())
    doubled = len(frames) - len(seen)
    return mask, [f"SEG: {doubled} doubled frames with equal pixels left out"] if doubled else []


def _normal(axes: Points, source: Path) -> Points:
    row, column = axes
    if not np.allclose(axes @ axes.T, np.eye(2), atol=1e-2):
        raise OutlineError(source, "has frames whose rows and columns are not at right angles", WAY_OUT)
    normal = np.cross(row, column)
    return np.asarray(normal / np.linalg.norm(normal))


def _turned_like(frame: Frame, first: Frame, source: Path) -> Frame:
    """The same frame with rows and columns running as those of the first."""
    if not np.allclose(frame.spacing_mm, first.spacing_mm, rtol=1e-3):
        raise OutlineError(source, "has frames of several pixel spacings", WAY_OUT)
    position, inside = frame.position_mm, frame.inside
    for axis, array_axis in ((0, 1), (1, 0)):
        along, same = frame.axes[axis], first.axes[axis]
        if np.allclose(along, -same, atol=TURNED):
            last = inside.shape[array_axis] - 1
            position = position + along * frame.spacing_mm[axis] * last
            inside = np.flip(inside, array_axis)
        elif not np.allclose(along, same, atol=TURNED):
            raise OutlineError(source, "has frames of several orientations", WAY_OUT)
    return replace(frame, position_mm=position, axes=first.axes, inside=inside)


def _check_on_grid(
    frames: Sequence[Frame], lowest: Frame, steps_mm: Points, spacing: float, source: Path
) -> None:
    off = np.array([frame.position_mm for frame in frames]) - lowest.position_mm - steps_mm
    row, column = lowest.axes
    sideways = np.abs(off @ np.stack([row, column], axis=1)) / lowest.spacing_mm
    if np.abs(off @ np.cross(row, column)).max() > OFF_PLACE * spacing:
        raise OutlineError(source, "has frames at uneven distances", WAY_OUT)
    if sideways.max() > SIDEWAYS:
        raise OutlineError(source, "has frames that are shifted against each other", WAY_OUT)


def _slice_spacing(heights: Points, normal: Points, ct: sitk.Image) -> float:
    """The CT's slice spacing if the frames fit it, so that frames left out stay empty; else the least gap."""
    usual = float(ct.GetSpacing()[2])
    heights = np.unique(np.round(heights - heights.min(), 2))
    is_parallel = abs(float(normal @ np.array(ct.GetDirection()).reshape(3, 3)[:, 2])) > 1 - 1e-3
    steps = heights / usual
    if len(heights) < 2 or (is_parallel and np.abs(steps - np.rint(steps)).max() <= OFF_PLACE):
        return usual
    return float(np.diff(heights).min())
