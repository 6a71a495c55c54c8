"""Which parts of what was found are kept: large enough, and in or near the lungs."""

import numpy as np
import SimpleITK as sitk

from radiogen.measures.lesions import split_lesions
from radiogen.volume import Box, voxel_ml, widened

LUNG_MARGIN_MM = 10.0  # a lesion may lie this far from the lungs (a tumour in the wall or the hilum)


def keep_lesions(
    found: sitk.Image, lungs: sitk.Image, smallest_ml: float
) -> tuple[sitk.Image, tuple[str, ...]]:
    """Give each part that is kept a label of its own, the largest first, and say what was left out.

    Args:
        found: Mask, everything that is not 0 counts.
        lungs: Lung mask on the same grid.
        smallest_ml: Parts below this volume are left out.
    """
    lesion = split_lesions(found, smallest_ml)
    decisions = []
    voxels = [int(np.count_nonzero(sitk.GetArrayViewFromImage(mask))) for mask in (found, lesion)]
    small_ml = (voxels[0] - voxels[1]) * voxel_ml(found)
    if small_ml > 0:
        decisions.append(f"{small_ml:.2f} ml in parts below {smallest_ml:g} ml left out")
    shapes = sitk.LabelShapeStatisticsImageFilter()
    shapes.Execute(lesion)
    away = []
    for label in shapes.GetLabels():
        bounds = shapes.GetBoundingBox(label)
        near = widened(Box(bounds[:3], bounds[3:]), lungs, LUNG_MARGIN_MM)
        if not lungs_are_near(lungs, near):
            away.append(label)
    if away:
        away_ml = sum(shapes.GetNumberOfPixels(label) for label in away) * voxel_ml(lesion)
        decisions.append(f"{len(away)} parts of {away_ml:.2f} ml away from the lungs left out")
        kept = [label for label in shapes.GetLabels() if label not in away]
        renamed = {label: kept.index(label) + 1 if label in kept else 0 for label in shapes.GetLabels()}
        lesion = sitk.ChangeLabel(lesion, renamed)
    return lesion, tuple(decisions)


def lungs_are_near(lungs: sitk.Image, box: Box | None) -> bool:
    """Whether a box of the lung mask holds lung; None, a box outside the CT, holds none."""
    return box is not None and bool(sitk.GetArrayViewFromImage(lungs)[box.array_slices()].any())
