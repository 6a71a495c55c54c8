"""Read DICOM SEG: with highdicom, and frame by frame where highdicom refuses."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk
from pydicom import Dataset

from radiogen.errors import OutlineError
from radiogen.io.dicom.whole import decompress, is_compressed, put_pixels, read_whole
from radiogen.io.outline_place import NamedPlane, check_numbers
from radiogen.io.dicom.seg_frames import Frame, FramePlace, check_claims, frame_places, frames_of, segmentation_type
from radiogen.io.dicom.seg_stack import check_extent, stack_frames

if TYPE_CHECKING:
    from highdicom.seg import Segmentation


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
    """One segment on the grid of its own frames: uint8, 0 and 1; its planes; how it was read."""

    mask: sitk.Image
    planes: tuple[NamedPlane, ...]
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
            if unpacked := is_compressed(dataset):
                decompress(dataset, path)
            kind, frame_uid = segmentation_type(dataset), str(dataset.get("FrameOfReferenceUID") or "")
            share = str(dataset.get("SegmentationFractionalType") or "share").lower()
        except Exception as error:  # early and damaged files make pydicom raise nearly anything
            raise _unreadable(path, error) from error
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
            put_pixels(dataset, unpacked)
        return Segmentation.from_dataset(dataset, copy=False)
    except Exception as refusal:  # as above
        return _short(refusal)


def segment_mask(
    seg: SegFile, number: int, ct: sitk.Image, slice_positions: Mapping[str, tuple[float, ...]]
) -> SegmentMask:
    """One segment as a mask on the grid of its own frames.

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
            places = frame_places(seg.dataset, ct, slice_positions)
        except Exception as error:  # as above
            reason = f"its frames cannot be placed: {error}"
            raise OutlineError(seg.path, reason[:200], "convert it to a mask file") from error
        mine = [place for place in places if place.segment in (None, number)]
        if mine:
            check_numbers(np.array([place.position_mm for place in mine]), seg.path)
            check_extent(mine, (int(seg.dataset.Rows), int(seg.dataset.Columns)), ct, seg.path)
        frames, verdict = _read_frames(seg, number, mine)
    if not any(frame.inside.any() for frame in frames):
        raise EmptySegmentError(seg.path, f"segment {number} is empty", "choose another with --segment")
    mask, said = stack_frames(frames, ct, seg.path)
    if seg.fractional:
        said.append(f"SEG: a voxel counts if its {seg.fractional} is at least half of the maximum")
    return SegmentMask(mask, _planes(frames, mine), (verdict, *said))


def _read_frames(seg: SegFile, number: int, places: list[FramePlace]) -> tuple[list[Frame], str]:
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
    """The slices of highdicom's volume that are not empty."""
    volume = seg.get_volume(segment_numbers=[number], rescale_fractional=True)
    inside = volume.array[..., 0] >= 0.5
    between_slices, column, row = volume.affine[:3, :3].T  # array order: slice, row, column
    spacing = float(np.linalg.norm(row)), float(np.linalg.norm(column))
    axes = np.stack([row / spacing[0], column / spacing[1]])
    start = volume.affine[:3, 3]
    return [
        Frame(start + k * between_slices, axes, spacing, inside[k])
        for k in np.flatnonzero(inside.any(axis=(1, 2)))
    ]


def _planes(frames: list[Frame], places: list[FramePlace]) -> tuple[NamedPlane, ...]:
    """Those of the file's frames that lie where pixels were found, with the slices they name."""
    filled = np.array([frame.position_mm for frame in frames if frame.inside.any()])
    return tuple(
        NamedPlane(place.position_mm, place.slice_uids)
        for place in places
        if np.abs(filled - place.position_mm).max(axis=1).min() < 0.1
    )
