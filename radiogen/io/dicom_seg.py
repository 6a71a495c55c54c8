"""Read DICOM SEG: with highdicom, and by the positions of the frames where highdicom refuses."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
from pydicom import Dataset, dcmread

from radiogen.errors import OutlineError
from radiogen.io.contours import BoolArray

Vector = npt.NDArray[np.float64]
OFF_PLACE = 0.25  # of the slice spacing: how far a frame may lie off the even grid of the others


@dataclass(frozen=True)
class Segment:
    """One segment of a SEG: its number and what the file calls it."""

    number: int
    label: str


@dataclass(frozen=True)
class SegFile:
    """A SEG that was opened, and how."""

    path: Path
    dataset: Dataset
    segments: tuple[Segment, ...]
    decisions: tuple[str, ...]


@dataclass(frozen=True)
class _Frame:
    position_mm: Vector
    orientation: Vector  # row and column cosines, shape (2, 3)
    spacing_mm: tuple[float, float]  # x, y
    voxels: BoolArray


def read_seg(path: Path) -> SegFile:
    """Open a DICOM SEG and list its segments.

    Raises:
        OutlineError: Neither highdicom nor pydicom can read it.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # both packages warn of odd values that are not used here
        try:
            dataset, said = _strictly(path), "SEG read by highdicom"
        except Exception as refusal:  # early files make highdicom raise nearly anything
            reason = f"{type(refusal).__name__}: {refusal}"[:120]
            dataset, said = _tolerantly(path), f"SEG read by frame positions, highdicom refused it ({reason})"
    segments = tuple(
        Segment(int(one.get("SegmentNumber", n)), str(one.get("SegmentLabel", "")).strip())
        for n, one in enumerate(dataset.get("SegmentSequence") or (), start=1)
    )
    if dataset.get("SegmentationType") == "LABELMAP":
        segments = tuple(segment for segment in segments if segment.number)  # 0 is the background
    if not segments:
        raise OutlineError(path, "is a SEG without segments", "copy it again")
    return SegFile(path, dataset, segments, (said,))


def _strictly(path: Path) -> Dataset:
    from highdicom.seg import segread

    dataset: Dataset = segread(str(path))
    return dataset


def _tolerantly(path: Path) -> Dataset:
    try:
        return dcmread(path, force=True)
    except Exception as error:
        raise OutlineError(path, f"cannot be read as SEG: {error}", "copy it again") from error


