"""Identify one file by its first bytes and its DICOM header, never by its name."""

import os
import warnings
import zlib
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from pydicom import Dataset, dcmread
from pydicom.uid import UID

from radiogen.errors import SeriesError
from radiogen.io.dicom.lidc import is_lidc_xml, lidc_series_uid
from radiogen.io.dicom.slice_header import (
    CT_IMAGE,
    DEFLATED,
    HU_TYPES,
    DamagedHeaderError,
    FileFacts,
    NotHuError,
    OutlineFile,
    SliceFile,
    functional_group,
    geometry_of,
    matrix_of,
    native_offset,
    number,
    slice_of,
    stored_pixels,
    text_of,
    values_of,
    whole_number,
)

# SOP Class UIDs are those of DICOM PS3.4, table B.5-1.
ENHANCED_CT = ("1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2")  # the second is converted
RTSTRUCT = "1.2.840.10008.5.1.4.1.1.481.3"
SEG = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")  # the second holds labels
MOST_BYTES = 4_000_000_000  # of a file that is read whole: larger than any outline
MOST_INFLATED = 1 << 30  # bytes; a deflated file that grows beyond is taken for a bomb

_OUTLINE_KEYS = (
    "SOPClassUID", "Modality", "PatientID", "FrameOfReferenceUID", "ReferencedSeriesSequence",
    "ReferencedFrameOfReferenceSequence", "SegmentSequence",
)  # fmt: skip
# Without the 128-byte preamble a data set starts with group 0002 or 0008, little or big endian.
_BARE_STARTS = (
    b"\x08\x00\x00\x00", b"\x08\x00\x05\x00", b"\x08\x00\x08\x00", b"\x02\x00\x00\x00",
    b"\x02\x00\x01\x00", b"\x00\x08\x00\x05", b"\x00\x08\x00\x08", b"\x02\x00\x10\x00",
)  # fmt: skip


