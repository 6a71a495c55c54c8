"""Read from the header of a CT slice where it lies and how its numbers are stored.

Headers of a tree are read once. The byte at which the pixels start is kept with them, so that uncompressed
pixels are read later without parsing the file again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from pydicom import Dataset
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag
from pydicom.uid import UID

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
DEFLATED = "1.2.840.10008.1.2.1.99"  # transfer syntax: the whole data set is compressed
# What distinguishes volumes of one SeriesInstanceUID, in the order in which a split is tried.
MARKS = (
    "matrix", "slice thickness", "kernel", "image type", "stack",
    "time point", "acquisition", "echo", "kVp", "acquisition time",
)  # fmt: skip
RECONSTRUCTION_MARKS = MARKS[1:5]  # of these, two values are two volumes even where no position comes twice


NATIVE = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2")  # implicit, explicit, big endian
BIG_ENDIAN = "1.2.840.10008.1.2.2"
MOST_NUMBER = 1e9  # a larger place, spacing or rescale is damage
HU_TYPES = ("", "HU", "US")  # RescaleType; US is "unspecified"
_PIXEL_KEYS = (
    "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "BitsStored", "HighBit",
    "PixelRepresentation", "PixelPaddingValue", "PixelPaddingRangeLimit", "RescaleSlope", "RescaleIntercept",
    "RescaleType", "NumberOfFrames", "LossyImageCompression",
)  # fmt: skip
_TIME_KEYS = (
    "TemporalPositionIdentifier", "TemporalPositionIndex", "NominalPercentageOfCardiacPhase", "TriggerTime",
)  # fmt: skip
CT_KEYS = (
    "SOPClassUID", "SOPInstanceUID", "Modality", "ImageType", "PatientID", "StudyInstanceUID",
    "SeriesInstanceUID", "FrameOfReferenceUID", "ImagePositionPatient", "ImageOrientationPatient",
    "PixelSpacing", "Rows", "Columns", "SliceThickness", "ConvolutionKernel", "ContrastBolusAgent",
    "InstanceNumber", "AcquisitionNumber", "EchoNumbers", "KVP", "AcquisitionTime", *_TIME_KEYS, *_PIXEL_KEYS,
)  # fmt: skip
_TAGS = {key: Tag(key) for key in CT_KEYS}
_BINARY = {key for key, tag in _TAGS.items() if dictionary_VR(tag) in ("US", "US or SS", "UL")}


@dataclass(frozen=True)
class StoredPixels:
    """The storage of the numbers of a slice in its file, and their conversion to HU."""

    syntax: str  # transfer syntax UID
    offset: int  # byte where the first pixel of this frame lies; -1 where a decoder must find it
    bits: tuple[int, int, int]  # allocated, stored, high bit
    is_signed: bool
    photometric: str
    slope: float | None
    intercept: float | None
    padding: tuple[int, ...] = ()  # PixelPaddingValue, and PixelPaddingRangeLimit if there is one
    is_lossy: bool = False


@dataclass(frozen=True)
class SliceFile:
    """One CT slice: its file (and frame), its place in LPS millimetres, and the storage of its numbers."""

    path: Path
    frame: int  # of a multi-frame file, from 0
    patient: str
    study_uid: str
    series_uid: str
    frame_uid: str
    sop_uid: str
    image_type: tuple[str, ...]
    position_mm: tuple[float, ...]
    orientation: tuple[float, ...]
    pixel_spacing_mm: tuple[float, float]  # between columns (x), between rows (y)
    size: tuple[int, int]  # columns, rows
    thickness_mm: float | None
    kernel: str
    has_contrast: bool
    instance: int | None
    marks: tuple[str, ...]  # one a name in MARKS, empty where the file has none
    pixels: StoredPixels

    @property
    def name(self) -> str:
        """The file, and the frame of a multi-frame file, for messages."""
        return f"{self.path.name} frame {self.frame + 1}" if self.frame else self.path.name


@dataclass(frozen=True)
class OutlineFile:
    """A file of outlines and the CT that it names."""

    path: Path
    kind: str  # rtstruct, seg, lidc-xml
    patient: str = ""
    series_uids: frozenset[str] = frozenset()
    frame_uids: frozenset[str] = frozenset()
    sop_uids: frozenset[str] = frozenset()  # images it refers to
    is_automatic: bool = False


@dataclass(frozen=True)
class FileFacts:
    """The content of one file: slices of a CT, an outline, a reason of damage, or another kind of file."""

    slices: tuple[SliceFile, ...] = ()
    outline: OutlineFile | None = None
    damage: str = ""
    ignored: str = ""


class DamagedHeaderError(Exception):
    """A header that is a CT's and cannot be used; the text gives the reason."""


