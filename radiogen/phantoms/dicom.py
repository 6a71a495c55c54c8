"""Write a phantom as the DICOM files of one patient, with the irregularities of real ones."""

from collections.abc import Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    UID,
    CTImageStorage,
    ExplicitVRLittleEndian,
    RTStructureSetStorage,
    SecondaryCaptureImageStorage,
    generate_uid,
)

from radiogen.errors import OutputError
from radiogen.io.dicom.referenced_ct import ReferencedCt, ScanSlice, make_reproducible
from radiogen.io.dicom.write_rtstruct import Structure, set_structures
from radiogen.phantoms.chest import Chest
from radiogen.phantoms.traits import Traits, rng_for
from radiogen.volume import array_of


@dataclass(frozen=True)
class PhantomStudy:
    """One examination of one synthetic patient."""

    seed: int
    traits: Traits

    def uid(self, name: str) -> UID:
        """Return the UID of one thing of this study; other seeds, patients and things have others."""
        return generate_uid(entropy_srcs=["radiogen phantom", f"{self.seed}/{self.traits.number}/{name}"])

    @cached_property
    def _draws(self) -> tuple[int, int, int, int]:
        rng = rng_for(self.seed, self.traits.number, "dicom")
        # The shifted dates of NSCLC-Radiogenomics at TCIA lie in these years.
        year, month, day = int(rng.integers(1990, 1996)), int(rng.integers(1, 13)), int(rng.integers(1, 29))
        return year, month, day, int(rng.integers(0, 3))

    @property
    def date(self) -> str:
        year, month, day, _ = self._draws
        return f"{year:04d}{month:02d}{day:02d}"

    @property
    def kernel(self) -> str:
        return ("B45f", "STANDARD", "FC01")[self._draws[3]]

    @property
    def description(self) -> str:
        return f"THORAX 5.0 {self.kernel}"

    @property
    def patient_folder(self) -> str:
        """Not the PatientID, which only the files hold."""
        return f"Phantom no. {self.traits.number}"

    @property
    def folder(self) -> str:
        year, month, day, _ = self._draws
        # The folder names of the TCIA downloader.
        return f"{month:02d}-{day:02d}-{year}-NA-CT CHEST W. CONTRAST-{self.uid('study')[-5:]}"

    @property
    def ct_folder(self) -> str:
        return f"3.000000-{self.description}-{self.uid('ct series')[-5:]}"

    @property
    def outline_folder(self) -> str:
        return f"1000.000000-outline-{self.uid('outline series')[-5:]}"


def new_object(study: PhantomStudy, sop_class: UID, name: str, modality: str, series: UID) -> Dataset:
    """Return a data set with its file header and its elements on patient, study and series.

    Args:
        study: Whose it is.
        sop_class: The kind of object.
        name: What it is within the study; gives its SOPInstanceUID.
        modality: DICOM modality.
        series: SeriesInstanceUID.
    """
    item = Dataset()
    item.file_meta = FileMetaDataset()
    item.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    item.file_meta.MediaStorageSOPClassUID = item.SOPClassUID = sop_class
    item.file_meta.MediaStorageSOPInstanceUID = item.SOPInstanceUID = study.uid(name)
    item.Modality, item.SeriesInstanceUID = modality, series
    traits = study.traits
    item.PatientID, item.PatientName = traits.patient_id, f"PHANTOM^{traits.number:03d}"
    item.PatientBirthDate, item.PatientSex = "", traits.sex[0].upper()
    item.PatientAge, item.PatientIdentityRemoved = f"{traits.age:03d}Y", "YES"
    item.StudyInstanceUID, item.StudyID = study.uid("study"), ""
    item.StudyDate = item.SeriesDate = item.ContentDate = study.date
    item.StudyTime = item.SeriesTime = item.ContentTime = "120000"
    item.AccessionNumber, item.ReferringPhysicianName = "", ""
    return item


def make_rtstruct(chest: Chest, study: PhantomStudy, slices: Sequence[Dataset]) -> Dataset:
    """Return all lesions as `GTV-1` beside the right lung, closed contours along the edges of the pixels."""
    item = new_object(study, RTStructureSetStorage, "rtstruct", "RTSTRUCT", study.uid("outline series"))
    item.Manufacturer, item.SeriesNumber, item.InstanceNumber = "RADIOGEN", 1000, 1
    item.StructureSetLabel, item.StructureSetDate, item.StructureSetTime = "RTstruct", study.date, "120000"
    structures = [
        Structure("Lung-Right", array_of(chest.lungs) == 1, kind="ORGAN", algorithm="MANUAL"),
        Structure("GTV-1", array_of(chest.lesion) > 0, kind="GTV", algorithm="MANUAL"),
    ]
    set_structures(item, structures, chest.lungs, _scan(study, slices))
    return item


def _scan(study: PhantomStudy, slices: Sequence[Dataset]) -> ReferencedCt:
    placed = tuple(
        ScanSlice(one.SOPInstanceUID, tuple(float(v) for v in one.ImagePositionPatient)) for one in slices
    )
    uids = (study.uid("study"), study.uid("ct series"), study.uid("frame"))
    return ReferencedCt(*uids, slices[0].SOPClassUID, placed, identity=Dataset())


