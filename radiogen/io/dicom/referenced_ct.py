"""Name the CT series that a DICOM object of ours refers to: its UIDs, its slices, and its patient.

A case folder keeps no UIDs: a SeriesInstanceUID leads anybody with access to the PACS to the patient. So
DICOM output reads them from the series again.
"""

import re
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from pydicom import Dataset, dcmread
from pydicom.uid import UID, generate_uid

from radiogen.errors import SeriesError
from radiogen.io.dicom.series import Series
from radiogen.io.dicom.slice_header import CT_IMAGE

ON_SLICE_MM = 0.05  # a plane of the grid nearer than this to a slice is that slice
# Of objects without identity: the time of writing would give other bytes in every run.
NO_DATE = "19000101"
NO_TIME = "000000"
# Most characters of a value: PS3.5, 6.2 allows 64 for LO and a group of PN, 16 for SH.
_LENGTHS = {
    "PatientName": 64,
    "PatientID": 64,
    "StudyID": 16,
    "AccessionNumber": 16,
    "ReferringPhysicianName": 64,
    "StudyDescription": 64,
    "IssuerOfPatientID": 64,
}
_PATTERNS = {
    "PatientBirthDate": r"\d{8}",
    "StudyDate": r"\d{8}",
    "PatientSex": "[MFO]",
    "StudyTime": r"\d{2}([0-5]\d([0-5]\d(\.\d{1,6})?)?)?",
}
_UID = re.compile(r"[0-9.]{1,64}")
IDENTITY = (*_LENGTHS, *_PATTERNS)
# Type 3 elements may be absent; the others are type 2 and stand in an object even when empty (PS3.5, 7.4).
_OPTIONAL = ("StudyDescription", "IssuerOfPatientID")


@dataclass(frozen=True)
class ScanSlice:
    """One slice: its SOPInstanceUID and its first pixel's centre in LPS millimetres."""

    uid: str
    position_mm: tuple[float, ...]


@dataclass(frozen=True)
class ReferencedCt:
    """A CT series as DICOM objects refer to it.

    Attributes:
        study_uid: StudyInstanceUID, which objects share with their CT.
        series_uid: SeriesInstanceUID of the CT.
        frame_uid: FrameOfReferenceUID.
        sop_class: The kind of its images.
        slices: In any order.
        identity: The elements on patient and study that objects get.
        is_lossy: Whether the CT was compressed with loss, which derived objects must state.
    """

    study_uid: str
    series_uid: str
    frame_uid: str
    sop_class: str
    slices: tuple[ScanSlice, ...]
    identity: Dataset
    is_lossy: bool = False

    def without_patient(self, pseudonym: str) -> "ReferencedCt":
        """Return the same scan; its objects bear a pseudonym, no dates and nothing else of the patient."""
        empty = Dataset()
        empty.SpecificCharacterSet = "ISO_IR 192"
        for name in (n for n in IDENTITY if n not in _OPTIONAL):
            setattr(empty, name, "")
        empty.PatientID = empty.PatientName = pseudonym
        # PS3.3, C.7.1.1: whoever says that the identity was removed must say by which method.
        empty.PatientIdentityRemoved = "YES"
        empty.DeidentificationMethod = "radiogen: patient and dates left out, UIDs of the CT kept"
        return replace(self, identity=empty)

    @property
    def date(self) -> str:
        """Of the study, so that the same input gives the same object."""
        return str(self.identity.StudyDate or "") or NO_DATE

    @property
    def time(self) -> str:
        return str(self.identity.StudyTime or "") or NO_TIME

    def slices_on(self, grid: sitk.Image) -> list[ScanSlice | None]:
        """Return the slice on each plane of a grid, None where planes lie between slices (resampled)."""
        positions = np.array([one.position_mm for one in self.slices])
        slices: list[ScanSlice | None] = []
        for k in range(grid.GetSize()[2]):
            off = np.linalg.norm(positions - grid.TransformIndexToPhysicalPoint((0, 0, k)), axis=1)
            nearest = int(off.argmin())
            slices.append(self.slices[nearest] if off[nearest] <= ON_SLICE_MM else None)
        return slices