class NotHuError(Exception):
    """A CT image whose numbers are something else: effective atomic numbers, iodine."""


def slice_of(path: Path, header: Dataset, stream: BinaryIO, file_size: int) -> SliceFile:
    """Return the facts of a single-slice CT image.

    Args:
        path: The file.
        header: Its data set, read up to the pixels.
        stream: Stands at the pixel data.
        file_size: In bytes.

    Raises:
        DamagedHeaderError: A number that places the slice is missing or not a number, or the file ends early.
        NotHuError: The numbers are no HU.
    """
    if text_of(header, "RescaleType").upper() not in HU_TYPES:
        raise NotHuError
    if (whole_number(header, "NumberOfFrames") or 1) > 1:
        raise DamagedHeaderError("holds several frames but is no multi-frame CT")
    size = (whole_number(header, "Columns") or 0, whole_number(header, "Rows") or 0)
    geometry = geometry_of(header, header, header)
    kernel = text_of(header, "ConvolutionKernel")
    image_type = tuple(str(part).upper() for part in values_of(header, "ImageType"))
    thickness = number(header, "SliceThickness")
    return SliceFile(
        path=path,
        frame=0,
        patient=str(header.get("PatientID") or "").strip(),
        study_uid=text_of(header, "StudyInstanceUID"),
        series_uid=text_of(header, "SeriesInstanceUID"),
        frame_uid=text_of(header, "FrameOfReferenceUID"),
        sop_uid=text_of(header, "SOPInstanceUID"),
        image_type=image_type,
        size=size,
        **geometry,
        thickness_mm=thickness,
        kernel=kernel,
        has_contrast=bool(text_of(header, "ContrastBolusAgent")),
        instance=whole_number(header, "InstanceNumber"),
        marks=(
            matrix_of(size, geometry),
            f"{thickness:g}" if thickness else "",
            kernel,
            "\\".join(image_type),
            "",
            " ".join(text_of(header, key) for key in _TIME_KEYS).strip(),
            text_of(header, "AcquisitionNumber"),
            text_of(header, "EchoNumbers"),
            text_of(header, "KVP"),
            text_of(header, "AcquisitionTime"),
        ),
        pixels=stored_pixels(header, header, native_offset(header, stream, file_size, 0)),
    )


def geometry_of(position: Dataset, orientation: Dataset, measures: Dataset) -> dict[str, Any]:
    """Return position, direction cosines and pixel spacing as keywords of `SliceFile`."""
    first_pixel = numbers(position, "ImagePositionPatient", 3)
    cosines = numbers(orientation, "ImageOrientationPatient", 6)
    row, column = np.array(cosines).reshape(2, 3)
    # 0.5 is a coarse limit against parallel or zero cosines; `check_alike` has the exact one.
    if float(np.linalg.norm(np.cross(row, column))) < 0.5:
        raise DamagedHeaderError("its rows and columns are not at right angles")
    # DICOM names the distance between rows, along y, first (PS3.3, 10.7.1.3).
    between_rows, between_columns = numbers(measures, "PixelSpacing", 2)
    if min(between_rows, between_columns) <= 0:
        raise DamagedHeaderError("its pixel spacing is not positive")
    return {
        "position_mm": first_pixel,
        "orientation": cosines,
        "pixel_spacing_mm": (between_columns, between_rows),
    }


def matrix_of(size: tuple[int, int], geometry: dict[str, Any]) -> str:
    """Return size and pixel spacing as a mark of a reconstruction."""
    x, y = geometry["pixel_spacing_mm"]
    return f"{size[0]} x {size[1]} pixels of {x:.3f} x {y:.3f} mm"


def stored_pixels(header: Dataset, rescale: Dataset, offset: int) -> StoredPixels:
    """Return how the numbers are stored; `rescale` is the data set that holds slope and intercept."""
    allocated = whole_number(header, "BitsAllocated") or 16
    stored = whole_number(header, "BitsStored") or allocated
    high = whole_number(header, "HighBit")
    high_bit = stored - 1 if high is None else min(max(high, stored - 1), allocated - 1)
    samples = whole_number(header, "SamplesPerPixel") or 1
    if samples != 1:
        raise DamagedHeaderError(f"holds colour ({samples} samples a pixel), no CT")
    # Other depths exist in the standard, but no CT has them.
    if allocated not in (8, 16, 32) or not 0 < stored <= allocated:
        raise DamagedHeaderError(f"stores {stored} of {allocated} bits, which no CT does")
    padding = [whole_number(header, key) for key in ("PixelPaddingValue", "PixelPaddingRangeLimit")]
    slope, intercept = (number(rescale, key) for key in ("RescaleSlope", "RescaleIntercept"))
    # All voxels would have one value.
    if slope == 0:
        raise DamagedHeaderError("its rescale slope is 0")
    return StoredPixels(
        syntax=_syntax(header),
        offset=offset,
        bits=(allocated, stored, high_bit),
        is_signed=whole_number(header, "PixelRepresentation") == 1,
        photometric=text_of(header, "PhotometricInterpretation"),
        slope=slope,
        intercept=intercept,
        padding=tuple(value for value in padding if value is not None),
        is_lossy=text_of(header, "LossyImageCompression") == "01",
    )


