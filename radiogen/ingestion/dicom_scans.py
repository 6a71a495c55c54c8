"""Find the DICOM scan that a case was made from, by the hash that its case.json keeps."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from radiogen.errors import CaseError, RadiogenError, SeriesError
from radiogen.ingestion.series_choice import gather_patients
from radiogen.ingestion.sources import CaseSource, hashed_scan_id
from radiogen.io.cases import Case
from radiogen.io.dicom.files import find_dicom
from radiogen.io.dicom.referenced_ct import ReferencedCt, read_scan
from radiogen.io.dicom.series import Series
from radiogen.io.dicom.zip import unpacked
from radiogen.runtime import Progress, no_progress


@dataclass(frozen=True)
class ReferencedCts:
    """The CT series of a DICOM folder by their hash; of one that cannot be referred to, the reason."""

    scans: dict[str, ReferencedCt | RadiogenError]

    def of_case(self, case: Case, keep_patient: bool) -> ReferencedCt:
        """Return the scan that a case was made from; without the patient unless `keep_patient`.

        Raises:
            CaseError: It is not in the folder.
            SeriesError: DICOM objects cannot refer to it.
        """
        source = case.about().get("source", {})
        # case.json keeps no UID, only this hash of patient and series; the DICOM must be at hand to match it.
        found = self.scans.get(str(source.get("id")))
        if found is None:
            wrong = "was made from a DICOM scan that --source does not hold"
            raise CaseError(case.case_id, wrong, "give the folder that was ingested")
        if isinstance(found, RadiogenError):
            raise found
        return found if keep_patient else found.without_patient(case.case_id)


def check_made_from_dicom(case: Case) -> None:
    """Refuse a case that has no DICOM slices to refer to.

    Raises:
        CaseError: It was made from a volume file.
    """
    kind = case.about().get("source", {}).get("kind")
    if kind != "dicom":
        wrong = (
            f"was made from a {kind or 'volume'} file: there are no slices that DICOM output could refer to"
        )
        raise CaseError(case.case_id, wrong, "take --format nifti, or ingest the DICOM series")


def find_scans(source: Path, home: Path, progress: Progress = no_progress) -> ReferencedCts:
    """Search a DICOM folder, or a zip of one; the header of one slice a series is read.

    Args:
        source: What was ingested.
        home: Where a zip may be unpacked for a while.
        progress: Called with the headers read.

    Raises:
        SeriesError: There is no CT series.
    """
    if not source.exists():
        raise SeriesError(source, "does not exist", "give the DICOM folder that was ingested")
    scans: dict[str, ReferencedCt | RadiogenError] = {}
    with unpacked(source, home) as folder:
        tree = find_dicom(folder, progress=partial(progress, "headers"))
        for patient in gather_patients(tree):
            for series in patient.series:
                scans[hashed_scan_id(patient.name, series.name)] = _scan(series)
    if not scans:
        raise SeriesError(source, "holds no CT series", "give the DICOM folder that was ingested")
    return ReferencedCts(scans)


def scan_of(source: CaseSource) -> ReferencedCts:
    """Return the scan of one case that is being ingested; none where it is a volume file."""
    return ReferencedCts({source.id: _scan(source.ct)} if isinstance(source.ct, Series) else {})


def _scan(series: Series) -> ReferencedCt | RadiogenError:
    try:
        return read_scan(series)
    except RadiogenError as error:
        return error
