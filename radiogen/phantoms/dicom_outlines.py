"""The lesions of a made chest as RTSTRUCT or as DICOM SEG, named as the public cohorts name them."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from pydicom import Dataset
from pydicom.uid import RTStructureSetStorage

from radiogen.phantoms.chest import Chest
from radiogen.phantoms.dicom_objects import Study, new_object
from radiogen.volume import array_of

Corner = tuple[int, int]  # column and row of a pixel's upper left corner
ROIS = ("Lung-Right", "GTV-1")


def make_rtstruct(chest: Chest, study: Study, slices: Sequence[Dataset]) -> Dataset:
    """All lesions as `GTV-1` beside the right lung, closed contours along the edges of the pixels."""
    item = new_object(study, RTStructureSetStorage, "rtstruct", "RTSTRUCT", study.uid("outline series"))
    item.Manufacturer, item.SeriesNumber, item.InstanceNumber = "RADIOGEN", 1000, 1
    item.StructureSetLabel, item.StructureSetDate, item.StructureSetTime = "RTstruct", study.date, "120000"
    item.ReferencedFrameOfReferenceSequence = [_frame_of_reference(study, slices)]
    masks = (array_of(chest.lungs) == 1, array_of(chest.lesion) > 0)
    drawn = [(n, name, mask) for n, (name, mask) in enumerate(zip(ROIS, masks, strict=True), start=1)]
    item.StructureSetROISequence = [_roi(study, number, name) for number, name, _ in drawn]
    item.ROIContourSequence = [_contours(number, mask, slices) for number, _, mask in drawn]
    item.RTROIObservationsSequence = [_observation(number, name) for number, name, _ in drawn]
    return item


def _frame_of_reference(study: Study, slices: Sequence[Dataset]) -> Dataset:
    images = []
    for one in slices:
        image = Dataset()
        image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID = one.SOPClassUID, one.SOPInstanceUID
        images.append(image)
    series, referenced, frame = Dataset(), Dataset(), Dataset()
    series.SeriesInstanceUID, series.ContourImageSequence = study.uid("ct series"), images
    referenced.ReferencedSOPClassUID = "1.2.840.10008.3.1.2.3.1"  # detached study, retired
    referenced.ReferencedSOPInstanceUID = study.uid("study")
    referenced.RTReferencedSeriesSequence = [series]
    frame.FrameOfReferenceUID = study.uid("frame")
    frame.RTReferencedStudySequence = [referenced]
    return frame


def _roi(study: Study, number: int, name: str) -> Dataset:
    roi = Dataset()
    roi.ROINumber, roi.ROIName = number, name
    roi.ReferencedFrameOfReferenceUID, roi.ROIGenerationAlgorithm = study.uid("frame"), "MANUAL"
    return roi


def _observation(number: int, name: str) -> Dataset:
    observation = Dataset()
    observation.ObservationNumber = observation.ReferencedROINumber = number
    observation.RTROIInterpretedType = "GTV" if name.startswith("GTV") else "ORGAN"
    observation.ROIInterpreter = ""
    return observation


def _contours(number: int, mask: npt.NDArray[np.bool_], slices: Sequence[Dataset]) -> Dataset:
    drawn = Dataset()
    drawn.ReferencedROINumber, drawn.ROIDisplayColor = number, [255, 0, 0]
    drawn.ContourSequence = [
        _contour(corners, plane) for plane, part in zip(slices, mask, strict=True) for corners in trace(part)
    ]
    return drawn


def _contour(corners: Sequence[Corner], plane: Dataset) -> Dataset:
    x, y, z = (float(v) for v in plane.ImagePositionPatient)
    dy, dx = (float(v) for v in plane.PixelSpacing)
    image, contour = Dataset(), Dataset()
    image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID = plane.SOPClassUID, plane.SOPInstanceUID
    contour.ContourImageSequence = [image]
    contour.ContourGeometricType, contour.NumberOfContourPoints = "CLOSED_PLANAR", len(corners)
    points = ((x + (column - 0.5) * dx, y + (row - 0.5) * dy, z) for column, row in corners)
    contour.ContourData = [f"{v:.4f}" for point in points for v in point]
    return contour


def trace(mask: npt.NDArray[np.bool_]) -> list[list[Corner]]:
    """Closed lines along the pixel edges round every part and hole of a mask.

    Args:
        mask: Shape (rows, columns).

    Returns:
        Corners of each line; (0, 0) is the upper left corner of the first pixel.

    >>> trace(np.array([[True, True], [False, False]]))
    [[(0, 0), (2, 0), (2, 1), (0, 1)]]
    """
    ways: dict[Corner, list[Corner]] = defaultdict(list)
    padded = np.pad(mask, 1)
    for shift, start, end in (  # the neighbour across each edge, and the edge with the inside on its right
        ((-1, 0), (0, 0), (1, 0)),
        ((0, 1), (1, 0), (1, 1)),
        ((1, 0), (1, 1), (0, 1)),
        ((0, -1), (0, 1), (0, 0)),
    ):
        across = np.roll(padded, (-shift[0], -shift[1]), (0, 1))[1:-1, 1:-1]
        for row, column in np.argwhere(mask & ~across).tolist():
            ways[column + start[0], row + start[1]].append((column + end[0], row + end[1]))
    lines = []
    for first in sorted(ways, key=lambda corner: (corner[1], corner[0])):
        while ways[first]:
            line, here = [first], ways[first].pop()
            while here != first:
                line.append(here)
                here = ways[here].pop()
            lines.append(_without_straight(line))
    return lines


def _without_straight(line: list[Corner]) -> list[Corner]:
    """Only the corners where a line turns."""
    before, after = [line[-1], *line[:-1]], [*line[1:], line[0]]
    turns = [a[0] != c[0] and a[1] != c[1] for a, c in zip(before, after, strict=True)]
    return [corner for corner, is_turn in zip(line, turns, strict=True) if is_turn]


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
    _fix_chance(item, study)
    return item


def _fix_chance(item: Dataset, study: Study) -> None:
    """Replace the times and UIDs that highdicom takes from the clock and from chance."""
    item.SeriesDate = item.ContentDate = item.InstanceCreationDate = study.date
    item.SeriesTime = item.ContentTime = item.InstanceCreationTime = "120000"
    for equipment in item.get("ContributingEquipmentSequence", ()):
        equipment.ContributionDateTime = f"{study.date}120000"
    uid = study.uid("dimensions")
    for one in (*item.DimensionOrganizationSequence, *item.DimensionIndexSequence):
        one.DimensionOrganizationUID = uid
