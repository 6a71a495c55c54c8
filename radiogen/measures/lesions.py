"""Separate the lesions of a mask and measure where each lies and how large it is."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import SimpleITK as sitk
from scipy.spatial import ConvexHull
from scipy.spatial.distance import pdist

from radiogen.errors import VolumeError
from radiogen.volume import bounding_box, crop, voxel_ml

LESION_COLUMNS = (
    "case_id",
    "lesion",
    "volume_ml",
    "longest_diameter_mm",
    "center_x_mm",  # LPS
    "center_y_mm",
    "center_z_mm",
)
MOST_LESIONS = 255  # what a uint8 mask can hold


@dataclass(frozen=True)
class Lesion:
    """One tumour of a case: its label in the lesion mask, where it lies, how large it is."""

    label: int
    center_mm: tuple[float, float, float]  # LPS, mean of the voxel centres
    volume_ml: float
    longest_diameter_mm: float


def measure_lesions(mask: sitk.Image) -> list[Lesion]:
    """Measure every label of a lesion mask, in the order of the labels.

    The longest diameter is the largest distance between two points of the lesion's surface, where the
    surface lies half a voxel outside the outermost voxel centres (IBSI "maximum 3D diameter", L0JK): one
    voxel of 1 x 1 x 3 mm is 3 mm long.

    Args:
        mask: uint8, 0 background, 1..n lesions.

    Returns:
        One entry a label that has voxels; empty for an empty mask.
    """
    shapes = sitk.LabelShapeStatisticsImageFilter()
    shapes.ComputeFeretDiameterOff()  # slow on large masks, and between voxel centres
    shapes.Execute(mask)
    lesions = []
    for label in shapes.GetLabels():
        bounds = shapes.GetBoundingBox(label)
        region = sitk.RegionOfInterest(mask, size=bounds[3:], index=bounds[:3])
        lesions.append(
            Lesion(
                label=int(label),
                center_mm=shapes.GetCentroid(label),
                volume_ml=shapes.GetNumberOfPixels(label) * voxel_ml(mask),
                longest_diameter_mm=longest_diameter_mm(region == label),
            )
        )
    return lesions


def longest_diameter_mm(mask: sitk.Image) -> float:
    """Return the largest distance between two points on the surface of the voxels that are not 0.

    The farthest points of a set lie on its convex hull, which has few points even for a large tumour. It is 0
    for an empty mask.
    """
    # The surface lies half a voxel outside the outermost centres; padding closes it at the volume's edge.
    inside = np.pad(sitk.GetArrayViewFromImage(mask) != 0, 1)
    centres = []  # of the faces with background behind them, in voxels
    for axis in range(3):
        for side in (1, -1):
            faces = np.argwhere(inside & ~np.roll(inside, -side, axis)).astype(np.float64)
            faces[:, axis] += side / 2
            centres.append(faces)
    points = np.concatenate(centres)
    if len(points) == 0:
        return 0.0
    # Arrays are (z, y, x), the spacing is (x, y, z).
    points *= np.array(mask.GetSpacing()[::-1])
    return float(pdist(points[ConvexHull(points).vertices]).max())


def split_lesions(mask: sitk.Image, smallest_ml: float = 0.0) -> sitk.Image:
    """Give every connected part of a mask its own label, the largest first.

    Args:
        mask: Everything that is not 0 counts; parts that touch by a corner are one (26 neighbours).
        smallest_ml: Parts below this volume are left out.

    Returns:
        uint8 mask, 0 background, 1..n by falling size, on the same grid.

    Raises:
        VolumeError: There are more than 255 parts.
    """
    labels = sitk.Image(mask.GetSize(), sitk.sitkUInt8)
    labels.CopyInformation(mask)
    # Only the box round the lesions is searched: a mask of a whole chest is mostly empty.
    box = bounding_box(mask)
    if box is None:
        return labels
    smallest_voxels = max(1, int(np.ceil(smallest_ml / voxel_ml(mask) - 1e-6)))  # 3.0000001 voxels are 3
    order = sitk.RelabelComponentImageFilter()
    order.SetMinimumObjectSize(smallest_voxels)
    parts = order.Execute(sitk.ConnectedComponent(crop(mask, box) != 0, True))
    kept = sum(size >= smallest_voxels for size in order.GetSizeOfObjectsInPixels())
    # Labels beyond 255 would wrap round in a uint8 mask and join lesions that have nothing in common.
    if kept > MOST_LESIONS:
        raise VolumeError(
            "lesion mask", f"falls into {kept} parts, a mask holds {MOST_LESIONS}", "leave out the smallest"
        )
    return sitk.Paste(labels, sitk.Cast(parts, sitk.sitkUInt8), parts.GetSize(), destinationIndex=box.start)


def lesion_rows(case_id: str, lesions: Sequence[Lesion]) -> list[dict[str, Any]]:
    """Return the lesions of one case as rows of lesions.csv; volume to 0.1 µL, lengths to 0.01 mm."""
    return [
        {
            "case_id": case_id,
            "lesion": lesion.label,
            "volume_ml": round(lesion.volume_ml, 4),
            "longest_diameter_mm": round(lesion.longest_diameter_mm, 2),
            "center_x_mm": round(lesion.center_mm[0], 2),
            "center_y_mm": round(lesion.center_mm[1], 2),
            "center_z_mm": round(lesion.center_mm[2], 2),
        }
        for lesion in lesions
    ]
