"""Write a made chest as the DICOM files of one patient, with what makes real ones hard to read."""

from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydicom import Dataset
from pydicom.uid import CTImageStorage, SecondaryCaptureImageStorage

from radiogen.errors import OutputError
from radiogen.phantoms.chest import Chest
from radiogen.phantoms.dicom_objects import Study, new_object
from radiogen.phantoms.dicom_outlines import make_rtstruct, make_seg
from radiogen.phantoms.traits import Traits
from radiogen.volume import array_of

MISSING_SLICE, NO_OUTLINE, DOUBLED_SLICE = "missing slice", "no outline", "doubled slice"
INTERCEPT_HU = -1024
PADDING = -2000  # stored value outside the circle that a scanner reconstructs
CIRCLE = 1.12  # diameter of that circle, of the width of the image


@dataclass(frozen=True)
class DicomFile:
    """A data set and the series folder that it goes to."""

    series: str
    content: Dataset


def write_patient(chest: Chest, traits: Traits, seed: int, root: Path, broken: str = "") -> Path:
    """Write the CT series, its outline and what lies beside them.

    File names and slice numbers say nothing about the order. Even patients have an RTSTRUCT, odd ones a SEG.
    One patient in three has a localizer among the slices, another one a secondary capture. The same chest,
    traits, seed and defect give the same bytes.

    Args:
        chest: The CT in HU and its lesions.
        traits: Who it is.
        seed: Seed of the cohort.
        root: Where the patient's folder goes.
        broken: `MISSING_SLICE`, `NO_OUTLINE`, `DOUBLED_SLICE` or nothing.

    Returns:
        The patient's folder.

    Raises:
        OutputError: The folder cannot be written to.
    """
    study = Study(seed, traits)
    slices = make_slices(chest, study)
    files = [DicomFile(study.ct_folder, one) for one in _break(slices, study, broken)]
    files += [DicomFile(study.ct_folder, one) for one in _make_extras(chest, study)]
    if broken != NO_OUTLINE:
        make = make_seg if traits.number % 2 else make_rtstruct
        files.append(DicomFile(study.outline_folder, make(chest, study, slices)))
    folder = root / study.patient_folder
    _save(files, folder / study.folder, ".dcm" if traits.number % 4 else "")
    return folder


def make_slices(chest: Chest, study: Study) -> list[Dataset]:
    """One CT data set a slice, in the order of z; stored values are HU + 1024.

    Two patients in five store signed values and -2000 outside the reconstructed circle.
    """
    hu = array_of(chest.volume).astype(np.int32)
    stored = hu - INTERCEPT_HU
    is_padded = study.traits.number % 5 in (0, 2)
    if is_padded:
        stored[:, _outside_circle(chest)] = PADDING
    x, y, z = chest.volume.GetOrigin()
    spacing = chest.volume.GetSpacing()
    slices = []
    for k, plane in enumerate(stored):
        item = _new_ct(study, f"slice {k}", ["ORIGINAL", "PRIMARY", "AXIAL"])
        item.InstanceNumber = (7 * k) % 1009 + 1
        item.ImagePositionPatient = [round(x, 4), round(y, 4), round(z + k * spacing[2], 4)]
        item.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        item.PixelSpacing = [spacing[1], spacing[0]]
        item.SliceThickness = spacing[2]
        if is_padded:
            item.PixelPaddingValue = PADDING
        _set_pixels(item, plane, is_signed=is_padded)
        slices.append(item)
    return slices


def _outside_circle(chest: Chest) -> npt.NDArray[np.bool_]:
    columns, rows, _ = chest.volume.GetSize()
    dx, dy, _ = chest.volume.GetSpacing()
    x = (np.arange(columns) - (columns - 1) / 2) * dx
    y = (np.arange(rows) - (rows - 1) / 2) * dy
    return np.asarray(np.hypot(x, y[:, None]) > CIRCLE * columns * dx / 2)


