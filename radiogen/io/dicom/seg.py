"""Read DICOM SEG: with highdicom, and frame by frame where highdicom refuses.

highdicom is the most careful reader there is, and refuses early files, NSCLC-Radiogenomics among them, for
attributes that do not concern where a voxel lies. Tests hold both readers to the same voxels.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk
from pydicom import Dataset

from radiogen.errors import OutlineError
from radiogen.io.contours import OutlinePlane, check_numbers
from radiogen.io.dicom.decode import decompress, is_compressed, set_pixels
from radiogen.io.dicom.file_kind import read_whole
from radiogen.io.dicom.seg_frames import (
    Frame,
    FramePosition,
    check_claims,
    frame_positions,
    frames_of,
    segmentation_type,
)
from radiogen.io.polygons import Points

if TYPE_CHECKING:
    from highdicom.seg import Segmentation


OFF_PLACE = 0.1  # of the slice spacing: how far a frame may lie off the grid of the others
SIDEWAYS = 0.25  # of a pixel: how far a frame may be shifted against the others
TURNED = 1e-3  # difference of direction cosines
MOST_VOXELS = 1_000_000_000
HINT = "convert it to a mask file"
BY_HIGHDICOM = "SEG read by highdicom"


class EmptySegmentError(OutlineError):
    """A segment that is listed and has no voxel."""


@dataclass(frozen=True)
class Segment:
    """One segment of a SEG: its number and what the file calls it."""

    number: int
    label: str


@dataclass(frozen=True)
class SegFile:
    """A SEG that was opened.

    Attributes:
        path: The file.
        dataset: What pydicom reads.
        segments: In the order of the file, without a background.
        frame_uid: Its frame of reference, empty if it names none.
        fractional: What its pixels are a share of; empty if they are 0 or 1, or labels.
        strict: What highdicom reads, or the reason why it refused.
    """

    path: Path
    dataset: Dataset
    segments: tuple[Segment, ...]
    frame_uid: str
    fractional: str
    strict: "Segmentation | str"


@dataclass(frozen=True)
class SegmentMask:
    """One segment on the grid of its own frames: uint8, 0 and 1; its planes; what was decided."""

    mask: sitk.Image
    planes: tuple[OutlinePlane, ...]
    decisions: tuple[str, ...]


def read_seg(path: Path) -> SegFile:
    """Open a DICOM SEG and list its segments.

    Raises:
        OutlineError: It is damaged, holds other than it claims, or no segments.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # both packages warn of odd values that are not used here
        try:
            dataset = read_whole(path)
            segments = tuple(
                Segment(int(one.get("SegmentNumber", n)), str(one.get("SegmentLabel") or "").strip())
                for n, one in enumerate(dataset.get("SegmentSequence") or (), start=1)
            )
            check_claims(dataset)
            unpacked = is_compressed(dataset)
            if unpacked:
                decompress(dataset, path)
            kind = segmentation_type(dataset)
            frame_uid = str(dataset.get("FrameOfReferenceUID") or "")
            share = str(dataset.get("SegmentationFractionalType") or "share").lower()
        except Exception as error:  # early and damaged files make pydicom raise nearly anything
            raise _unreadable(path, error) from error
        # highdicom gets a data set of its own, since it changes the one it is given.
        strict = _strictly(path, dataset.PixelData if unpacked else None)
    if kind == "LABELMAP":
        segments = tuple(segment for segment in segments if segment.number)  # 0 is the background
    if not segments:
        raise OutlineError(path, "is a SEG without segments", "copy it again")
    if len({segment.number for segment in segments}) < len(segments):
        raise OutlineError(path, "gives two segments the same number", "export it anew")
    fractional = share if kind == "FRACTIONAL" else ""
    return SegFile(path, dataset, segments, frame_uid, fractional, strict)


def _unreadable(path: Path, error: Exception) -> OutlineError:
    return OutlineError(path, f"cannot be read as SEG: {_short(error)}", "copy it again")


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:120]


def _strictly(path: Path, unpacked: bytes | None) -> "Segmentation | str":
    from highdicom.seg import Segmentation

    try:
        dataset = read_whole(path)
        if unpacked is not None:
            set_pixels(dataset, unpacked)
        return Segmentation.from_dataset(dataset, copy=False)
    except Exception as refusal:  # as above
        return _short(refusal)


