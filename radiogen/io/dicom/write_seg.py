"""Write lesions as a DICOM SEG, one binary segment each, and their measurements as a DICOM SR."""

import warnings
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import SimpleITK as sitk
from pydicom import Dataset
from pydicom.sr.coding import Code

from radiogen import __version__
from radiogen.io.dicom.referenced_ct import derived_uid, make_reproducible
from radiogen.io.dicom.write_object import (
    MANUFACTURER,
    SERIES_NUMBERS,
    Outlines,
    decimals,
    set_identity,
    source_images,
)
from radiogen.io.nifti import label_colour


def make_seg(outlines: Outlines) -> Dataset:
    """Return a SEG by highdicom; segments are numbered from 1 by rising label, empty frames are left out.

    Args:
        outlines: At least one label with voxels.
    """
    from highdicom import PixelMeasuresSequence, PlaneOrientationSequence, PlanePositionSequence
    from highdicom.seg import Segmentation, SegmentationTypeValues

    labels = outlines.labels
    planes = outlines.planes
    voxels = sitk.GetArrayViewFromImage(labels)[planes]
    # Segments are numbered from 1 without gaps (PS3.3, C.8.20.2); labels of a mask may have gaps.
    number_of = np.zeros(256, dtype=np.uint8)
    number_of[list(outlines.names)] = np.arange(1, len(outlines.names) + 1)
    axes = np.array(labels.GetDirection()).reshape(3, 3)[:, :2].T.ravel().tolist()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # highdicom warns of unusual patient names, as pseudonyms are
        item: Dataset = Segmentation(
            source_images=source_images(outlines, planes),
            pixel_array=number_of[voxels],
            segmentation_type=SegmentationTypeValues.BINARY,
            segment_descriptions=[_description(outlines, label) for label in outlines.names],
            pixel_measures=PixelMeasuresSequence(
                pixel_spacing=decimals(labels.GetSpacing()[1::-1]),
                slice_thickness=decimals(labels.GetSpacing()[2:])[0],
                spacing_between_slices=decimals(labels.GetSpacing()[2:])[0],
            ),
            plane_orientation=PlaneOrientationSequence("PATIENT", decimals(axes)),
            plane_positions=[
                PlanePositionSequence("PATIENT", decimals(labels.TransformIndexToPhysicalPoint((0, 0, k))))
                for k in planes
            ],
            series_instance_uid=outlines.uid("SEG series"),
            series_number=SERIES_NUMBERS["SEG"],
            sop_instance_uid=outlines.uid("SEG"),
            instance_number=1,
            manufacturer=MANUFACTURER,
            manufacturer_model_name=MANUFACTURER,
            software_versions=__version__,
            device_serial_number="-",
            content_label="LESIONS",
            series_description="radiogen lesions",
        )
    set_identity(item, outlines.scan)
    make_reproducible(item, outlines.scan.date, outlines.scan.time, outlines.uid("dimensions"))
    return item


def _description(outlines: Outlines, label: int) -> Any:
    from highdicom import AlgorithmIdentificationSequence
    from highdicom.color import CIELabColor
    from highdicom.seg import SegmentAlgorithmTypeValues, SegmentDescription
    from pydicom.sr.codedict import codes

    author = outlines.author
    algorithm_type = (
        SegmentAlgorithmTypeValues.AUTOMATIC if author.name else SegmentAlgorithmTypeValues.MANUAL
    )
    algorithm = None
    if author.name:
        family = codes.DCM.ArtificialIntelligence
        algorithm = AlgorithmIdentificationSequence(author.name, family, author.version)
    category, kind, regions = codes.SCT.Tissue, codes.SCT.Tissue, None
    if outlines.are_lesions:  # not "primary neoplasm": a network does not know
        category, kind = codes.SCT.MorphologicallyAbnormalStructure, codes.SCT.Neoplasm
        regions = [codes.SCT.Lung]
    return SegmentDescription(
        segment_number=list(outlines.names).index(label) + 1,
        segment_label=outlines.names[label],
        segmented_property_category=category,
        segmented_property_type=kind,
        algorithm_type=algorithm_type,
        algorithm_identification=algorithm,
        tracking_uid=outlines.tracking_uid(label),
        tracking_id=outlines.names[label],
        anatomic_regions=regions,
        display_color=CIELabColor.from_rgb(*label_colour(label)),
    )