def make_seg(chest: Chest, study: PhantomStudy, slices: Sequence[Dataset]) -> Dataset:
    """Return all lesions as one segment, which NSCLC-Radiogenomics calls Heart or Tissue, never tumour."""
    from highdicom.seg import (
        SegmentAlgorithmTypeValues,
        Segmentation,
        SegmentationTypeValues,
        SegmentDescription,
    )
    from pydicom.sr.codedict import codes

    # Readers that pick a segment by a name like "tumour" fail on these, as on the published ones.
    label = "Heart" if study.traits.number % 4 == 1 else "Tissue"
    kind = codes.SCT.Heart if label == "Heart" else codes.SCT.Tissue
    description = SegmentDescription(1, label, codes.SCT.Tissue, kind, SegmentAlgorithmTypeValues.MANUAL)
    item: Dataset = Segmentation(
        source_images=list(slices),
        pixel_array=(array_of(chest.lesion) > 0).astype(np.uint8),
        segmentation_type=SegmentationTypeValues.BINARY,
        segment_descriptions=[description],
        series_instance_uid=study.uid("outline series"),
        series_number=1000,
        sop_instance_uid=study.uid("seg"),
        instance_number=1,
        manufacturer="RADIOGEN",
        manufacturer_model_name="PHANTOM",
        software_versions="1",
        device_serial_number="1",
    )
    make_reproducible(item, study.date, "120000", study.uid("dimensions"))
    return item


MISSING_SLICE = "missing slice"
NO_OUTLINE = "no outline"
DOUBLED_SLICE = "doubled slice"
INTERCEPT_HU = -1024
# What GE scanners store there; with the intercept it is -3024 HU, far below air.
PADDING = -2000  # stored value outside the circle that a scanner reconstructs
CIRCLE = 1.12  # diameter of that circle, of the width of the image


@dataclass(frozen=True)
class PhantomFile:
    """A data set and the series folder that it goes to."""

    series: str
    content: Dataset


def write_patient(chest: Chest, traits: Traits, seed: int, root: Path, broken: str = "") -> Path:
    """Write the CT series, its outline and the other files of the study.

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
    study = PhantomStudy(seed, traits)
    slices = make_slices(chest, study)
    files = [PhantomFile(study.ct_folder, one) for one in _break(slices, study, broken)]
    files += [PhantomFile(study.ct_folder, one) for one in _make_extras(chest, study)]
    if broken != NO_OUTLINE:
        make = make_seg if traits.number % 2 else make_rtstruct
        files.append(PhantomFile(study.outline_folder, make(chest, study, slices)))
    folder = root / study.patient_folder
    # Every fourth patient has files without an ending, as PACS exports often do.
    _save(files, folder / study.folder, ".dcm" if traits.number % 4 else "")
    return folder


def make_slices(chest: Chest, study: PhantomStudy) -> list[Dataset]:
    """Return one CT data set a slice, in the order of z; stored values are HU + 1024.

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
        item.InstanceNumber = (7 * k) % 1009 + 1  # in no order: positions alone order slices
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


def _new_ct(study: PhantomStudy, name: str, image_type: list[str]) -> Dataset:
    item = new_object(study, CTImageStorage, name, "CT", study.uid("ct series"))
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


def _break(slices: list[Dataset], study: PhantomStudy, broken: str) -> list[Dataset]:
    middle = len(slices) // 2
    if broken == MISSING_SLICE:
        return slices[:middle] + slices[middle + 1 :]
    if broken == DOUBLED_SLICE:
        copy = deepcopy(slices[middle])
        copy.SOPInstanceUID = copy.file_meta.MediaStorageSOPInstanceUID = study.uid("doubled slice")
        return [*slices, copy]
    return slices


def _make_extras(chest: Chest, study: PhantomStudy) -> list[Dataset]:
    kind = study.traits.number % 3
    if kind == 1:
        return [_localizer(chest, study)]
    return [_secondary_capture(chest, study)] if kind == 2 else []


def _localizer(chest: Chest, study: PhantomStudy) -> Dataset:
    """Return the view from the front that a scan is planned on."""
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


def _secondary_capture(chest: Chest, study: PhantomStudy) -> Dataset:
    """Return a screenshot of one slice, without a place in space."""
    plane = array_of(chest.volume)[chest.volume.GetSize()[2] // 2]
    grey = np.rint(np.clip((plane + 1350) / 1500, 0, 1) * 255).astype(np.int32)
    series = study.uid("capture series")
    item = new_object(study, SecondaryCaptureImageStorage, "capture", "OT", series)
    item.ConversionType, item.SeriesNumber, item.InstanceNumber = "WSD", 99, 1
    _set_pixels(item, grey, is_signed=False, bits=8)
    return item


def _save(files: Iterable[PhantomFile], folder: Path, ending: str) -> None:
    for file in files:
        path = folder / file.series / (_file_name(file.content) + ending)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file.content.save_as(path, enforce_file_format=True)
        except OSError as error:
            raise OutputError(path, f"cannot be written: {error.strerror}", "choose another place") from error


def _file_name(content: Dataset) -> str:
    """Return a name that distinguishes files and says nothing else."""
    return sha256(str(content.SOPInstanceUID).encode()).hexdigest()[:16].upper()