def segment_mask(
    seg: SegFile, number: int, ct: sitk.Image, slice_positions: Mapping[str, tuple[float, ...]]
) -> SegmentMask:
    """Return one segment as a mask on the grid of its own frames.

    Args:
        seg: An opened SEG.
        number: Segment number.
        ct: Gives the slice spacing where the frames fit it, and the pixel spacing of files without one.
        slice_positions: Position by SOPInstanceUID, for frames that only name their source image.

    Returns:
        The mask; frames that the file leaves out are empty.

    Raises:
        OutlineError: The segment is empty, or its frames do not form one grid.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            places = frame_positions(seg.dataset, ct, slice_positions)
        except Exception as error:  # as above
            reason = f"its frames cannot be placed: {error}"
            raise OutlineError(seg.path, reason[:200], HINT) from error
        of_segment = [place for place in places if place.segment in (None, number)]
        if of_segment:
            check_numbers(np.array([place.position_mm for place in of_segment]), seg.path)
            _check_extent(of_segment, (int(seg.dataset.Rows), int(seg.dataset.Columns)), ct, seg.path)
        frames, reader = _read_frames(seg, number, of_segment)
    if not any(frame.inside.any() for frame in frames):
        raise EmptySegmentError(seg.path, f"segment {number} is empty", "choose another with --segment")
    mask, decisions = _stack_frames(frames, ct, seg.path)
    if seg.fractional:
        decisions.append(f"SEG: a voxel counts if its {seg.fractional} is at least half of the maximum")
    return SegmentMask(mask, _planes(frames, of_segment), (reader, *decisions))


def _read_frames(seg: SegFile, number: int, places: list[FramePosition]) -> tuple[list[Frame], str]:
    refusal = seg.strict
    if not isinstance(refusal, str):
        try:
            return _by_highdicom(refusal, number), BY_HIGHDICOM
        except Exception as error:  # doubled, turned or uneven frames among others
            refusal = _short(error)
    try:
        frames = frames_of(seg.dataset, number, places)
    except Exception as error:
        raise _unreadable(seg.path, error) from error
    return frames, f"SEG read by frame positions, highdicom refused it ({refusal})"


def _by_highdicom(seg: "Segmentation", number: int) -> list[Frame]:
    """Return the slices of highdicom's volume that are not empty."""
    volume = seg.get_volume(segment_numbers=[number], rescale_fractional=True)
    # Of fractional segments half of the maximum counts, as in the tolerant reader.
    inside = volume.array[..., 0] >= 0.5
    between_slices, column, row = volume.affine[:3, :3].T  # array order: slice, row, column
    spacing = float(np.linalg.norm(row)), float(np.linalg.norm(column))
    axes = np.stack([row / spacing[0], column / spacing[1]])
    start = volume.affine[:3, 3]
    return [
        Frame(start + k * between_slices, axes, spacing, inside[k])
        for k in np.flatnonzero(inside.any(axis=(1, 2)))
    ]


def _planes(frames: list[Frame], places: list[FramePosition]) -> tuple[OutlinePlane, ...]:
    """Return those of the file's frames that lie where pixels were found, with the slices they name."""
    filled = np.array([frame.position_mm for frame in frames if frame.inside.any()])
    return tuple(
        OutlinePlane(place.position_mm, place.slice_uids)
        for place in places
        if np.abs(filled - place.position_mm).max(axis=1).min() < 0.1
    )


def _check_extent(
    places: Sequence[FramePosition], size: tuple[int, int], ct: sitk.Image, source: Path
) -> None:
    """Refuse frames whose stack would not fit into memory.

    Raises:
        OutlineError: They lie too far apart, or their axes are no axes.
    """
    normal = _normal(places[0].axes, source)
    heights = np.array([place.position_mm @ normal for place in places])
    slices = np.ptp(heights) / _slice_spacing(heights, normal, ct) + 1
    if slices * size[0] * size[1] > MOST_VOXELS:
        raise OutlineError(source, f"has frames {np.ptp(heights):.0f} mm apart that fill no volume", HINT)