CT_CHEST = Code("24627-2", "LN", "CT Chest")
# IBSI L0JK: "maximum 3D diameter"; the feature of radiomics that the longest diameter is.
DIAMETER = Code("L0JK", "IBSI", "Maximum 3D Diameter of a Mesh")


class LesionMeasurement(Protocol):
    """A lesion that was measured."""

    @property
    def label(self) -> int: ...

    @property
    def volume_ml(self) -> float: ...

    @property
    def longest_diameter_mm(self) -> float: ...


def make_sr(outlines: Outlines, lesions: Sequence[LesionMeasurement], seg: Dataset) -> Dataset:
    """Return the measurements of each lesion, tied to its segment.

    Args:
        outlines: The lesions in `seg`.
        lesions: Their measurements.
        seg: The SEG of these outlines, from `make_seg`.
    """
    from highdicom.sr import Comprehensive3DSR, MeasurementReport, ObservationContext, ObserverContext
    from highdicom.sr import DeviceObserverIdentifyingAttributes as Device
    from pydicom.sr.codedict import codes

    images = source_images(outlines, outlines.planes)
    device = Device(
        uid=derived_uid("device", MANUFACTURER), name=MANUFACTURER, manufacturer_name=MANUFACTURER
    )
    observer = ObserverContext(codes.DCM.Device, device)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # highdicom warns of unusual patient names, as pseudonyms are
        report = MeasurementReport(
            observation_context=ObservationContext(observer_device_context=observer),
            procedure_reported=CT_CHEST,
            imaging_measurements=[_group(outlines, lesion, seg, images) for lesion in lesions],
            title=codes.DCM.ImagingMeasurementReport,
        )
        item: Dataset = Comprehensive3DSR(
            evidence=[*images, seg],
            content=report,
            series_instance_uid=outlines.uid("SR series"),
            series_number=SERIES_NUMBERS["SR"],
            sop_instance_uid=outlines.uid("SR"),
            instance_number=1,
            manufacturer=MANUFACTURER,
            is_complete=True,
            # Measurements of a program are preliminary until a person signs them.
            is_final=False,
            series_description="radiogen measurements",
        )
    set_identity(item, outlines.scan)
    make_reproducible(item, outlines.scan.date, outlines.scan.time, "")
    # Type 2 in the SR Document Series module (PS3.3, C.17.1): it must be there even when empty.
    item.ReferencedPerformedProcedureStepSequence = item.get("ReferencedPerformedProcedureStepSequence", [])
    return item


def _group(outlines: Outlines, lesion: LesionMeasurement, seg: Dataset, images: Sequence[Dataset]) -> Any:
    from highdicom.sr import (
        AlgorithmIdentification,
        FindingSite,
        Measurement,
        ReferencedSegment,
        SourceImageForSegmentation,
        TrackingIdentifier,
        VolumetricROIMeasurementsAndQualitativeEvaluations,
    )
    from pydicom.sr.codedict import codes

    name, author = outlines.names[lesion.label], outlines.author
    segment = ReferencedSegment(
        sop_class_uid=seg.SOPClassUID,
        sop_instance_uid=seg.SOPInstanceUID,
        segment_number=list(outlines.names).index(lesion.label) + 1,
        source_images=[
            SourceImageForSegmentation(image.SOPClassUID, image.SOPInstanceUID) for image in images
        ],
    )
    return VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(uid=outlines.tracking_uid(lesion.label), identifier=name),
        referenced_segment=segment,
        finding_type=codes.SCT.Neoplasm,
        finding_sites=[FindingSite(codes.SCT.Lung)],
        algorithm_id=AlgorithmIdentification(author.name, author.version) if author.name else None,
        measurements=[
            # 1 mL is 1000 mm3, the unit named here.
            Measurement(codes.SCT.Volume, round(1000 * lesion.volume_ml, 1), codes.UCUM.CubicMillimeter),
            Measurement(DIAMETER, round(lesion.longest_diameter_mm, 2), codes.UCUM.Millimeter),
        ],
    )