def _new_ct(study: Study, what: str, image_type: list[str]) -> Dataset:
    item = new_object(study, CTImageStorage, what, "CT", study.uid("ct series"))
    item.ImageType = image_type
    item.Manufacturer, item.ManufacturerModelName = "RADIOGEN", "PHANTOM"
    item.SeriesDescription, item.ConvolutionKernel, item.KVP = study.description, study.kernel, "120"
    item.SeriesNumber, item.AcquisitionNumber = 3, 1
    item.BodyPartExamined, item.PatientPosition = "CHEST", "HFS"
    item.FrameOfReferenceUID, item.PositionReferenceIndicator = study.uid("frame"), ""
    item.RescaleSlope, item.RescaleIntercept, item.RescaleType = 1, INTERCEPT_HU, "HU"
    return item


def _set_pixels(item: Dataset, plane: npt.NDArray[np.int32], is_signed: bool, bits: int = 16) -> None:
    item.SamplesPerPixel, item.PhotometricInterpretation = 1, "MONOCHROME2"
    item.Rows, item.Columns = plane.shape
    item.BitsAllocated, item.BitsStored, item.HighBit = bits, bits, bits - 1
    item.PixelRepresentation = int(is_signed)
    item.PixelData = plane.astype(f"<{'i' if is_signed else 'u'}{bits // 8}").tobytes()


def _break(slices: list[Dataset], study: Study, broken: str) -> list[Dataset]:
    middle = len(slices) // 2
    if broken == MISSING_SLICE:
        return slices[:middle] + slices[middle + 1 :]
    if broken == DOUBLED_SLICE:
        copy = deepcopy(slices[middle])
        copy.SOPInstanceUID = copy.file_meta.MediaStorageSOPInstanceUID = study.uid("doubled slice")
        return [*slices, copy]
    return slices


def _make_extras(chest: Chest, study: Study) -> list[Dataset]:
    kind = study.traits.number % 3
    if kind == 1:
        return [_localizer(chest, study)]
    return [_secondary_capture(chest, study)] if kind == 2 else []


def _localizer(chest: Chest, study: Study) -> Dataset:
    """The view from the front that a scan is planned on."""
    x, _, z = chest.volume.GetOrigin()
    dx, _, dz = chest.volume.GetSpacing()
    view = np.rint(array_of(chest.volume).mean(axis=1))[::-1].astype(np.int32)
    item = _new_ct(study, "localizer", ["ORIGINAL", "PRIMARY", "LOCALIZER"])
    item.SeriesInstanceUID, item.SeriesNumber = study.uid("localizer series"), 1
    item.SeriesDescription, item.InstanceNumber = "SCOUT", 1
    item.ImagePositionPatient = [round(x, 4), 0, round(z + (len(view) - 1) * dz, 4)]
    item.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
    item.PixelSpacing, item.SliceThickness = [dz, dx], dz
    _set_pixels(item, view - INTERCEPT_HU, is_signed=False)
    return item


def _secondary_capture(chest: Chest, study: Study) -> Dataset:
    """A screenshot of one slice, without a place in space."""
    plane = array_of(chest.volume)[chest.volume.GetSize()[2] // 2]
    grey = np.rint(np.clip((plane + 1350) / 1500, 0, 1) * 255).astype(np.int32)
    series = study.uid("capture series")
    item = new_object(study, SecondaryCaptureImageStorage, "capture", "OT", series)
    item.ConversionType, item.SeriesNumber, item.InstanceNumber = "WSD", 99, 1
    _set_pixels(item, grey, is_signed=False, bits=8)
    return item


def _save(files: Iterable[DicomFile], folder: Path, ending: str) -> None:
    for file in files:
        path = folder / file.series / (_file_name(file.content) + ending)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file.content.save_as(path, enforce_file_format=True)
        except OSError as error:
            raise OutputError(path, f"cannot be written: {error.strerror}", "choose another place") from error


def _file_name(content: Dataset) -> str:
    """A name that tells files apart and nothing else."""
    return sha256(str(content.SOPInstanceUID).encode()).hexdigest()[:16].upper()
