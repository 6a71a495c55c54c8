"""Read the structures of an RTSTRUCT: their names first, the contours of those that are taken."""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import Dataset

from radiogen.errors import OutlineError
from radiogen.io.contours import OutlinePlane, check_numbers
from radiogen.io.dicom.file_kind import read_whole
from radiogen.io.polygons import Points

_FRAMES = "ReferencedFrameOfReferenceSequence"
# CLOSEDPLANAR_XOR contours of one plane are combined by exclusive or (PS3.3, C.8.8.6), as all are here.
CLOSED = ("", "CLOSED_PLANAR", "CLOSEDPLANAR_XOR")


@dataclass(frozen=True)
class Roi:
    """One structure: what the file calls it, its frame of reference, and its closed contours as stored."""

    name: str
    frame_uid: str
    drawn: tuple[Dataset, ...]
    left_out: int  # points and open lines, which enclose nothing


@dataclass(frozen=True)
class RoiContours:
    """The contours of a structure in LPS millimetres, shape (n, 3) each, and the slices they name."""

    contours: tuple[Points, ...]
    planes: tuple[OutlinePlane, ...]


def read_rtstruct(path: Path) -> list[Roi]:
    """Return the structures of an RTSTRUCT in the order of the file, those without contours too.

    Raises:
        OutlineError: The file is damaged.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom warns of odd values that are not used here
        try:
            dataset = read_whole(path)
            drawn = {int(one.ReferencedROINumber): one for one in dataset.get("ROIContourSequence") or ()}
            frames = [one.get("FrameOfReferenceUID") for one in dataset.get(_FRAMES) or ()]
            # A ROI without a frame of reference gets the only one there is; of several none.
            frame = str(frames[0] or "") if len(frames) == 1 else ""
            return [
                _roi(one, drawn.get(int(one.ROINumber)), frame) for one in dataset.StructureSetROISequence
            ]
        except Exception as error:  # damaged files make pydicom raise nearly anything
            raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> OutlineError:
    return OutlineError(path, f"cannot be read as RTSTRUCT: {str(error)[:200]}", "copy it again")


def _roi(named: Dataset, drawn: Dataset | None, frame: str) -> Roi:
    contours = list((drawn.get("ContourSequence") if drawn is not None else None) or ())
    closed = [one for one in contours if _is_closed(one)]
    return Roi(
        name=str(named.get("ROIName") or "").strip(),
        frame_uid=str(named.get("ReferencedFrameOfReferenceUID") or frame),
        drawn=tuple(closed),
        left_out=len(contours) - len(closed),
    )


def _is_closed(contour: Dataset) -> bool:
    # Two points have five backslashes between their numbers, and enclose nothing.
    return str(contour.get("ContourGeometricType") or "") in CLOSED and _stored(contour).count(b"\\") >= 6


def contours_of(roi: Roi, source: Path) -> RoiContours:
    """Return the contours of one structure.

    Raises:
        OutlineError: A contour is damaged, or holds coordinates that are no millimetres.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            contours = tuple(_numbers(_stored(one)).reshape(-1, 3) for one in roi.drawn)
            planes = tuple(
                OutlinePlane(points[0], _slices_of(one))
                for one, points in zip(roi.drawn, contours, strict=True)
            )
        except Exception as error:
            raise _unreadable(source, error) from error
    for points in contours:
        check_numbers(points, source)
    return RoiContours(contours, planes)


def _stored(contour: Dataset) -> bytes:
    """Return the coordinates as bytes of the file: pydicom's own numbers would take ten times as long."""
    value: Any = contour.get_item("ContourData")
    value = value.value if value is not None else None
    if isinstance(value, bytes):
        return value
    if value is None:
        return b""
    return b"\\".join(str(v).encode() for v in ([value] if isinstance(value, str | float) else value))


def _numbers(stored: bytes) -> Points:
    # One call in C; what it does not take whole is read number by number.
    numbers = np.fromstring(stored, sep="\\") if stored.isascii() else np.zeros(0)
    count = stored.count(b"\\") + 1
    if len(numbers) != count:  # something in between that C does not read as a number
        numbers = np.array([float(part) for part in stored.split(b"\\")])
    return numbers


def _slices_of(contour: Dataset) -> tuple[str, ...]:
    return tuple(
        str(one.get("ReferencedSOPInstanceUID", "")) for one in contour.get("ContourImageSequence") or ()
    )
