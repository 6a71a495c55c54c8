"""Compare the voxels and surfaces of two masks: Dice, surface Dice, Hausdorff and average distance, volume.

A mask counts by its voxels that are not 0. Two empty masks agree fully (Dice and surface Dice 1, distances
0); where only one is empty there is no agreement (Dice and surface Dice 0, distances infinite). Whether such
a figure means anything is for the caller: `evaluation/` takes no mean over scans without a lesion.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, nan

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
from scipy import ndimage
from scipy.spatial import KDTree

from radiogen.errors import VolumeError
from radiogen.volume import Box, array_of, bounding_box, crop, same_grid

ROUNDING_MM = 1e-6  # so that 3 x 0.7 mm is not more than a tolerance of 2.1 mm

Voxels = npt.NDArray[np.bool_]
Distances = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Overlap:
    """Agreement of the voxels and the surfaces of two masks, and the volumes of both."""

    dice: float
    surface_dice: float
    hd95_mm: float
    assd_mm: float
    predicted_ml: float
    reference_ml: float

    @property
    def volume_error_ml(self) -> float:
        """Predicted minus reference: above 0 where the prediction is the larger."""
        return self.predicted_ml - self.reference_ml

    @property
    def volume_error_share(self) -> float:
        """The error as a share of the reference's volume; NaN where the reference is empty."""
        return self.volume_error_ml / self.reference_ml if self.reference_ml else nan


def measure_overlap(predicted: sitk.Image, reference: sitk.Image, tolerance_mm: float = 2.0) -> Overlap:
    """Compare two masks of one grid; see `overlap_of`.

    Raises:
        VolumeError: The masks lie on different grids.
    """
    # Outside the box round both masks every voxel agrees, and no figure counts agreement on background.
    box = box_round_both(predicted, reference)
    if box is None:
        return overlap_of(np.zeros((1, 1, 1), np.bool_), np.zeros((1, 1, 1), np.bool_), (1.0, 1.0, 1.0))
    a, b = (array_of(crop(mask, box)) != 0 for mask in (predicted, reference))
    return overlap_of(a, b, reference.GetSpacing(), tolerance_mm)


def overlap_of(
    predicted: Voxels, reference: Voxels, spacing_mm: Sequence[float], tolerance_mm: float = 2.0
) -> Overlap:
    """Compare two masks as arrays.

    Surfaces are the voxels of a mask with a neighbour (of six) outside of it, each counted once, distances
    those between their centres. Surface Dice is the share of both surfaces within the tolerance of the other
    (Nikolov et al. 2021), HD95 the larger of the two directed 95th percentiles, ASSD the mean over both
    surfaces.

    Args:
        predicted: (z, y, x); what lies past its edge counts as background.
        reference: The same shape.
        spacing_mm: Of x, y, z.
        tolerance_mm: Distance up to which surfaces agree.
    """
    voxel_ml = float(np.prod(spacing_mm)) / 1000.0
    counts = [int(np.count_nonzero(mask)) for mask in (predicted, reference)]
    predicted_ml, reference_ml = (count * voxel_ml for count in counts)
    # With an empty mask there is no surface to measure to: full agreement or none.
    if not all(counts):
        alike = not any(counts)
        far = 0.0 if alike else inf
        return Overlap(float(alike), float(alike), far, far, predicted_ml, reference_ml)
    to_reference, to_predicted = _surface_distances_mm(predicted, reference, spacing_mm)
    both = np.concatenate([to_reference, to_predicted])
    return Overlap(
        dice=dice_of(predicted, reference),
        surface_dice=float(np.mean(both <= tolerance_mm + ROUNDING_MM)),
        # As MONAI's HausdorffDistanceMetric: the percentile in each direction, then the larger.
        hd95_mm=float(max(np.percentile(to_reference, 95), np.percentile(to_predicted, 95))),
        assd_mm=float(to_reference.sum() + to_predicted.sum()) / len(both),
        predicted_ml=predicted_ml,
        reference_ml=reference_ml,
    )


def dice_of(a: Voxels, b: Voxels) -> float:
    """Return twice what two masks share over the sum of both (Dice 1945); 1 for two empty masks."""
    total = int(np.count_nonzero(a)) + int(np.count_nonzero(b))
    return 2 * int(np.count_nonzero(a & b)) / total if total else 1.0


def box_round_both(a: sitk.Image, b: sitk.Image) -> Box | None:
    """Return the box round all voxels of two masks; None where both are empty.

    Raises:
        VolumeError: The masks lie on different grids.
    """
    if not same_grid(a, b):
        raise VolumeError(
            "predicted mask", "does not lie on the grid of the reference", "resample it, nearest neighbour"
        )
    boxes = [box for box in (bounding_box(a), bounding_box(b)) if box]
    if not boxes:
        return None
    start = np.min([box.start for box in boxes], axis=0)
    x, y, z = (np.max([box.end for box in boxes], axis=0) - start).tolist()
    return Box((int(start[0]), int(start[1]), int(start[2])), (x, y, z))


def _surface_distances_mm(a: Voxels, b: Voxels, spacing_mm: Sequence[float]) -> tuple[Distances, Distances]:
    """Return the distance from each surface voxel of one mask to the nearest of the other, both ways.

    By k-d trees, not distance transforms: time and memory go with the surfaces, not with the box round both.
    """
    on_a, on_b = (np.argwhere(_surface(mask)) * np.array(spacing_mm)[::-1] for mask in (a, b))
    a_to_b, _ = KDTree(on_b).query(on_a)
    b_to_a, _ = KDTree(on_a).query(on_b)
    return a_to_b, b_to_a


def _surface(mask: Voxels) -> Voxels:
    """Return the voxels of a mask with a neighbour (of six) outside of it; past the edge is outside."""
    # The default structure is the six neighbours, and `border_value` 0 makes the edge of the array outside.
    inner: Voxels = ndimage.binary_erosion(mask)
    return mask & ~inner