def native_offset(header: Dataset, stream: BinaryIO, file_size: int, frame: int) -> int:
    """Return the byte where a frame's pixels start in the file, or -1 where a decoder must look for them.

    Raises:
        DamagedHeaderError: The file ends before the pixels do.
    """
    syntax = _syntax(header)
    if syntax not in NATIVE:
        return -1
    start = stream.tell()
    head = stream.read(12)
    stream.seek(start)
    # The tag of PixelData, then its length; explicit syntaxes have four bytes of VR between them.
    big = syntax == BIG_ENDIAN
    if head[:4] != (b"\x7f\xe0\x00\x10" if big else b"\xe0\x7f\x10\x00"):
        raise DamagedHeaderError("is truncated: its pixel data ends early or is missing")
    is_implicit = syntax == NATIVE[0]
    # Tag 4 bytes and length 4; explicit OW has VR 2, reserved 2 and length 4 instead (PS3.5, 7.1).
    first = start + (8 if is_implicit else 12)
    length = int.from_bytes(head[4:8] if is_implicit else head[8:12], "big" if big else "little")
    pixels = (whole_number(header, "Rows") or 0) * (whole_number(header, "Columns") or 0)
    frame_bytes = (whole_number(header, "BitsAllocated") or 16) // 8 * pixels
    needed = frame_bytes * (frame + 1)
    if file_size < first + needed or length < needed:
        raise DamagedHeaderError("is truncated: its pixel data ends early or is missing")
    return first + frame_bytes * frame


def _syntax(header: Dataset) -> str:
    """Return the transfer syntax, for files without a file meta group the one they were found to be in."""
    is_implicit, is_little = header.original_encoding
    detected = NATIVE[0] if is_implicit else NATIVE[1 if is_little else 2]
    syntax = str(getattr(header, "file_meta", Dataset()).get("TransferSyntaxUID", "")) or detected
    if UID(syntax).type != "Transfer Syntax":
        raise DamagedHeaderError("is stored in a transfer syntax that DICOM does not know")
    return syntax


def values_of(header: Dataset, key: str) -> tuple[Any, ...]:
    """Return the values of an element, none where it is absent or empty; numbers in decimals stay text.

    An element that pydicom has not converted yet is read from its bytes, many times faster.
    """
    element: Any = header.get_item(_TAGS[key]) if key in _TAGS else None
    if isinstance(element, RawDataElement) and isinstance(element.value, bytes):
        if key in _BINARY:
            # Headers of a tree are tens of thousands: converting each element by pydicom would dominate.
            order: Literal["little", "big"] = "little" if element.is_little_endian else "big"
            return (int.from_bytes(element.value[:4], order),) if element.value else ()
        # Every byte is a character of latin-1, so decoding never fails.
        text = element.value.decode("latin-1").strip("\0 ")
        return tuple(part.strip() for part in text.split("\\")) if text else ()
    value = header.get(key)
    if value is None or value == "":
        return ()
    return tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else (value,)


def numbers(header: Dataset, key: str, count: int) -> tuple[float, ...]:
    """Return exactly `count` finite numbers, or the header is damaged."""
    values = tuple(float(value) for value in values_of(header, key))
    if len(values) != count or not all(abs(value) < MOST_NUMBER for value in values):  # nan is not below
        raise DamagedHeaderError(f"its {key} is not {count} numbers")
    return values


def number(header: Dataset, key: str) -> float | None:
    """Return one finite number, None where the element is absent or empty."""
    values = values_of(header, key)
    return numbers(header, key, len(values))[0] if values else None


def whole_number(header: Dataset, key: str) -> int | None:
    """Return one whole number, None where the element is absent, empty or written as bytes."""
    values = values_of(header, key)
    return int(float(values[0])) if values and not isinstance(values[0], bytes) else None


def text_of(header: Dataset, key: str) -> str:
    """Return the element as one line of text, empty where it is absent or cannot be read."""
    try:
        return " ".join(" ".join(str(value) for value in values_of(header, key)).split())
    except Exception:  # pydicom converts a value only now, and raises nearly anything
        return ""


def functional_group(name: str, frame: Dataset, shared: Dataset) -> Dataset:
    """Return the one item of a functional group, of the frame or shared by all frames; empty without one."""
    item: Dataset = (frame.get(name) or shared.get(name) or [Dataset()])[0]
    return item
