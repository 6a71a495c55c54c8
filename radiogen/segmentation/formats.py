"""Write the lesions of a case as DICOM SEG, RTSTRUCT and SR beside the NIfTI mask."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import SimpleITK as sitk

from radiogen import __version__
from radiogen.errors import CaseError, ConfigError
from radiogen.io.cases import Case
from radiogen.io.nifti import write_colour_table
from radiogen.measures.lesions import Lesion

if TYPE_CHECKING:
    from pydicom import Dataset

    from radiogen.ingestion.dicom_scans import ReferencedCts
    from radiogen.ingestion.sources import CaseSource
    from radiogen.io.dicom.write_object import Outlines

Format = Literal["nifti", "dicom-seg", "rtstruct", "sr"]
FORMATS: dict[Format, str] = {
    "nifti": "lesion.nii.gz",  # always written
    "dicom-seg": "lesion.seg.dcm",
    "rtstruct": "lesion.rtstruct.dcm",
    "sr": "lesion.sr.dcm",
}
"""The file of each format."""
COLOURS = "lesion.ctbl"


def parse_formats(text: str) -> tuple[Format, ...]:
    """Parse a list of formats with commas; NIfTI is always written, and with an SR the SEG it points at.

    Raises:
        ConfigError: One is unknown.

    >>> parse_formats("sr")
    ('nifti', 'dicom-seg', 'sr')
    """
    names = {part.strip().lower() for part in text.split(",") if part.strip()} | {"nifti"}
    if "sr" in names:
        names.add("dicom-seg")
    unknown = sorted(names - set(FORMATS))
    if unknown:
        raise ConfigError(f"--format {unknown[0]}", "is unknown", f"there are {', '.join(FORMATS)}")
    return tuple(name for name in FORMATS if name in names)


@dataclass(frozen=True)
class FormatWriter:
    """Writes the lesions of a case in the requested formats.

    Attributes:
        formats: As `parse_formats` gives them.
        source: The DICOM that the cases were ingested from, or the one scan whose case it is; None if neither
            was given.
        keep_patient: Copy the identity of the patient from there; else the case id stands in its place.
        model_hash: Of the model that found the lesions.
        home: The folder of results.
    """

    formats: tuple[Format, ...]
    source: "Path | CaseSource | None"
    keep_patient: bool
    model_hash: str
    home: Path

    @cached_property
    def scans(self) -> "ReferencedCts | None":
        """The DICOM series of the source, searched once a run."""
        from radiogen.ingestion.dicom_scans import find_scans, scan_of  # with pydicom: half a second

        if self.source is None:
            return None
        return find_scans(self.source, self.home) if isinstance(self.source, Path) else scan_of(self.source)

    def check(self, case: Case) -> None:
        """Refuse a case that cannot be written in these formats, before it is segmented.

        Raises:
            CaseError: It was made from a volume file, or its DICOM is not at hand.
            SeriesError: DICOM objects cannot refer to its series.
        """
        if self.formats == ("nifti",):
            return
        from radiogen.ingestion.dicom_scans import check_made_from_dicom

        check_made_from_dicom(case)
        if self.scans is None:
            wrong = f"cannot be written as {self.formats[1]} without the DICOM it was made from"
            raise CaseError(case.case_id, wrong, "give its folder with --source, or take --format nifti")
        self.scans.of_case(case, self.keep_patient)

    def write(
        self, case: Case, folder: Path, lesion: sitk.Image, lesions: Sequence[Lesion]
    ) -> tuple[list[Path], list[str]]:
        """Write the formats beside the NIfTI mask, and remove those of an earlier run.

        Returns:
            The files, and the decisions on the way.
        """
        for name in FORMATS:
            if name != "nifti":
                (folder / FORMATS[name]).unlink(missing_ok=True)
        names = {one.label: f"Lesion {one.label}" for one in lesions}
        write_colour_table(names, folder / COLOURS)
        outputs = [folder / COLOURS]
        wanted = self.formats[1:]
        if not wanted:
            return outputs, []
        if not lesions:
            return outputs, [f"no lesion, so no {', '.join(wanted)}: DICOM has no empty one"]
        if self.scans is None:
            raise CaseError(case.case_id, "has no DICOM at hand", "give its folder with --source")
        from radiogen.io.dicom.write_object import OutlineAuthor, Outlines

        scan = self.scans.of_case(case, self.keep_patient)
        author = OutlineAuthor("radiogen RA-Seg", f"{__version__}, model {self.model_hash}")
        outlines = Outlines(lesion, names, author, scan)
        outputs += self._write_dicom(outlines, folder, lesions)
        between = sum(one is None for one in scan.slices_on(lesion))
        messages = [f"DICOM: {between} planes of the CT lie on no slice of its series"] if between else []
        return outputs, messages

    def _write_dicom(self, outlines: "Outlines", folder: Path, lesions: Sequence[Lesion]) -> list[Path]:
        from radiogen.io.dicom.write_object import write_dicom
        from radiogen.io.dicom.write_rtstruct import make_rtstruct
        from radiogen.io.dicom.write_seg import make_seg, make_sr

        objects: dict[Format, Dataset] = {}
        if "dicom-seg" in self.formats:
            objects["dicom-seg"] = make_seg(outlines)
        if "rtstruct" in self.formats:
            objects["rtstruct"] = make_rtstruct(outlines)
        if "sr" in self.formats:
            objects["sr"] = make_sr(outlines, lesions, objects["dicom-seg"])
        for name, item in objects.items():
            write_dicom(item, folder / FORMATS[name])
        return [folder / FORMATS[name] for name in objects]
