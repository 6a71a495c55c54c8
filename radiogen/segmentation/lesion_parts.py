"""Which parts of what was found are kept: large enough, and in or at the lungs."""

import numpy as np
import SimpleITK as sitk

from radiogen.measures.lesions import split_lesions
from radiogen.volume import Box, array_of, crop, voxel_ml, widened

LUNG_MARGIN_MM = 10.0  # a lesion may lie this far from the lungs (a tumour in the wall or the hilum)
LEAST_NEAR = 0.2  # share of a part within that margin; a ball of 9 cm with one half in the lungs has 0.26


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
        if share_near_lungs(lesion, label, lungs, Box(bounds[:3], bounds[3:])) < LEAST_NEAR:
            away.append(label)
    if away:
        away_ml = sum(shapes.GetNumberOfPixels(label) for label in away) * voxel_ml(lesion)
        decisions.append(f"{len(away)} parts of {away_ml:.2f} ml away from the lungs left out")
        kept = [label for label in shapes.GetLabels() if label not in away]
        renamed = {label: kept.index(label) + 1 if label in kept else 0 for label in shapes.GetLabels()}
        lesion = sitk.ChangeLabel(lesion, renamed)
    return lesion, tuple(decisions)


def share_near_lungs(lesion: sitk.Image, label: int, lungs: sitk.Image, box: Box) -> float:
    """The share of one part that lies in the lungs or within `LUNG_MARGIN_MM` of them.

    Args:
        lesion: Labels of the parts.
        label: Of the part, which has voxels.
        lungs: Lung mask on the same grid.
        box: That holds the part.
    """
    room = widened(box, lungs, LUNG_MARGIN_MM)
    inside = crop(lungs, room) != 0
    if not sitk.GetArrayViewFromImage(inside).any():
        return 0.0
    distance = sitk.SignedMaurerDistanceMap(inside, squaredDistance=False, useImageSpacing=True)
    voxels = array_of(crop(lesion, room)) == label
    return float(np.mean(array_of(distance)[voxels] <= LUNG_MARGIN_MM))


def lungs_are_near(lungs: sitk.Image, box: Box | None) -> bool:
    """Whether a box of the lung mask holds lung; None, a box outside the CT, holds none."""
    return box is not None and bool(sitk.GetArrayViewFromImage(lungs)[box.array_slices()].any())