def read_facts(path: Path) -> FileFacts:
    """Read the header of one file. Whatever the file holds, there is an answer, never an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom warns of odd values that are not used here
        try:
            with path.open("rb") as file:
                return _facts(path, file)
        except OSError as error:
            return FileFacts(damage=f"cannot be read: {error.strerror}")


def read_outline_file(path: Path) -> OutlineFile:
    """Read which CT an outline file names.

    Raises:
        SeriesError: It is neither RTSTRUCT nor DICOM SEG nor LIDC XML.
    """
    facts = read_facts(path)
    if facts.damage:
        raise SeriesError(path, facts.damage, "copy the file again")
    if facts.outline is None:
        raise SeriesError(path, "is no outline", "give an RTSTRUCT, a DICOM SEG, a LIDC XML or a mask file")
    return facts.outline


def read_whole(path: Path) -> Dataset:
    """Read a DICOM file with all it holds.

    Raises:
        ValueError: It is larger than an outline can be.
        Exception: It is damaged; pydicom raises nearly anything.
    """
    if path.stat().st_size > MOST_BYTES:
        raise ValueError(f"it is larger than {MOST_BYTES} bytes")
    with path.open("rb") as file:
        stream = _inflated(file, file.read(2048))
        stream.seek(0)
        return dcmread(stream, force=True)


def looks_like_dicom(head: bytes) -> bool:
    """Return whether the first bytes of a file (132 at least) are those of DICOM, with a preamble or not."""
    return head[128:132] == b"DICM" or head[:4] in _BARE_STARTS


def _facts(path: Path, file: BinaryIO) -> FileFacts:
    head = file.read(2048)
    # LIDC readings are no DICOM, but lie among the slices.
    if is_lidc_xml(head):
        uid = lidc_series_uid(path)
        return FileFacts(outline=OutlineFile(path, "lidc-xml", series_uids=frozenset({uid} - {""})))
    if looks_like_dicom(head):
        return _dicom_facts(path, file, head)
    # A name is no proof of DICOM, but a file of such a name that is none is damaged, not foreign.
    if path.suffix.lower() in (".dcm", ".dicom", ".ima"):
        return FileFacts(damage="does not start like DICOM" if head else "is empty")
    return FileFacts(ignored="not DICOM")


def _dicom_facts(path: Path, file: BinaryIO, head: bytes) -> FileFacts:
    # Without the mark the first bytes may be like DICOM by chance, and an error proves nothing.
    certain = head[128:132] == b"DICM"
    try:
        stream = _inflated(file, head)
        stream.seek(0)
        # Of outlines little is read, their sequences are long. Without a preamble reading must be forced.
        tags = list(_OUTLINE_KEYS) if any(uid.encode() in head for uid in (RTSTRUCT, *SEG)) else None
        header = dcmread(stream, stop_before_pixels=True, specific_tags=tags, force=not certain)
        return _kind_of(path, stream, header, certain)
    except NotHuError:
        return FileFacts(ignored="CT that is not in HU")
    except DamagedHeaderError as error:
        return FileFacts(damage=str(error))
    except Exception as error:  # damaged headers make pydicom raise nearly anything
        if certain:
            return FileFacts(damage=f"has a damaged header ({type(error).__name__})")
        return FileFacts(ignored="not DICOM")


def _inflated(file: BinaryIO, head: bytes) -> BinaryIO:
    """Return the file itself, or for the deflated syntax a copy whose inflated size was checked first."""
    if DEFLATED.encode() not in head:
        return file
    file.seek(0)
    whole = file.read()
    # 132 bytes of preamble and mark, then the 12 bytes of (0002,0000) UL with the length of its group.
    start = 132 + 12 + int.from_bytes(whole[140:144], "little")  # behind the file meta group
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    # Inflated in parts and thrown away, only to measure: a small file may hold a thousand times its size.
    size, rest = 0, whole[start:]
    while rest and not inflater.eof:
        size += len(inflater.decompress(rest, 1 << 24))
        rest = inflater.unconsumed_tail
        if size > MOST_INFLATED:
            raise DamagedHeaderError(f"inflates to more than {MOST_INFLATED >> 30} GiB")
    return BytesIO(whole)


def _kind_of(path: Path, stream: BinaryIO, header: Dataset, certain: bool) -> FileFacts:
    sop_class = str(header.get("SOPClassUID", ""))
    if sop_class == CT_IMAGE:
        return _ct_facts(path, stream, header)
    if sop_class in ENHANCED_CT:
        stream.seek(0)
        whole = dcmread(stream, stop_before_pixels=True, force=not certain)
        frames = _frames(path, whole, stream, _file_size(stream))
        if "LOCALIZER" in frames[0].image_type:
            return FileFacts(ignored="localizer")
        return FileFacts(slices=frames)
    if sop_class == RTSTRUCT:
        return FileFacts(outline=_rtstruct(path, header))
    if sop_class in SEG:
        return FileFacts(outline=_seg(path, header))
    if sop_class or not certain:
        return FileFacts(ignored=_name_of(sop_class, str(header.get("Modality", ""))))
    # A data set of a CT without a SOP class was cut off: group 0008 is the first behind the file meta.
    if header.file_meta.get("MediaStorageSOPClassUID", "") in (CT_IMAGE, *ENHANCED_CT, ""):
        return FileFacts(damage="ends within the header")
    return FileFacts(ignored="other DICOM")


def _frames(path: Path, header: Dataset, stream: BinaryIO, file_size: int) -> tuple[SliceFile, ...]:
    """Return the frames of an enhanced CT as slices, in the order of the file.

    Args:
        path: The file.
        header: Its whole data set up to the pixels.
        stream: Stands at the pixel data.
        file_size: In bytes.

    Raises:
        DamagedHeaderError: The frames and their functional groups do not agree, or a place is missing.
        NotHuError: The numbers are no HU.
    """
    count = whole_number(header, "NumberOfFrames") or 1
    groups = list(header.get("PerFrameFunctionalGroupsSequence") or ())
    if len(groups) != count:
        raise DamagedHeaderError(f"has {count} frames but places for {len(groups)}")
    if not whole_number(header, "Rows") or not whole_number(header, "Columns"):
        raise DamagedHeaderError("has no rows or columns")
    shared = (header.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    native_offset(header, stream, file_size, count - 1)  # a file that ends early is damaged as a whole
    return tuple(
        _frame(path, header, shared, group, n, native_offset(header, stream, file_size, n))
        for n, group in enumerate(groups)
    )


def _frame(path: Path, header: Dataset, shared: Dataset, group: Dataset, n: int, offset: int) -> SliceFile:
    rescale = functional_group("PixelValueTransformationSequence", group, shared)
    # Spectral CT stores iodine or effective atomic numbers in the same SOP class (PS3.3, C.11.1).
    if text_of(rescale, "RescaleType").upper() not in HU_TYPES:
        raise NotHuError
    measures = functional_group("PixelMeasuresSequence", group, shared)
    content = functional_group("FrameContentSequence", group, shared)
    thickness = number(measures, "SliceThickness")
    kernel = text_of(functional_group("CTReconstructionSequence", group, shared), "ConvolutionKernel")
    frame_type = values_of(functional_group("CTImageFrameTypeSequence", group, shared), "FrameType")
    image_type = tuple(str(part).upper() for part in frame_type or values_of(header, "ImageType"))
    geometry = geometry_of(
        functional_group("PlanePositionSequence", group, shared),
        functional_group("PlaneOrientationSequence", group, shared),
        measures,
    )
    size = (whole_number(header, "Columns") or 0, whole_number(header, "Rows") or 0)
    times = ("TemporalPositionIndex", "FrameAcquisitionNumber")
    cardiac = functional_group("CardiacSynchronizationSequence", group, shared)
    return SliceFile(
        path=path,
        frame=n,
        patient=str(header.get("PatientID") or "").strip(),
        study_uid=str(header.get("StudyInstanceUID", "")),
        series_uid=str(header.get("SeriesInstanceUID", "")),
        frame_uid=str(header.get("FrameOfReferenceUID", "")),
        sop_uid=str(header.get("SOPInstanceUID", "")),
        image_type=image_type,
        size=size,
        **geometry,
        thickness_mm=thickness,
        kernel=kernel,
        has_contrast=bool(header.get("ContrastBolusAgentSequence")),
        instance=None,
        marks=(
            matrix_of(size, geometry),
            f"{thickness:g}" if thickness else "",
            kernel,
            "\\".join(image_type),
            text_of(content, "StackID"),
            f"{text_of(content, times[0])} {text_of(cardiac, 'NominalPercentageOfCardiacPhase')}".strip(),
            text_of(content, times[1]),
            "",
            text_of(functional_group("CTXRayDetailsSequence", group, shared), "KVP"),
            text_of(content, "FrameAcquisitionDateTime"),
        ),
        pixels=stored_pixels(header, rescale, offset),
    )


def _ct_facts(path: Path, stream: BinaryIO, header: Dataset) -> FileFacts:
    if "LOCALIZER" in [str(part).upper() for part in values_of(header, "ImageType")]:
        return FileFacts(ignored="localizer")
    if not whole_number(header, "Rows") or not whole_number(header, "Columns"):
        return FileFacts(damage="ends within the header")
    # Reformats and screenshots stored as CT may have no position; they cannot be part of a volume.
    if not values_of(header, "ImagePositionPatient") or not values_of(header, "ImageOrientationPatient"):
        return FileFacts(ignored="CT image without a position")
    return FileFacts(slices=(slice_of(path, header, stream, _file_size(stream)),))


def _file_size(stream: BinaryIO) -> int:
    here = stream.tell()
    size = stream.seek(0, os.SEEK_END)
    stream.seek(here)
    return size


def _name_of(sop_class: str, modality: str) -> str:
    if not sop_class:
        return "not DICOM"
    name = UID(sop_class).name
    for part, kind in (
        ("Secondary Capture", "secondary capture"),
        ("Dose", "dose report"),
        ("Directory", "DICOMDIR"),
    ):
        if part in name:
            return kind
    # Modality comes from the file: only letters and digits of it reach a message.
    known = {"PT": "PET", "SR": "structured report"}
    return known.get(modality, f"{modality if modality.isalnum() else 'other'} DICOM")


def _rtstruct(path: Path, header: Dataset) -> OutlineFile:
    frame_uids, series_uids, images = set(), set(), set()
    for frame in header.get("ReferencedFrameOfReferenceSequence") or ():
        frame_uids.add(str(frame.get("FrameOfReferenceUID", "")))
        for study in frame.get("RTReferencedStudySequence") or ():
            for one in study.get("RTReferencedSeriesSequence") or ():
                series_uids.add(str(one.get("SeriesInstanceUID", "")))
                images |= _images(one, "ContourImageSequence")
    return OutlineFile(
        path,
        "rtstruct",
        str(header.get("PatientID") or "").strip(),
        frozenset(series_uids - {""}),
        frozenset(frame_uids - {""}),
        frozenset(images),
    )


def _images(series: Dataset, key: str) -> set[str]:
    return {str(image.get("ReferencedSOPInstanceUID", "")) for image in series.get(key) or ()}


def _seg(path: Path, header: Dataset) -> OutlineFile:
    referenced = header.get("ReferencedSeriesSequence") or ()
    series = {str(one.get("SeriesInstanceUID", "")) for one in referenced}
    images = [_images(one, "ReferencedInstanceSequence") for one in referenced]
    algorithms = [str(one.get("SegmentAlgorithmType", "")) for one in header.get("SegmentSequence") or ()]
    return OutlineFile(
        path,
        "seg",
        str(header.get("PatientID") or "").strip(),
        frozenset(series - {""}),
        frozenset({str(header.get("FrameOfReferenceUID", ""))} - {""}),
        frozenset().union(*images),
        is_automatic=bool(algorithms) and all(kind == "AUTOMATIC" for kind in algorithms),
    )
