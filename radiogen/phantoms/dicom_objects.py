"""What all DICOM files of one made patient share: names, dates and UIDs, fixed by seed and number."""

from dataclasses import dataclass
from functools import cached_property

from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid

from radiogen.phantoms.traits import Traits, generator_for


@dataclass(frozen=True)
class Study:
    """One examination of one made patient."""

    seed: int
    traits: Traits

    def uid(self, what: str) -> UID:
        """The UID of one thing of this study; other seeds, patients and things have others."""
        return generate_uid(entropy_srcs=["radiogen phantom", f"{self.seed}/{self.traits.number}/{what}"])

    @cached_property
    def _draws(self) -> tuple[int, int, int, int]:
        chance = generator_for(self.seed, self.traits.number, "dicom")
        year, month, day = (int(chance.integers(*range_)) for range_ in ((1990, 1996), (1, 13), (1, 29)))
        return year, month, day, int(chance.integers(0, 3))

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
        return f"{month:02d}-{day:02d}-{year}-NA-CT CHEST W. CONTRAST-{self.uid('study')[-5:]}"

    @property
    def ct_folder(self) -> str:
        return f"3.000000-{self.description}-{self.uid('ct series')[-5:]}"

    @property
    def outline_folder(self) -> str:
        return f"1000.000000-outline-{self.uid('outline series')[-5:]}"


def new_object(study: Study, sop_class: UID, what: str, modality: str, series: UID) -> Dataset:
    """A data set with its file header and what it has to say about patient, study and series.

    Args:
        study: Whose it is.
        sop_class: The kind of object.
        what: What it is within the study; gives its SOPInstanceUID.
        modality: DICOM modality.
        series: SeriesInstanceUID.
    """
    item = Dataset()
    item.file_meta = FileMetaDataset()
    item.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    item.file_meta.MediaStorageSOPClassUID = item.SOPClassUID = sop_class
    item.file_meta.MediaStorageSOPInstanceUID = item.SOPInstanceUID = study.uid(what)
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
