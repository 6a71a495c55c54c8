"""Make a DICOM SR (TID 1500) of the volume and longest diameter of the lesions of a SEG."""

import warnings
from collections.abc import Sequence
from typing import Any, Protocol

from pydicom import Dataset
from pydicom.sr.coding import Code

from radiogen.io.dicom.objects import (
    MANUFACTURER,
    SERIES_NUMBERS,
    Outlines,
    put_identity,
    source_images,
)
from radiogen.io.dicom.scan import uid_of, without_chance

CT_CHEST = Code("24627-2", "LN", "CT Chest")
# IBSI L0JK: "maximum 3D diameter"; the feature of radiomics that the longest diameter is.
DIAMETER = Code("L0JK", "IBSI", "Maximum 3D Diameter of a Mesh")


class Measured(Protocol):
    """A lesion that was measured."""

    @property
    def label(self) -> int: ...

    @property
    def volume_ml(self) -> float: ...

    @property
    def longest_diameter_mm(self) -> float: ...


def make_sr(outlines: Outlines, lesions: Sequence[Measured], seg: Dataset) -> Dataset:
    """The measurements of each lesion, tied to its segment.

    Args:
        outlines: What `seg` was made from.
        lesions: Their measurements.
        seg: What `make_seg` made.
    """
    from highdicom.sr import Comprehensive3DSR, MeasurementReport, ObservationContext, ObserverContext
    from highdicom.sr import DeviceObserverIdentifyingAttributes as Device
    from pydicom.sr.codedict import codes

    images = source_images(outlines, outlines.planes)
    device = Device(uid=uid_of("device", MANUFACTURER), name=MANUFACTURER, manufacturer_name=MANUFACTURER)
    observer = ObserverContext(codes.DCM.Device, device)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # highdicom tells of patient names that look odd, as pseudonyms do
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
            is_final=False,
            series_description="radiogen measurements",
        )
    put_identity(item, outlines.scan)
    without_chance(item, outlines.scan.date, outlines.scan.time, "")
    item.ReferencedPerformedProcedureStepSequence = item.get("ReferencedPerformedProcedureStepSequence", [])
    return item


def _group(outlines: Outlines, lesion: Measured, seg: Dataset, images: Sequence[Dataset]) -> Any:
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

    name, maker = outlines.names[lesion.label], outlines.maker
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
        algorithm_id=AlgorithmIdentification(maker.name, maker.version) if maker.name else None,
        measurements=[
            Measurement(codes.SCT.Volume, round(1000 * lesion.volume_ml, 1), codes.UCUM.CubicMillimeter),
            Measurement(DIAMETER, round(lesion.longest_diameter_mm, 2), codes.UCUM.Millimeter),
        ],
    )