def segment_mask(
    seg: SegFile, number: int, ct: sitk.Image, slice_positions: Mapping[str, tuple[float, ...]]
) -> sitk.Image:
    """One segment as a mask on the grid of its own frames.

    Args:
        seg: An opened SEG.
        number: Segment number.
        ct: Gives the slice spacing where the frames fit it, and the pixel spacing of files without one.
        slice_positions: Position by SOPInstanceUID, for frames that only name their source image.

    Returns:
        uint8, 0 and 1. Frames that the file leaves out are empty.

    Raises:
        OutlineError: The segment is empty, or its frames do not form one grid.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            frames = _frames(seg, number, ct, slice_positions)
        except (KeyError, AttributeError, ValueError, TypeError, IndexError, RuntimeError) as error:
            raise OutlineError(
                seg.path, f"its frames cannot be placed: {error}", "convert it to a mask file"
            ) from error
    frames = [frame for frame in frames if frame.voxels.any()]
    if not frames:
        raise OutlineError(seg.path, f"segment {number} is empty", "choose another with --segment")
    return _stack(frames, ct, seg.path)


def _frames(
    seg: SegFile, number: int, ct: sitk.Image, slice_positions: Mapping[str, tuple[float, ...]]
) -> list[_Frame]:
    dataset = seg.dataset
    voxels: npt.NDArray[Any] = dataset.pixel_array
    voxels = voxels[np.newaxis] if voxels.ndim == 2 else voxels
    shared = (dataset.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    groups = list(dataset.get("PerFrameFunctionalGroupsSequence") or ())
    if len(groups) != len(voxels):
        raise ValueError(f"{len(voxels)} frames but {len(groups)} positions")
    kind = str(dataset.get("SegmentationType", "BINARY"))
    half = float(dataset.get("MaximumFractionalValue", 1)) / 2 if kind == "FRACTIONAL" else 0.5
    frames = []
    for group, frame in zip(groups, voxels, strict=True):
        if kind == "LABELMAP":
            frames.append(_frame(group, shared, frame == number, ct, slice_positions))
        elif _segment_number(group, shared, seg) == number:
            frames.append(_frame(group, shared, frame >= half, ct, slice_positions))
    return frames


def _segment_number(group: Dataset, shared: Dataset, seg: SegFile) -> int:
    found = _item("SegmentIdentificationSequence", group, shared).get("ReferencedSegmentNumber")
    if found is None and len(seg.segments) == 1:
        return seg.segments[0].number
    return int(found)


def _frame(
    group: Dataset,
    shared: Dataset,
    voxels: BoolArray,
    ct: sitk.Image,
    slice_positions: Mapping[str, tuple[float, ...]],
) -> _Frame:
    position = _item("PlanePositionSequence", group, shared).get("ImagePositionPatient")
    if position is None:
        source = _item("SourceImageSequence", _item("DerivationImageSequence", group, shared), Dataset())
        position = slice_positions[str(source.ReferencedSOPInstanceUID)]
    orientation = _item("PlaneOrientationSequence", group, shared).get("ImageOrientationPatient")
    if orientation is None:
        orientation = np.array(ct.GetDirection()).reshape(3, 3)[:, :2].T.ravel()
    between = _item("PixelMeasuresSequence", group, shared).get("PixelSpacing")
    rows_mm, columns_mm = between if between is not None else ct.GetSpacing()[1::-1]
    return _Frame(
        np.array([float(v) for v in position]),
        np.array([float(v) for v in orientation]).reshape(2, 3),
        (float(columns_mm), float(rows_mm)),
        voxels,
    )


def _item(name: str, group: Dataset, shared: Dataset) -> Dataset:
    """The first item of a sequence that stands with the frame or with all frames."""
    items = group.get(name) or shared.get(name) or [Dataset()]
    found: Dataset = items[0]
    return found


def _stack(frames: list[_Frame], ct: sitk.Image, path: Path) -> sitk.Image:
    row, column = frames[0].orientation
    normal = np.cross(row, column)
    if any(not np.allclose(f.orientation, frames[0].orientation, atol=1e-3) for f in frames):
        raise OutlineError(path, "has frames of several orientations", "convert it to a mask file")
    heights = np.array([float(frame.position_mm @ normal) for frame in frames])
    lowest = frames[int(np.argmin(heights))]
    spacing = _slice_spacing(np.unique(np.round(heights - heights.min(), 3)), normal, ct)
    steps = (heights - heights.min()) / spacing
    if np.abs(steps - np.rint(steps)).max() > OFF_PLACE:
        raise OutlineError(path, "has frames at uneven distances", "convert it to a mask file")
    voxels = np.zeros((int(np.rint(steps.max())) + 1, *lowest.voxels.shape), dtype=np.uint8)
    for step, frame in zip(np.rint(steps).astype(int), frames, strict=True):
        voxels[step] |= frame.voxels
    mask = sitk.GetImageFromArray(voxels)
    mask.SetOrigin(lowest.position_mm.tolist())
    mask.SetSpacing((*lowest.spacing_mm, spacing))
    mask.SetDirection(np.stack([row, column, normal], axis=1).ravel().tolist())
    return mask


def _slice_spacing(heights: Vector, normal: Vector, ct: sitk.Image) -> float:
    """The CT's slice spacing if the frames fit it, so that frames left out stay empty; else the least gap."""
    usual = float(ct.GetSpacing()[2])
    is_parallel = abs(float(normal @ np.array(ct.GetDirection()).reshape(3, 3)[:, 2])) > 1 - 1e-3
    steps = heights / usual
    if len(heights) < 2 or (is_parallel and np.abs(steps - np.rint(steps)).max() <= OFF_PLACE):
        return usual
    return float(np.diff(heights).min())
