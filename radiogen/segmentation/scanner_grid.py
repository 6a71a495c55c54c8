"""From the network's grid back to the scanner's: lesions and probabilities, laid slab by slab along z."""

import numpy as np
import SimpleITK as sitk
import torch

from radiogen.model.network_input import NetworkInput
from radiogen.model.priors import BoxMm, box_voxels
from radiogen.segmentation.inference import HalfArray, Piece
from radiogen.segmentation.sliding import NO_LESION, ArrayBox
from radiogen.volume import Box, FloatArray, resample_to, widened, writable_volume

SLAB_VOXELS = 8_000_000  # of the scanner's grid that are held as float32 at once
PARTS = 255  # a probability is kept as a whole number of these


class ScannerMap:
    """Labels of lesions and probabilities on the scanner's grid; starts empty.

    `lesion` is the volume and `labels` its voxels (z, y, x); `parts` are probabilities in 255ths, where
    something was laid, and 0 elsewhere.
    """

    def __init__(self, ct: sitk.Image, sample: NetworkInput, threshold: float) -> None:
        self.ct, self.sample, self.threshold = ct, sample, threshold
        self.lesion, self.labels = writable_volume(ct.GetSize(), sitk.sitkUInt8)
        self.lesion.CopyInformation(ct)
        self.parts = np.zeros(self.labels.shape, np.uint8)

    def lay(self, piece: Piece, label: int, region: Box, within: BoxMm | None = None) -> int:
        """Lay what the networks said into a region of the scanner's grid, where it is above what is there.

        Args:
            piece: Logits on the network's grid; they are interpolated, then turned into probabilities.
            label: For voxels whose probability reaches the threshold.
            region: Where, on the scanner's grid.
            within: A box that the region may reach out of, but not the lesion.

        Returns:
            How many voxels got the label.
        """
        count = 0
        for slab in _slabs(region):
            logits = logits_on(crop_grid(self.ct, slab), piece, self.sample)
            probability = torch.sigmoid(torch.from_numpy(logits)).numpy()
            parts = np.rint(probability * PARTS).astype(np.uint8)
            wins = parts > self.parts[slab.array_slices()]
            if within is not None:
                wins &= box_voxels(within, crop_grid(self.ct, slab))
            self.parts[slab.array_slices()][wins] = parts[wins]
            wins &= probability >= self.threshold
            self.labels[slab.array_slices()][wins] = label
            count += int(np.count_nonzero(wins))
        return count

    def probability(self) -> sitk.Image:
        """A volume of the probabilities in 255ths."""
        volume, voxels = writable_volume(self.ct.GetSize(), sitk.sitkUInt8)
        voxels[:] = self.parts
        volume.CopyInformation(self.ct)
        return volume


def logits_on(grid: sitk.Image, piece: Piece, sample: NetworkInput) -> FloatArray:
    """What the networks said of a box on another grid, linear; shape (z, y, x) of that grid."""
    if piece.detail is None:
        return interpolated(piece.logits, piece.near, sample, grid, NO_LESION)
    found: FloatArray = sitk.GetArrayFromImage(resample_to(piece.detail, grid, NO_LESION))
    return found


def interpolated(
    values: HalfArray, near: ArrayBox, sample: NetworkInput, grid: sitk.Image, outside: float
) -> FloatArray:
    """Values of a box of the network's grid on another grid, linear; shape (z, y, x) of that grid."""
    box = grid_region(grid, sample.ct, 2 * max(sample.ct.GetSpacing()))
    cut = [
        slice(max(want.start, edge.start), min(want.stop, edge.stop))
        for want, edge in zip(box.array_slices(), near, strict=True)
    ]
    if any(edge.stop <= edge.start for edge in cut):
        return np.full(grid.GetSize()[::-1], outside, np.float32)
    own = tuple(slice(c.start - n.start, c.stop - n.start) for c, n in zip(cut, near, strict=True))
    piece = sitk.GetImageFromArray(values[own].astype(np.float32))
    piece.SetOrigin(sample.ct.TransformIndexToPhysicalPoint([edge.start for edge in cut[::-1]]))
    piece.SetSpacing(sample.ct.GetSpacing())
    piece.SetDirection(sample.ct.GetDirection())
    found: FloatArray = sitk.GetArrayFromImage(resample_to(piece, grid, outside))
    return found


def region_of(near: ArrayBox, sample: NetworkInput, ct: sitk.Image, margin_mm: float) -> Box:
    """The box of the scanner's grid that a box of the network's grid covers, with a margin."""
    return grid_region(crop_grid(sample.ct, box_of(near)), ct, margin_mm)


def grid_region(grid: sitk.Image, volume: sitk.Image, margin_mm: float) -> Box:
    """The box of a volume that a grid covers, with a margin."""
    return widened(_box_under(grid, volume), volume, margin_mm)


def box_of(near: ArrayBox) -> Box:
    """Slices of an array (z, y, x) as a box of its volume."""
    z, y, x = near
    return Box((x.start, y.start, z.start), (x.stop - x.start, y.stop - y.start, z.stop - z.start))


def crop_grid(volume: sitk.Image, box: Box) -> sitk.Image:
    """The grid of a box of a volume, without its voxels."""
    grid = sitk.Image(box.size, sitk.sitkUInt8)
    grid.SetOrigin(volume.TransformIndexToPhysicalPoint(box.start))
    grid.SetSpacing(volume.GetSpacing())
    grid.SetDirection(volume.GetDirection())
    return grid


def _box_under(grid: sitk.Image, volume: sitk.Image) -> Box:
    """The voxels of a volume whose centres lie between the outer edges of a grid; at least one each way."""
    low = grid.TransformContinuousIndexToPhysicalPoint([-0.5] * 3)
    high = grid.TransformContinuousIndexToPhysicalPoint([n - 0.5 for n in grid.GetSize()])
    ends = np.array([volume.TransformPhysicalPointToContinuousIndex(point) for point in (low, high)])
    last = np.array(volume.GetSize()) - 1
    first = np.clip(np.ceil(ends.min(axis=0) - 1e-3), 0, last).astype(int)
    stop = np.clip(np.floor(ends.max(axis=0) + 1e-3), first, last).astype(int) + 1
    x, y, z = (int(n) for n in first)
    width, height, depth = (int(n) for n in stop - first)
    return Box((x, y, z), (width, height, depth))


def _slabs(region: Box) -> list[Box]:
    x, y, z = region.start
    width, height, depth = region.size
    step = max(1, SLAB_VOXELS // (width * height))
    return [
        Box((x, y, z + first), (width, height, min(step, depth - first))) for first in range(0, depth, step)
    ]
