"""Find CT slices and outlines in any folder by what the files hold, never by what they are called."""

import os
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydicom import Dataset, dcmread
from pydicom.uid import UID

from radiogen.errors import SeriesError
from radiogen.io.lidc_xml import is_lidc_xml, lidc_series_uid

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
ENHANCED_CT = ("1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2")
RTSTRUCT = "1.2.840.10008.5.1.4.1.1.481.3"
SEG = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
HU_TYPES = ("", "HU", "US")  # RescaleType; US is "unspecified"

_KEYS = (
    *("SOPClassUID", "SOPInstanceUID", "Modality", "ImageType", "PatientID", "StudyInstanceUID"),
    *("SeriesInstanceUID", "FrameOfReferenceUID", "ImagePositionPatient", "ImageOrientationPatient"),
    *("PixelSpacing", "Rows", "Columns", "RescaleType"),
    *("ReferencedFrameOfReferenceSequence", "ReferencedSeriesSequence", "SegmentSequence"),
)
# Without the 128-byte preamble a data set starts with group 0002 or 0008, little or big endian.
_BARE_STARTS = (
    *(b"\x08\x00\x00\x00", b"\x08\x00\x05\x00", b"\x08\x00\x08\x00", b"\x02\x00\x00\x00"),
    *(b"\x02\x00\x01\x00", b"\x00\x08\x00\x05", b"\x00\x08\x00\x08"),
)


@dataclass(frozen=True)
class SliceFile:
    """One CT slice: its file and what orders it. Millimetres are LPS."""

    path: Path
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


@dataclass(frozen=True)
class OutlineFile:
    """A file of outlines and the CT it says it belongs to."""

    path: Path
    kind: str  # rtstruct, seg, lidc-xml
    patient: str = ""
    series_uids: frozenset[str] = frozenset()
    frame_uids: frozenset[str] = frozenset()
    is_automatic: bool = False


@dataclass
class DicomTree:
    """What a folder holds: CT slices, outlines, files that cannot be read, and how many of what else."""

    slices: list[SliceFile] = field(default_factory=list)
    outlines: list[OutlineFile] = field(default_factory=list)
    damaged: dict[Path, str] = field(default_factory=dict)
    ignored: Counter[str] = field(default_factory=Counter)


def find_dicom(folder: Path, leave_out: Path | None = None) -> DicomTree:
    """Read the header of every file below a folder; links to folders and hidden files are not followed.

    Args:
        folder: Where to look, at any depth.
        leave_out: A folder below it that is not looked into.
    """
    tree = DicomTree()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom warns of odd values that are not used here
        for path in walk_files(folder, leave_out):
            _add(tree, path)
    return tree


def walk_files(folder: Path, leave_out: Path | None = None) -> Iterator[Path]:
    """Files below a folder in a stable order, without hidden ones.

    Raises:
        SeriesError: A folder cannot be opened.
    """
    for here, folders, names in os.walk(folder, onerror=_refuse_folder):
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".") and (leave_out is None or Path(here, name).resolve() != leave_out)
        )
        yield from (Path(here, name) for name in sorted(names) if not name.startswith("."))


def _refuse_folder(error: OSError) -> None:
    raise SeriesError(error.filename, f"cannot be opened: {error.strerror}", "ask for access") from error


def read_outline_file(path: Path) -> OutlineFile:
    """What one outline file says it belongs to.

    Raises:
        SeriesError: It is neither RTSTRUCT nor DICOM SEG nor LIDC XML.
    """
    tree = DicomTree()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _add(tree, path)
    if tree.damaged:
        raise SeriesError(path, tree.damaged[path], "copy the file again")
    if not tree.outlines:
        raise SeriesError(path, "is no outline", "give an RTSTRUCT, a DICOM SEG, a LIDC XML or a mask file")
    return tree.outlines[0]


def _add(tree: DicomTree, path: Path) -> None:
    try:
        with path.open("rb") as file:
            head = file.read(2048)
    except OSError as error:
        tree.damaged[path] = f"cannot be read: {error.strerror}"
        return
    if is_lidc_xml(head):
        uid = lidc_series_uid(path)
        tree.outlines.append(OutlineFile(path, "lidc-xml", series_uids=frozenset({uid} - {""})))
    elif _starts_like_dicom(head):
        _add_dicom(tree, path, certain=head[128:132] == b"DICM")
    elif path.suffix.lower() in (".dcm", ".dicom", ".ima"):
        tree.damaged[path] = "does not start like DICOM" if head else "is empty"
    else:
        tree.ignored["not DICOM"] += 1


def _starts_like_dicom(head: bytes) -> bool:
    return head[128:132] == b"DICM" or head[:4] in _BARE_STARTS


