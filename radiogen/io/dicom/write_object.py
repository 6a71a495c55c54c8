"""Build the parts that all DICOM objects of radiogen share: lesions, author, patient, study."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian
from pydicom.valuerep import DSfloat

from radiogen import __version__
from radiogen.io.dicom.referenced_ct import IDENTITY, ReferencedCt, derived_uid
from radiogen.io.polygons import BoolArray
from radiogen.provenance import whole_file

# Far above the numbers of a scanner, so that a viewer lists them behind the CT.
SERIES_NUMBERS = {"SEG": 9001, "RTSTRUCT": 9002, "SR": 9003}
MANUFACTURER = "radiogen"


@dataclass(frozen=True)
class OutlineAuthor:
    """Who drew an outline: a program with its version, or a person (an empty name)."""

    name: str = ""
    version: str = ""


@dataclass(frozen=True)
class Outlines:
    """Lesions on the grid of a CT, ready to be written as DICOM.

    Attributes:
        labels: uint8, 0 background.
        names: What each label that has voxels is called; by rising label.
        author: Who drew them.
        scan: The CT they lie on.
        are_lesions: A SEG codes them as neoplasm of the lung, else as tissue.
    """

    labels: sitk.Image
    names: dict[int, str]
    author: OutlineAuthor
    scan: ReferencedCt
    are_lesions: bool = True

    def uid(self, name: str) -> UID:
        """Return the UID of something of these outlines: the same content gives the same UID."""
        return derived_uid(name, self._content)

    @cached_property
    def planes(self) -> list[int]:
        """The planes that are not empty."""
        filled: list[int] = np.flatnonzero(sitk.GetArrayViewFromImage(self.labels).any(axis=(1, 2))).tolist()
        return filled

    @cached_property
    def _content(self) -> str:
        """All that decides the bytes of an object, the version of radiogen too."""
        voxels = sitk.GetArrayViewFromImage(self.labels)[self.planes]
        digest = hashlib.sha256(voxels.data).hexdigest()
        place = (
            f"{self.planes}{self.labels.GetOrigin()}{self.labels.GetSpacing()}{self.labels.GetDirection()}"
        )
        identity = "\n".join(str(element) for element in self.scan.identity)
        # "Maker" stays: another word would give every object of a mask new UIDs.
        author = f"Maker(name={self.author.name!r}, version={self.author.version!r})"
        about = (f"{self.names}", author, f"{self.are_lesions}", __version__, identity)
        return "\n".join((self.scan.series_uid, digest, place, *about))

    def tracking_uid(self, label: int) -> UID:
        """Return the UID by which SEG and SR name one lesion."""
        return self.uid(f"lesion {label}")

    def inside(self, label: int) -> BoolArray:
        """Return the voxels of one label, shape (z, y, x)."""
        inside: BoolArray = sitk.GetArrayViewFromImage(self.labels) == label
        return inside


def new_item(outlines: Outlines, sop_class: UID, modality: str) -> Dataset:
    """Return a data set with its file header and its elements on patient, study, series and author."""
    item = Dataset()
    item.file_meta = FileMetaDataset()
    item.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    item.file_meta.MediaStorageSOPClassUID = item.SOPClassUID = sop_class
    item.file_meta.MediaStorageSOPInstanceUID = item.SOPInstanceUID = outlines.uid(modality)
    set_identity(item, outlines.scan)
    item.StudyInstanceUID = outlines.scan.study_uid
    item.SeriesInstanceUID = outlines.uid(f"{modality} series")
    item.Modality, item.SeriesNumber, item.InstanceNumber = modality, SERIES_NUMBERS[modality], 1
    item.SeriesDate = item.ContentDate = item.InstanceCreationDate = outlines.scan.date
    item.SeriesTime = item.ContentTime = item.InstanceCreationTime = outlines.scan.time
    item.Manufacturer = item.ManufacturerModelName = MANUFACTURER
    item.SoftwareVersions, item.DeviceSerialNumber = __version__, "-"
    item.SeriesDescription = "radiogen lesions"
    return item


def write_dicom(item: Dataset, path: Path) -> None:
    """Write a DICOM file whole."""
    with whole_file(path) as draft:
        item.save_as(draft, enforce_file_format=True)


def set_identity(item: Dataset, scan: ReferencedCt) -> None:
    """Give an object the patient and study of its scan, and nothing else of them."""
    # From a list of elements, never by copying a header: private elements can name the patient.
    for name in (*IDENTITY, "PatientIdentityRemoved", "DeidentificationMethod", "SpecificCharacterSet"):
        if name in scan.identity:
            setattr(item, name, scan.identity.get(name))
        elif name in item:
            delattr(item, name)


def source_images(outlines: Outlines, planes: Sequence[int]) -> list[Dataset]:
    """Return the CT slices under some planes of the grid as bare headers: UIDs, place, size, identity.

    Of a grid whose planes are no slices (a resampled volume) all slices of the CT.
    """
    scan, grid = outlines.scan, outlines.labels
    on_grid = scan.slices_on(grid)
    under = [on_grid[k] for k in planes]
    slices = [one for one in under if one is not None]
    if len(slices) < len(planes):
        slices = list(scan.slices)
    images = []
    bare = Dataset()
    set_identity(bare, scan)
    for one in slices:
        # highdicom copies what it finds in its source images: it is given nothing that must not be copied.
        image = Dataset({element.tag: element for element in bare})
        image.SOPClassUID, image.SOPInstanceUID, image.Modality = scan.sop_class, one.uid, "CT"
        image.StudyInstanceUID, image.SeriesInstanceUID = scan.study_uid, scan.series_uid
        image.FrameOfReferenceUID, image.PositionReferenceIndicator = scan.frame_uid, ""
        image.Columns, image.Rows = grid.GetSize()[:2]
        image.ImagePositionPatient = decimals(one.position_mm)
        direction = np.array(grid.GetDirection()).reshape(3, 3)
        image.ImageOrientationPatient = decimals(direction[:, :2].T.ravel().tolist())
        image.PixelSpacing = decimals(grid.GetSpacing()[1::-1])
        image.SliceThickness = decimals(grid.GetSpacing()[2:])[0]
        image.LossyImageCompression = "01" if scan.is_lossy else "00"
        images.append(image)
    return images


def decimals(numbers: Sequence[float]) -> list[DSfloat]:
    """Return numbers as DICOM writes them, in 16 characters at most."""
    # Adding 0.0 turns -0.0 into 0.0, so that equal geometry gives equal bytes.
    return [DSfloat(float(v) + 0.0, auto_format=True) for v in numbers]
