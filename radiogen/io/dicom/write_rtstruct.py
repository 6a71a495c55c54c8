"""Write lesions as an RTSTRUCT.

Contours follow the edges of pixels: they look like stairs, and fill to the same voxels, where smooth ones
would not.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from pydicom import Dataset
from pydicom.uid import RTStructureSetStorage

from radiogen.io.dicom.referenced_ct import ReferencedCt, ScanSlice
from radiogen.io.dicom.write_object import Outlines, new_item
from radiogen.io.nifti import label_colour
from radiogen.io.polygons import BoolArray, Corner, trace


@dataclass(frozen=True)
class Structure:
    """One ROI: its name, its voxels of shape (z, y, x), and what the planning world calls it."""

    name: str
    inside: BoolArray
    kind: str = ""  # RTROIInterpretedType; empty: nobody decided that a lesion is a target
    algorithm: str = "AUTOMATIC"
    colour: tuple[int, int, int] = (255, 0, 0)


def make_rtstruct(outlines: Outlines) -> Dataset:
    """Return an RTSTRUCT; one ROI a label, by rising label.

    Args:
        outlines: At least one label with voxels.
    """
    item = new_item(outlines, RTStructureSetStorage, "RTSTRUCT")
    item.StructureSetLabel, item.ApprovalStatus = "LESIONS", "UNAPPROVED"
    item.StructureSetDate, item.StructureSetTime = outlines.scan.date, outlines.scan.time
    author = outlines.author
    if author.name:
        item.StructureSetDescription = f"{author.name} {author.version}"
    algorithm = "AUTOMATIC" if author.name else "MANUAL"
    structures = [
        Structure(name, outlines.inside(label), algorithm=algorithm, colour=label_colour(label))
        for label, name in outlines.names.items()
    ]
    set_structures(item, structures, outlines.labels, outlines.scan)
    return item


def set_structures(
    item: Dataset, structures: Sequence[Structure], grid: sitk.Image, scan: ReferencedCt
) -> None:
    """Fill a structure set with ROIs, contours and observations."""
    numbered = list(enumerate(structures, start=1))
    on_grid = scan.slices_on(grid)
    item.ReferencedFrameOfReferenceSequence = [_frame_of_reference(scan)]
    item.StructureSetROISequence = [_roi(scan, number, one) for number, one in numbered]
    item.ROIContourSequence = [_contours(number, one, grid, scan, on_grid) for number, one in numbered]
    item.RTROIObservationsSequence = [_observation(number, one) for number, one in numbered]


def _image(scan: ReferencedCt, uid: str) -> Dataset:
    image = Dataset()
    image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID = scan.sop_class, uid
    return image


def _frame_of_reference(scan: ReferencedCt) -> Dataset:
    series, referenced, frame = Dataset(), Dataset(), Dataset()
    series.SeriesInstanceUID = scan.series_uid
    series.ContourImageSequence = [_image(scan, one.uid) for one in scan.slices]
    referenced.ReferencedSOPClassUID = "1.2.840.10008.3.1.2.3.1"  # detached study, retired
    referenced.ReferencedSOPInstanceUID = scan.study_uid
    referenced.RTReferencedSeriesSequence = [series]
    frame.FrameOfReferenceUID = scan.frame_uid
    frame.RTReferencedStudySequence = [referenced]
    return frame


def _roi(scan: ReferencedCt, number: int, structure: Structure) -> Dataset:
    roi = Dataset()
    roi.ROINumber, roi.ROIName = number, structure.name
    roi.ReferencedFrameOfReferenceUID, roi.ROIGenerationAlgorithm = scan.frame_uid, structure.algorithm
    return roi


def _observation(number: int, structure: Structure) -> Dataset:
    observation = Dataset()
    observation.ObservationNumber = observation.ReferencedROINumber = number
    observation.RTROIInterpretedType, observation.ROIInterpreter = structure.kind, ""
    return observation


def _contours(
    number: int,
    structure: Structure,
    grid: sitk.Image,
    scan: ReferencedCt,
    on_grid: Sequence[ScanSlice | None],
) -> Dataset:
    drawn = Dataset()
    drawn.ReferencedROINumber, drawn.ROIDisplayColor = number, list(structure.colour)
    drawn.ContourSequence = [
        _contour(corners, k, grid, scan, on_grid[k])
        for k in np.flatnonzero(structure.inside.any(axis=(1, 2))).tolist()
        for corners in trace(structure.inside[k])
    ]
    return drawn


def _contour(
    corners: Sequence[Corner], k: int, grid: sitk.Image, scan: ReferencedCt, under: ScanSlice | None
) -> Dataset:
    contour = Dataset()
    if under is not None:
        contour.ContourImageSequence = [_image(scan, under.uid)]
    contour.ContourGeometricType, contour.NumberOfContourPoints = "CLOSED_PLANAR", len(corners)
    # Corners of pixels lie half a pixel before their centres.
    points = (
        grid.TransformContinuousIndexToPhysicalPoint((column - 0.5, row - 0.5, float(k)))
        for column, row in corners
    )
    # Four decimals, a ten-thousandth of a millimetre, fit the 16 characters of a DS for any scanner.
    contour.ContourData = [f"{v + 0.0:.4f}" for point in points for v in point]
    return contour