def _add_dicom(tree: DicomTree, path: Path, certain: bool) -> None:
    try:
        header = dcmread(path, stop_before_pixels=True, specific_tags=list(_KEYS), force=not certain)
        sop_class = str(header.get("SOPClassUID", ""))
        if sop_class == CT_IMAGE:
            _add_ct(tree, path, header)
        elif sop_class == RTSTRUCT:
            tree.outlines.append(_rtstruct(path, header))
        elif sop_class in SEG:
            tree.outlines.append(_seg(path, header))
        elif sop_class or not certain:
            tree.ignored[_kind(sop_class, str(header.get("Modality", "")))] += 1
        elif header.file_meta.get("MediaStorageSOPClassUID", "") in (CT_IMAGE, ""):
            tree.damaged[path] = "ends within the header"
        else:
            tree.ignored["other DICOM"] += 1
    except Exception as error:  # damaged headers make pydicom raise nearly anything
        if certain:
            tree.damaged[path] = f"has a damaged header ({type(error).__name__})"
        else:
            tree.ignored["not DICOM"] += 1


def _kind(sop_class: str, modality: str) -> str:
    if not sop_class:
        return "not DICOM"
    if sop_class in ENHANCED_CT:
        return "enhanced multi-frame CT"
    name = UID(sop_class).name
    for part, kind in (
        ("Secondary Capture", "secondary capture"),
        ("Dose", "dose report"),
        ("Directory", "DICOMDIR"),
    ):
        if part in name:
            return kind
    return {"PT": "PET", "SR": "structured report"}.get(modality, f"{modality or 'other'} DICOM")


def _add_ct(tree: DicomTree, path: Path, header: Dataset) -> None:
    image_type = tuple(str(part).upper() for part in _values(header, "ImageType"))
    if "LOCALIZER" in image_type:
        tree.ignored["localizer"] += 1
    elif str(header.get("RescaleType") or "").strip().upper() not in HU_TYPES:
        tree.ignored["CT that is not in HU"] += 1
    elif not header.get("Rows") or not header.get("Columns"):
        tree.damaged[path] = "ends within the header"
    elif not _values(header, "ImagePositionPatient") or not _values(header, "ImageOrientationPatient"):
        tree.ignored["CT image without a position"] += 1
    else:
        tree.slices.append(_slice(path, header, image_type))


def _slice(path: Path, header: Dataset, image_type: tuple[str, ...]) -> SliceFile:
    between_rows, between_columns = (float(v) for v in _values(header, "PixelSpacing"))
    position = tuple(float(v) for v in _values(header, "ImagePositionPatient"))
    orientation = tuple(float(v) for v in _values(header, "ImageOrientationPatient"))
    if len(position) != 3 or len(orientation) != 6 or min(between_rows, between_columns) <= 0:
        raise ValueError("position, orientation or spacing is incomplete")
    return SliceFile(
        path=path,
        patient=str(header.get("PatientID") or "").strip(),
        study_uid=str(header.get("StudyInstanceUID", "")),
        series_uid=str(header.get("SeriesInstanceUID", "")),
        frame_uid=str(header.get("FrameOfReferenceUID", "")),
        sop_uid=str(header.get("SOPInstanceUID", "")),
        image_type=image_type,
        position_mm=position,
        orientation=orientation,
        pixel_spacing_mm=(between_columns, between_rows),
        size=(int(header.Columns), int(header.Rows)),
    )


def _rtstruct(path: Path, header: Dataset) -> OutlineFile:
    frames, series = set(), set()
    for frame in header.get("ReferencedFrameOfReferenceSequence") or ():
        frames.add(str(frame.get("FrameOfReferenceUID", "")))
        for study in frame.get("RTReferencedStudySequence") or ():
            for one in study.get("RTReferencedSeriesSequence") or ():
                series.add(str(one.get("SeriesInstanceUID", "")))
    patient = str(header.get("PatientID") or "").strip()
    return OutlineFile(path, "rtstruct", patient, frozenset(series - {""}), frozenset(frames - {""}))


def _seg(path: Path, header: Dataset) -> OutlineFile:
    series = {str(one.get("SeriesInstanceUID", "")) for one in header.get("ReferencedSeriesSequence") or ()}
    algorithms = [str(one.get("SegmentAlgorithmType", "")) for one in header.get("SegmentSequence") or ()]
    return OutlineFile(
        path,
        "seg",
        str(header.get("PatientID") or "").strip(),
        frozenset(series - {""}),
        frozenset({str(header.get("FrameOfReferenceUID", ""))} - {""}),
        is_automatic=bool(algorithms) and all(kind == "AUTOMATIC" for kind in algorithms),
    )


def _values(header: Dataset, key: str) -> tuple[Any, ...]:
    value = header.get(key)
    if value is None or value == "":
        return ()
    return (value,) if isinstance(value, (str, int, float)) else tuple(value)