def _stack_frames(frames: Sequence[Frame], ct: sitk.Image, source: Path) -> tuple[sitk.Image, list[str]]:
    """Return one mask of the frames of one segment.

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
    # Frames may be flipped one by one.
    frames = [_turned_like(frame, frames[0], source) for frame in frames]
    heights = np.array([float(frame.position_mm @ normal) for frame in frames])
    lowest = frames[int(np.argmin(heights))]
    spacing = _slice_spacing(heights, normal, ct)
    steps = np.rint((heights - heights.min()) / spacing).astype(int)
    _check_on_grid(frames, lowest, steps[:, np.newaxis] * spacing * normal, spacing, source)
    voxels = np.zeros((int(steps.max()) + 1, *lowest.inside.shape), dtype=np.uint8)
    filled: set[int] = set()
    for step, frame in zip(steps.tolist(), frames, strict=True):
        # Two frames of one place and segment with other pixels: which one is meant cannot be known.
        if step in filled and not np.array_equal(voxels[step], frame.inside):
            z = frame.position_mm[2]
            raise OutlineError(source, f"has frames at z {z:.2f} mm that differ", HINT)
        voxels[step] = frame.inside
        filled.add(step)
    mask = sitk.GetImageFromArray(voxels)
    mask.SetOrigin(lowest.position_mm.tolist())
    mask.SetSpacing((*lowest.spacing_mm, spacing))
    row, column = lowest.axes
    mask.SetDirection(np.stack([row, column, normal], axis=1).ravel().tolist())
    doubled = len(frames) - len(filled)
    return mask, [f"SEG: {doubled} doubled frames with equal pixels left out"] if doubled else []


def _normal(axes: Points, source: Path) -> Points:
    row, column = axes
    if not np.allclose(axes @ axes.T, np.eye(2), atol=1e-2):
        raise OutlineError(source, "has frames whose rows and columns are not at right angles", HINT)
    normal = np.cross(row, column)
    return np.asarray(normal / np.linalg.norm(normal))


def _turned_like(frame: Frame, first: Frame, source: Path) -> Frame:
    """Return the same frame with rows and columns running as those of the first."""
    if not np.allclose(frame.spacing_mm, first.spacing_mm, rtol=1e-3):
        raise OutlineError(source, "has frames of several pixel spacings", HINT)
    position, inside = frame.position_mm, frame.inside
    for axis, array_axis in ((0, 1), (1, 0)):
        along, same = frame.axes[axis], first.axes[axis]
        if np.allclose(along, -same, atol=TURNED):
            last = inside.shape[array_axis] - 1
            # The first pixel of the flipped frame is the last one along this axis.
            position = position + along * frame.spacing_mm[axis] * last
            inside = np.flip(inside, array_axis)
        elif not np.allclose(along, same, atol=TURNED):
            raise OutlineError(source, "has frames of several orientations", HINT)
    return replace(frame, position_mm=position, axes=first.axes, inside=inside)


def _check_on_grid(
    frames: Sequence[Frame], lowest: Frame, steps_mm: Points, spacing: float, source: Path
) -> None:
    off = np.array([frame.position_mm for frame in frames]) - lowest.position_mm - steps_mm
    row, column = lowest.axes
    sideways = np.abs(off @ np.stack([row, column], axis=1)) / lowest.spacing_mm
    if np.abs(off @ np.cross(row, column)).max() > OFF_PLACE * spacing:
        raise OutlineError(source, "has frames at uneven distances", HINT)
    if sideways.max() > SIDEWAYS:
        raise OutlineError(source, "has frames that are shifted against each other", HINT)


def _slice_spacing(heights: Points, normal: Points, ct: sitk.Image) -> float:
    """Return the CT's slice spacing if the frames fit it, so that gaps stay empty; else the least gap."""
    usual = float(ct.GetSpacing()[2])
    # To a hundredth of a millimetre, so that doubled frames count as one height.
    heights = np.unique(np.round(heights - heights.min(), 2))
    is_parallel = abs(float(normal @ np.array(ct.GetDirection()).reshape(3, 3)[:, 2])) > 1 - 1e-3
    steps = heights / usual
    if len(heights) < 2 or (is_parallel and np.abs(steps - np.rint(steps)).max() <= OFF_PLACE):
        return usual
    return float(np.diff(heights).min())
