"""The CT that a mask is converted on: its grid, and the DICOM series that objects refer to."""

from dataclasses import dataclass, field
from pathlib import Path

import SimpleITK as sitk

from radiogen.errors import SeriesError, VolumeError
from radiogen.io.cases import is_case_source
from radiogen.io.dicom.dicom_facts import OutlineFile
from radiogen.io.dicom.files import find_dicom
from radiogen.io.dicom.series import SeriesRules, check_series
from radiogen.io.dicom.dicom_volumes import Series
from radiogen.io.dicom.even_grid import even_grid
from radiogen.io.nifti import NIFTI_ENDINGS, is_volume_file, read_grid, read_volume
from radiogen.io.outline_place import CtReference
from radiogen.ingestion.series_choice import Patient, gather_patients


@dataclass(frozen=True)
class ReferenceCt:
    """A CT without its voxels.

    Attributes:
        grid: Size and place.
        names: What a DICOM outline may name of it; empty for a volume file or a case.
        patient: Whose it is, where it is DICOM.
        series: The same.
    """

    grid: sitk.Image
    names: CtReference = field(default_factory=CtReference)
    patient: Patient | None = None
    series: Series | None = None


def read_reference(path: Path, outline: OutlineFile | None, series_uid: str | None = None) -> ReferenceCt:
    """The grid of a CT; of DICOM no pixel is read.

    Args:
        path: A case folder, a volume file, or a DICOM folder.
        outline: What will be laid on it; of several series, the one it names is taken.
        series_uid: The series that was asked for.

    Raises:
        VolumeError: The file cannot be read.
        SeriesError: The folder holds no CT, several that could be meant, or one that is no upright even grid.
    """
    if path.is_dir() and is_case_source(path):
        if not (path / "ct.nii.gz").is_file():
            raise SeriesError(path, "holds many cases", "give the folder of one case")
        return ReferenceCt(read_grid(path / "ct.nii.gz"))
    if path.is_file() and is_volume_file(path):
        is_nifti = path.name.lower().endswith(NIFTI_ENDINGS)
        return ReferenceCt(read_grid(path) if is_nifti else read_volume(path))
    if not path.is_dir():
        raise VolumeError(
            path, "is no CT", "give a case folder, a DICOM folder, or a NIfTI, NRRD or MHA file"
        )
    patient, series = _choose(path, outline, series_uid)
    stack = check_series(series, SeriesRules())
    even = even_grid(stack)
    grid = sitk.Image(even.size, sitk.sitkUInt8)
    grid.SetOrigin(even.origin_mm)
    grid.SetSpacing(even.spacing_mm)
    grid.SetDirection(even.direction)
    positions = {place[0].sop_uid: place[0].position_mm for place in stack.places}
    return ReferenceCt(grid, CtReference(series.frame_uids, positions), patient, series)


def _choose(path: Path, outline: OutlineFile | None, series_uid: str | None) -> tuple[Patient, Series]:
    found = [(patient, one) for patient in gather_patients(find_dicom(path)) for one in patient.series]
    if series_uid is not None:
        asked = [pair for pair in found if series_uid in (pair[1].uid, pair[1].name)]
    elif outline is not None and len(found) > 1:
        asked = [pair for pair in found if pair[1].uid in outline.series_uids]
    else:
        asked = found
    if len(asked) != 1:
        wrong = f"holds {len(found)} CT series, {len(asked)} of them could be meant"
        raise SeriesError(path, wrong, "choose with --series UID, radiogen ingest --list shows them")
    if asked[0][0].problem is not None:
        raise asked[0][0].problem
    return asked[0]
