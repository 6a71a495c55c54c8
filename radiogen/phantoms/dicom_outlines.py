"""The lesions of a made chest as RTSTRUCT or as DICOM SEG, named as the public cohorts name them."""

from collections.abc import Sequence

import numpy as np
from pydicom import Dataset
from pydicom.uid import RTStructureSetStorage

from radiogen.io.dicom.scan import DicomScan, ScanSlice, without_chance
from radiogen.io.dicom.write_rtstruct import Structure, put_structures
from radiogen.phantoms.chest import Chest
from radiogen.phantoms.dicom_objects import Study, new_object
from radiogen.volume import array_of


def make_rtstruct(chest: Chest, study: Study, slices: Sequence[Dataset]) -> Dataset:
    """All lesions as `GTV-1` beside the right lung, closed contours along the edges of the pixels."""
    item = new_object(study, RTStructureSetStorage, "rtstruct", "RTSTRUCT", study.uid("outline series"))
    item.Manufacturer, item.SeriesNumber, item.InstanceNumber = "RADIOGEN", 1000, 1
    item.StructureSetLabel, item.StructureSetDate, item.StructureSetTime = "RTstruct", study.date, "120000"
    structures = [
        Structure("Lung-Right", array_of(chest.lungs) == 1, kind="ORGAN", algorithm="MANUAL"),
        Structure("GTV-1", array_of(chest.lesion) > 0, kind="GTV", algorithm="MANUAL"),
    ]
    put_structures(item, structures, chest.lungs, _scan(study, slices))
    return item


def _scan(study: Study, slices: Sequence[Dataset]) -> DicomScan:
    placed = tuple(
        ScanSlice(one.SOPInstanceUID, tuple(float(v) for v in one.ImagePositionPatient)) for one in slices
    )
    uids = (study.uid("study"), study.uid("ct series"), study.uid("frame"))
    return DicomScan(*uids, slices[0].SOPClassUID, placed, identity=Dataset())


def make_seg(chest: Chest, study: Study, slices: Sequence[Dataset]) -> Dataset:
    """All lesions as one segment, which NSCLC-Radiogenomics calls Heart or Tissue, never tumour."""
    from highdicom.seg import (
        SegmentAlgorithmTypeValues,
        Segmentation,
        SegmentationTypeValues,
        SegmentDescription,
    )
    from pydicom.sr.codedict import codes

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
    without_chance(item, study.date, "120000", study.uid("dimensions"))
    return item