def read_scan(series: Series) -> ReferencedCt:
    """Return the facts of a CT series that objects refer to; one header is read, with the identity.

    Raises:
        SeriesError: The series is an enhanced multi-frame CT, names no frame of reference or several, has
            a UID that is none, or cannot be read.
    """
    first = series.slices[0]
    sop_class, identity = _header(first.path)
    # highdicom and PACS viewers refer to single slices by UID; frames of one file have only one.
    if any(one.frame for one in series.slices) or sop_class != CT_IMAGE:
        wrong = "is no CT of single slices, DICOM output cannot refer to it"
        raise SeriesError(series.folder, wrong, "take --format nifti")
    frames = series.frame_of_reference_uids
    if len(frames) != 1:
        wrong = f"names {len(frames) or 'no'} frames of reference, DICOM output needs one"
        raise SeriesError(series.folder, wrong, "take --format nifti")
    uids = (first.study_uid, series.uid, *frames, *(place[0].sop_uid for place in series.stack.places))
    if not all(_UID.fullmatch(uid) for uid in uids):
        wrong = "has a UID that is none (digits and dots, 64 at most), DICOM output cannot refer to it"
        raise SeriesError(series.folder, wrong, "take --format nifti")
    return ReferencedCt(
        study_uid=first.study_uid,
        series_uid=series.uid,
        frame_uid=next(iter(frames)),
        sop_class=sop_class,
        slices=tuple(ScanSlice(place[0].sop_uid, place[0].position_mm) for place in series.stack.places),
        identity=identity,
        is_lossy=any(one.pixels.is_lossy for one in series.slices),
    )


def _header(path: Path) -> tuple[str, Dataset]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom warns of odd values, which are made harmless below
        try:
            keys = ["SOPClassUID", "SpecificCharacterSet", *IDENTITY]
            header = dcmread(path, stop_before_pixels=True, specific_tags=keys, force=True)
            identity = Dataset()
            identity.SpecificCharacterSet = "ISO_IR 192"
            for name in IDENTITY:
                value = clean_value(name, _text(header, name))
                if value or name not in _OPTIONAL:
                    setattr(identity, name, value)
            return str(header.get("SOPClassUID") or ""), identity
        except Exception as error:  # damaged files make pydicom raise nearly anything
            raise SeriesError(path, "has a header that cannot be read", "copy the file again") from error


def _text(header: Dataset, name: str) -> str:
    try:
        return str(header.get(name) or "")
    except Exception:  # pydicom converts a value only now, and raises nearly anything
        return ""


def clean_value(name: str, value: str) -> str:
    """Return a value of the patient or study that a DICOM file may hold: one line, one value, not too long.

    >>> clean_value("PatientName", "Doe^Jane\\x00\\r\\n<script>")
    'Doe^Jane <script>'
    >>> clean_value("PatientSex", "unknown")
    ''
    """
    if name in _PATTERNS:
        return value.strip() if re.fullmatch(_PATTERNS[name], value.strip()) else ""
    return one_line(value, _LENGTHS[name])


def one_line(value: str, longest: int = 64) -> str:
    """Return a value as DICOM may hold it and a terminal may show it: printable, no backslash, cut off.

    >>> one_line("GTV-1\\x1b[31m\\n2")
    'GTV-1 [31m 2'
    """
    printable = "".join(c if c.isprintable() and c != "\\" else " " for c in value)
    return " ".join(printable.split()).encode("utf-8", "replace").decode()[:longest].strip()


def derived_uid(*words: str) -> UID:
    """Return a new UID that depends on nothing but the words."""
    return generate_uid(entropy_srcs=["radiogen", *words])


def make_reproducible(item: Dataset, date: str, time: str, dimensions: str) -> None:
    """Replace the times and UIDs that highdicom takes from the clock and at random.

    Args:
        item: An object of highdicom.
        date: DA.
        time: TM.
        dimensions: DimensionOrganizationUID.
    """
    # The same mask must give the same bytes; the real time of writing stands in the run record.
    for name in ("InstanceCreation", "Content", "Series"):
        if f"{name}Date" in item:
            setattr(item, f"{name}Date", date)
            setattr(item, f"{name}Time", time)
    if "SeriesDate" not in item:
        item.SeriesDate, item.SeriesTime = date, time
    for equipment in item.get("ContributingEquipmentSequence") or ():
        equipment.ContributionDateTime = f"{date}{time}"
    for sequence in ("DimensionOrganizationSequence", "DimensionIndexSequence"):
        for dimension in item.get(sequence) or ():
            dimension.DimensionOrganizationUID = dimensions
