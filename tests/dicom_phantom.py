"""Small DICOM files for tests: CT series, RTSTRUCT and SEG a few voxels wide."""

from pathlib import Path

import numpy as np
from pydicom import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

CT = "1.2.840.10008.5.1.4.1.1.2"
SPACING = (0.75, 1.25, 2.5)  # x, y, z mm
ORIGIN = (-20.0, 10.0, -100.0)


def uid(*words):
    return generate_uid(entropy_srcs=[str(word) for word in words])


def box_hu(size=(11, 7, 5)):
    """Soft tissue with an air pocket and a different value in every voxel of the pocket; shape (z, y, x)."""
    x, y, z = size
    hu = np.full((z, y, x), 40, dtype=np.int16)
    pocket = hu[:, 1:-1, 2:-2]
    pocket[...] = -900 + np.arange(pocket.size).reshape(pocket.shape)
    return hu


def file_of(sop_class, sop_uid, patient="A 1", series="s", study="study"):
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = sop_class
    dataset.file_meta.MediaStorageSOPInstanceUID = sop_uid
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, sop_uid
    dataset.PatientID, dataset.PatientName = patient, "Doe^Jane"
    dataset.PatientBirthDate, dataset.PatientSex = "", ""
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = uid(study, patient), uid(series, patient)
    dataset.StudyDate, dataset.StudyTime, dataset.StudyID = "20010304", "", ""
    dataset.AccessionNumber, dataset.ReferringPhysicianName = "", ""
    return dataset


def ct_slices(hu=None, patient="A 1", series="s", spacing=SPACING, origin=ORIGIN):
    """One data set a slice, in the order of z."""
    hu = box_hu() if hu is None else hu
    slices = []
    for k, plane in enumerate(hu):
        item = file_of(CT, uid(series, patient, k), patient, series)
        item.Modality, item.ImageType = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
        item.Manufacturer, item.ConvolutionKernel, item.KVP = "MAKER", "B40", "120"
        item.SeriesNumber, item.InstanceNumber = 1, len(hu) - k
        item.FrameOfReferenceUID, item.PositionReferenceIndicator = uid("frame", patient), ""
        item.ImagePositionPatient = [*origin[:2], round(origin[2] + k * spacing[2], 4)]
        item.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        item.PixelSpacing, item.SliceThickness = [spacing[1], spacing[0]], spacing[2]
        item.SamplesPerPixel, item.PhotometricInterpretation = 1, "MONOCHROME2"
        item.Rows, item.Columns = plane.shape
        item.BitsAllocated, item.BitsStored, item.HighBit, item.PixelRepresentation = 16, 16, 15, 0
        item.RescaleSlope, item.RescaleIntercept = 1, -1024
        item.PixelData = (plane.astype(np.int32) + 1024).astype(np.uint16).tobytes()
        slices.append(item)
    return slices


def save(items, folder, names=None):
    """Write data sets under names that say nothing about their order."""
    folder.mkdir(parents=True, exist_ok=True)
    names = names or [f"{(7 * k) % 101:03d}.ima" for k in range(len(items))]
    for item, name in zip(items, names, strict=True):
        item.save_as(folder / name, enforce_file_format=True)
    return [folder / name for name in names]


def write_ct(folder, hu=None, **how):
    return save(ct_slices(hu, **how), folder)


def square(k, low, high, spacing=SPACING, origin=ORIGIN):
    """Corners in mm of a square round the voxels low..high-1 of slice k, (x, y) each."""
    x0, y0 = (o + (n - 0.5) * s for o, n, s in zip(origin, low, spacing, strict=False))
    x1, y1 = (o + (n - 0.5) * s for o, n, s in zip(origin, high, spacing, strict=False))
    z = origin[2] + k * spacing[2]
    return [[x0, y0, z], [x1, y0, z], [x1, y1, z], [x0, y1, z]]


def rtstruct(rois, patient="A 1", series="s"):
    """An RTSTRUCT of named lists of contours, each a list of corners in mm."""
    item = file_of("1.2.840.10008.5.1.4.1.1.481.3", uid("rtstruct", patient, *rois), patient, "structures")
    item.Modality = "RTSTRUCT"
    one, study, frame = Dataset(), Dataset(), Dataset()
    one.SeriesInstanceUID = uid(series, patient)
    study.ReferencedSOPInstanceUID = uid("study", patient)
    study.RTReferencedSeriesSequence = [one]
    frame.FrameOfReferenceUID = uid("frame", patient)
    frame.RTReferencedStudySequence = [study]
    item.ReferencedFrameOfReferenceSequence = [frame]
    item.StructureSetROISequence, item.ROIContourSequence = [], []
    for number, (name, contours) in enumerate(rois.items(), start=1):
        roi, drawn = Dataset(), Dataset()
        roi.ROINumber, roi.ROIName = number, name
        drawn.ReferencedROINumber = number
        drawn.ContourSequence = []
        for corners in contours:
            contour = Dataset()
            contour.ContourGeometricType = "CLOSED_PLANAR" if len(corners) > 1 else "POINT"
            contour.NumberOfContourPoints = len(corners)
            contour.ContourData = [f"{v:.4f}" for point in corners for v in point]
            drawn.ContourSequence.append(contour)
        item.StructureSetROISequence.append(roi)
        item.ROIContourSequence.append(drawn)
    return item


def seg(masks, slices, **changes):
    """A SEG that highdicom writes: masks by label, shape (z, y, x), on the slices of a CT."""
    from highdicom import AlgorithmIdentificationSequence
    from highdicom.seg import (
        SegmentAlgorithmTypeValues,
        Segmentation,
        SegmentationTypeValues,
        SegmentDescription,
    )
    from pydicom.sr.codedict import codes

    algorithm = changes.pop("algorithm", "MANUAL")
    identification = AlgorithmIdentificationSequence("net", codes.DCM.ArtificialIntelligence, "1")
    descriptions = [
        SegmentDescription(
            number, label, codes.SCT.Tissue, codes.SCT.Tissue, SegmentAlgorithmTypeValues(algorithm),
            **({"algorithm_identification": identification} if algorithm != "MANUAL" else {}),
        )
        for number, label in enumerate(masks, start=1)
    ]  # fmt: skip
    return Segmentation(
        source_images=slices,
        pixel_array=np.stack(list(masks.values()), axis=-1),
        segmentation_type=changes.pop("kind", SegmentationTypeValues.BINARY),
        segment_descriptions=descriptions,
        series_instance_uid=uid("seg", *masks),
        series_number=2,
        sop_instance_uid=uid("seg file", *masks),
        instance_number=1,
        manufacturer="MAKER",
        manufacturer_model_name="model",
        software_versions="1",
        device_serial_number="1",
        **changes,
    )


def files_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*")) if folder.exists() else []
