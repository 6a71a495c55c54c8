"""Compare a lesion mask with a reference: Dice, surface Dice, Hausdorff distance, volume, lesions found.

A mask counts by its voxels that are not 0; its lesions are the parts that hang together (26 neighbours),
whatever their labels. Two empty masks agree fully (Dice and surface Dice 1, distance 0); where only one is
empty there is no agreement (Dice and surface Dice 0, distance infinite).
"""

from dataclasses import dataclass
from math import inf, nan

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from radiogen.errors import VolumeError
from radiogen.volume import array_of, bounding_box, same_grid, voxel_ml

FOUND_SHARE = 0.1  # of a lesion's voxels

Labels = npt.NDArray[np.integer]


@dataclass(frozen=True)
class Overlap:
    """How well the voxels and the surfaces of two masks agree."""

    dice: float
    surface_dice: float
    hd95_mm: float
    predicted_ml: float
    reference_ml: float

    @property
    def volume_error_ml(self) -> float:
        """Above 0 where the prediction is the larger."""
        return self.predicted_ml - self.reference_ml

    @property
    def volume_error_share(self) -> float:
        """The error as a share of the reference's volume; NaN where the reference is empty."""
        return self.volume_error_ml / self.reference_ml if self.reference_ml else nan


@dataclass(frozen=True)
class LesionCounts:
    """Lesions of the reference, how many of them were found or missed, and predicted ones that are none."""

    reference: int
    found: int
    missed: int
    false: int


def measure_overlap(predicted: sitk.Image, reference: sitk.Image, tolerance_mm: float = 2.0) -> Overlap:
    """Compare two masks.

    Surfaces are the voxels of a mask with a neighbour (of six) outside of it, each counted once, distances
    those between their centres. Surface Dice is the share of both surfaces within the tolerance of the other
    (Nikolov et al. 2021), the distance the larger of the two directed 95th percentiles.

    Args:
        predicted: Mask, all that is not 0 counts.
        reference: Mask on the same grid.
        tolerance_mm: Distance up to which surfaces agree.

    Raises:
        VolumeError: The masks lie on different grids.
    """
    predicted, reference = union_of_boxes(predicted, reference)
    counts = [int(np.count_nonzero(sitk.GetArrayViewFromImage(mask))) for mask in (predicted, reference)]
    predicted_ml, reference_ml = (count * voxel_ml(reference) for count in counts)
    if not all(counts):
        alike = not any(counts)
        return Overlap(float(alike), float(alike), 0.0 if alike else inf, predicted_ml, reference_ml)
    shared = np.count_nonzero(array_of(sitk.And(predicted, reference)))
    there, back = _surface_distances_mm(predicted, reference)
    near = np.count_nonzero(there <= tolerance_mm) + np.count_nonzero(back <= tolerance_mm)
    return Overlap(
        dice=2 * float(shared) / sum(counts),
        surface_dice=float(near) / (len(there) + len(back)),
        hd95_mm=float(max(np.percentile(there, 95), np.percentile(back, 95))),
        predicted_ml=predicted_ml,
        reference_ml=reference_ml,
    )


def count_lesions(predicted: sitk.Image, reference: sitk.Image) -> LesionCounts:
    """Count what was found, missed and invented.

    A predicted lesion is false where less than a tenth of it lies in the reference; a lesion of the reference
    is found where those that are not false cover a tenth of it or more. So nobody finds a nodule by painting
    the whole lung.

    Raises:
        VolumeError: The masks lie on different grids.
    """
    predicted, reference = union_of_boxes(predicted, reference)
    guessed, true = label_parts(predicted), label_parts(reference)
    real = _covered(guessed, true > 0)
    real[0] = False
    found = int(np.count_nonzero(_covered(true, real[guessed])[1:]))
    lesions, guesses = int(true.max()), int(guessed.max())
    return LesionCounts(lesions, found, lesions - found, guesses - int(np.count_nonzero(real)))


def _covered(parts: Labels, cover: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """By label, 0 for the background: whether a tenth of the part or more is covered."""
    sizes = np.bincount(parts.ravel())
    return np.asarray(np.bincount(parts[cover], minlength=len(sizes)) >= FOUND_SHARE * sizes)


def union_of_boxes(a: sitk.Image, b: sitk.Image) -> tuple[sitk.Image, sitk.Image]:
    """Both masks as 0 and 1, cut to the box round all their voxels, with a rim of one empty voxel.

    Raises:
        VolumeError: The masks lie on different grids.
    """
    if not same_grid(a, b):
        raise VolumeError(
            "predicted mask", "does not lie on the grid of the reference", "resample it, nearest neighbour"
        )
    boxes = [box for box in (bounding_box(a), bounding_box(b)) if box]
    if not boxes:
        empty = sitk.Image([1, 1, 1], sitk.sitkUInt8)
        empty.SetSpacing(a.GetSpacing())
        return empty, empty
    start = np.min([box.start for box in boxes], axis=0)
    size = np.max([box.end for box in boxes], axis=0) - start
    cut_a, cut_b = (
        sitk.ConstantPad(
            sitk.RegionOfInterest(mask, size=size.tolist(), index=start.tolist()) != 0, (1, 1, 1), (1, 1, 1)
        )
        for mask in (a, b)
    )
    cut_b.CopyInformation(cut_a)
    return cut_a, cut_b


def label_parts(mask: sitk.Image) -> Labels:
    """The parts of a mask that hang together, numbered from 1; shape (z, y, x)."""
    return array_of(sitk.ConnectedComponent(mask != 0, True))


def _surface_distances_mm(
    a: sitk.Image, b: sitk.Image
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """From each surface voxel of one mask to the nearest of the other, both ways."""
    surfaces = [sitk.LabelContour(mask, fullyConnected=False) for mask in (a, b)]
    on_a, on_b = (array_of(surface) != 0 for surface in surfaces)
    to_a, to_b = (array_of(_distance_mm(surface)) for surface in surfaces)
    return np.maximum(to_b[on_a], 0), np.maximum(to_a[on_b], 0)


def _distance_mm(surface: sitk.Image) -> sitk.Image:
    return sitk.SignedMaurerDistanceMap(surface, squaredDistance=False, useImageSpacing=True)
