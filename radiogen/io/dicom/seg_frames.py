"""Read the frames of a DICOM SEG as they stand in the file: segment, place in space, and pixels."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
from pydicom import Dataset
from pydicom.uid import ExplicitVRBigEndian

from radiogen.io.dicom.decode import is_compressed
from radiogen.io.dicom.slice_header import functional_group
from radiogen.io.polygons import BoolArray, Points

MOST_FRAME_PIXELS = 1 << 26  # 8192 x 8192
MOST_PIXELS = 1 << 30  # of all frames, where they must be unpacked at once
AnyArray = npt.NDArray[Any]


@dataclass(frozen=True)
class FramePosition:
    """Where one frame lies.

    Attributes:
        index: Its number in the file, from 0.
        segment: What it shows; None in a LABELMAP, whose pixels say it.
        position_mm: Centre of the first pixel, LPS.
        axes: Cosines along a row and along a column, shape (2, 3).
        spacing_mm: x, y.
        slice_uids: Images it was made from.
    """

    index: int
    segment: int | None
    position_mm: Points
    axes: Points
    spacing_mm: tuple[float, float]
    slice_uids: tuple[str, ...]


@dataclass(frozen=True)
class Frame:
    """A frame with its pixels, shape (rows, columns)."""

    position_mm: Points
    axes: Points
    spacing_mm: tuple[float, float]
    inside: BoolArray


def segmentation_type(dataset: Dataset) -> str:
    """Return BINARY, FRACTIONAL or LABELMAP."""
    return str(dataset.get("SegmentationType") or "BINARY").strip().upper()


def frame_positions(
    dataset: Dataset, ct: sitk.Image, slice_positions: Mapping[str, tuple[float, ...]]
) -> list[FramePosition]:
    """Return the places of all frames.

    Args:
        dataset: A SEG.
        ct: Gives orientation and pixel spacing where the file has none.
        slice_positions: Position by SOPInstanceUID, for frames that only name their source image.

    Raises:
        ValueError: The file holds other than what it claims.
        Exception: It is damaged; pydicom raises nearly anything.
    """
    check_claims(dataset)
    shared = (dataset.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    numbers = [int(one.get("SegmentNumber", n)) for n, one in enumerate(dataset.SegmentSequence, start=1)]
    is_labelmap = segmentation_type(dataset) == "LABELMAP"
    places = []
    for index, group in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        segment = None if is_labelmap else _segment_number(group, shared, numbers)
        places.append(_place(index, segment, group, shared, ct, slice_positions))
    return places


def check_claims(dataset: Dataset) -> None:
    """Compare what the header claims with what the file holds, before memory is taken for it.

    Raises:
        ValueError: They differ.
    """
    frames, pixels = int(dataset.get("NumberOfFrames") or 1), int(dataset.Rows) * int(dataset.Columns)
    groups = len(dataset.get("PerFrameFunctionalGroupsSequence") or ())
    if frames != groups:
        raise ValueError(f"it claims {frames} frames and places {groups}")
    if not 0 < pixels <= MOST_FRAME_PIXELS:
        raise ValueError(f"frames of {dataset.Rows} x {dataset.Columns} pixels")
    if int(dataset.get("SamplesPerPixel") or 1) != 1 or int(dataset.BitsAllocated) not in (1, 8, 16):
        raise ValueError("its pixels are no segments")
    meta = getattr(dataset, "file_meta", {})
    # Explicit VR big endian is retired since DICOM 2016b.
    if meta.get("TransferSyntaxUID") == ExplicitVRBigEndian:
        raise ValueError("it is big endian, which no SEG is")
    held, needed = len(dataset.PixelData) * 8, frames * pixels * int(dataset.BitsAllocated)
    # A compressed frame can be a few bytes for any size.
    if frames * pixels > MOST_PIXELS and is_compressed(dataset):
        raise ValueError(f"it claims {frames} frames of {dataset.Rows} x {dataset.Columns} pixels")
    if held < needed and not is_compressed(dataset):
        raise ValueError(f"it claims {frames} frames, its pixels are those of {held * frames // needed}")


def _segment_number(group: Dataset, shared: Dataset, numbers: Sequence[int]) -> int:
    found = functional_group("SegmentIdentificationSequence", group, shared).get("ReferencedSegmentNumber")
    # Where a file has one segment, its frames need not name it.
    if found is None and len(numbers) == 1:
        return numbers[0]
    if found is None:
        raise ValueError("frames do not say which segment they show")
    return int(found)


def _place(
    index: int,
    segment: int | None,
    group: Dataset,
    shared: Dataset,
    ct: sitk.Image,
    slice_positions: Mapping[str, tuple[float, ...]],
) -> FramePosition:
    derived = functional_group("DerivationImageSequence", group, shared)
    sources = tuple(str(one.ReferencedSOPInstanceUID) for one in derived.get("SourceImageSequence") or ())
    position = functional_group("PlanePositionSequence", group, shared).get("ImagePositionPatient")
    # Some SEG files place a frame only by the image that it was derived from.
    if position is None:
        known = [slice_positions[uid] for uid in sources if uid in slice_positions]
        if len(known) != 1:
            raise ValueError("frames say neither where they lie nor on which slice")
        position = known[0]
    orientation = functional_group("PlaneOrientationSequence", group, shared).get("ImageOrientationPatient")
    if orientation is None:
        orientation = np.array(ct.GetDirection()).reshape(3, 3)[:, :2].T.ravel()
    between = functional_group("PixelMeasuresSequence", group, shared).get("PixelSpacing")
    # PixelSpacing names the distance between rows (y) first, ITK x first (PS3.3, 10.7.1.3).
    rows_mm, columns_mm = (float(v) for v in (between if between is not None else ct.GetSpacing()[1::-1]))
    if not 0 < min(rows_mm, columns_mm) <= max(rows_mm, columns_mm) < np.inf:
        raise ValueError(f"pixels of {rows_mm} x {columns_mm} mm")
    return FramePosition(
        index,
        segment,
        np.array([float(v) for v in position]).reshape(3),
        np.array([float(v) for v in orientation]).reshape(2, 3),
        (columns_mm, rows_mm),
        sources,
    )


def frames_of(dataset: Dataset, number: int, places: Sequence[FramePosition]) -> list[Frame]:
    """Return the frames of one segment with their pixels; of fractional ones at least half of the maximum.

    Raises:
        Exception: The pixels are damaged; pydicom raises nearly anything.
    """
    of_segment = [place for place in places if place.segment in (None, number)]
    kind = segmentation_type(dataset)
    # As highdicom and most tools do; the standard names no threshold.
    half = float(dataset.get("MaximumFractionalValue") or 1) / 2 if kind == "FRACTIONAL" else 0.5
    frames = []
    all_pixels = _pixels(dataset, [place.index for place in of_segment])
    for place, pixels in zip(of_segment, all_pixels, strict=True):
        inside = pixels == number if kind == "LABELMAP" else pixels >= half
        frames.append(Frame(place.position_mm, place.axes, place.spacing_mm, inside))
    return frames


def _pixels(dataset: Dataset, wanted: Sequence[int]) -> Iterator[AnyArray]:
    """Unpack frames of shape (rows, columns) one by one, so that many segments take little memory."""
    bits, shape = int(dataset.BitsAllocated), (int(dataset.Rows), int(dataset.Columns))
    pixels = shape[0] * shape[1]
    if bits != 1:
        frames = np.frombuffer(
            dataset.PixelData, dtype=f"<u{bits // 8}", count=pixels * int(dataset.NumberOfFrames)
        )
        yield from frames.reshape(-1, *shape)[list(wanted)]
        return
    stored = np.frombuffer(dataset.PixelData, dtype=np.uint8)
    for index in wanted:  # frames follow each other bit by bit, not byte by byte
        first, behind = index * pixels, (index + 1) * pixels
        unpacked = np.unpackbits(stored[first // 8 : -(-behind // 8)], bitorder="little")
        yield unpacked[first % 8 :][:pixels].reshape(shape)
