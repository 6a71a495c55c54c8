"""Volumes: SimpleITK images that keep their place in space through every crop and resample."""

import ctypes
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from radiogen.errors import VolumeError

FloatArray = npt.NDArray[np.float32]
AIR_HU = -1000.0


@dataclass(frozen=True)
class Box:
    """A box in voxels of one volume, in the volume's order (x, y, z)."""

    start: tuple[int, int, int]
    size: tuple[int, int, int]

    @property
    def end(self) -> tuple[int, int, int]:
        """The first voxel behind the box on each axis."""
        x, y, z = (start + size for start, size in zip(self.start, self.size, strict=True))
        return x, y, z

    def array_slices(self) -> tuple[slice, slice, slice]:
        """The box as slices of an array in the order (z, y, x)."""
        x, y, z = (slice(start, end) for start, end in zip(self.start, self.end, strict=True))
        return z, y, x


def array_of(volume: sitk.Image) -> npt.NDArray[Any]:
    """Return a copy of the voxels as an array of shape (z, y, x)."""
    return np.asarray(sitk.GetArrayFromImage(volume))


def pixels_sha256(volume: sitk.Image) -> str:
    """Return the SHA-256 of size and voxels as int16: the same for one scan under two names or places."""
    values = np.ascontiguousarray(sitk.GetArrayViewFromImage(volume), dtype="<i2")
    return hashlib.sha256(f"{values.shape}".encode() + values.tobytes()).hexdigest()


def writable_volume(size: Sequence[int], pixel_id: int) -> tuple[sitk.Image, npt.NDArray[Any]]:
    """Return a volume of zeros, and its own voxels as an array of shape (z, y, x) that can be written to.

    Avoids the copy that `sitk.GetImageFromArray` makes. The array is valid while the volume lives.
    """
    volume = sitk.Image([int(n) for n in size], pixel_id)
    view = sitk.GetArrayViewFromImage(volume)
    memory = (ctypes.c_byte * view.nbytes).from_address(view.ctypes.data)
    return volume, np.frombuffer(memory, view.dtype).reshape(view.shape)


def volume_like(array: npt.NDArray[Any], grid: sitk.Image) -> sitk.Image:
    """Return an array of shape (z, y, x) as a volume on the grid of another of the same size.

    Raises:
        VolumeError: The shapes differ.
    """
    if array.shape != grid.GetSize()[::-1]:
        raise VolumeError(
            "array", f"has shape {array.shape}, the grid {grid.GetSize()[::-1]}", "give arrays as (z, y, x)"
        )
    volume = sitk.GetImageFromArray(array)
    volume.CopyInformation(grid)
    return volume


def same_grid(a: sitk.Image, b: sitk.Image, tolerance_mm: float = 1e-2) -> bool:
    """Return whether two volumes have the same voxels in space: all eight corners agree to `tolerance_mm`."""
    return bool(a.GetSize() == b.GetSize() and np.abs(corners_mm(a) - corners_mm(b)).max() <= tolerance_mm)


def corners_mm(volume: sitk.Image) -> npt.NDArray[np.float64]:
    """Return the centres of the eight corner voxels, shape (8, 3), LPS millimetres."""
    x, y, z = (size - 1 for size in volume.GetSize())
    return np.array(
        [volume.TransformIndexToPhysicalPoint((i, j, k)) for k in (0, z) for j in (0, y) for i in (0, x)]
    )


def voxel_ml(volume: sitk.Image) -> float:
    """Return the volume of one voxel in millilitres."""
    return float(np.prod(volume.GetSpacing())) / 1000.0


def crop(volume: sitk.Image, box: Box) -> sitk.Image:
    """Cut a box out of a volume; what stays, stays at the same millimetre."""
    return sitk.RegionOfInterest(volume, size=box.size, index=box.start)


def resample_to(volume: sitk.Image, grid: sitk.Image, outside: float, nearest: bool = False) -> sitk.Image:
    """Resample a volume onto the grid of another: linear, or nearest neighbour for masks.

    Args:
        volume: What is read.
        grid: Where the voxels of the result lie.
        outside: Value of voxels that lie outside `volume` (-1000 for HU, 0 for masks).
        nearest: Take the nearest voxel.
    """
    interpolator = sitk.sitkNearestNeighbor if nearest else sitk.sitkLinear
    return sitk.Resample(volume, grid, sitk.Transform(), interpolator, outside, volume.GetPixelID())


def grid_with_spacing(volume: sitk.Image, spacing_mm: Sequence[float]) -> sitk.Image:
    """Return an empty volume over the same extent with other voxels; its outer edge agrees to one voxel."""
    old_spacing, old_size = np.array(volume.GetSpacing()), np.array(volume.GetSize())
    spacing = np.array(spacing_mm, dtype=float)
    # 1e-6 voxels: 3 slices of 2 mm are 2 of 3 mm, not 3, whatever the last digit of the division.
    size = np.maximum(1, np.ceil(old_size * old_spacing / spacing - 1e-6)).astype(int)
    return grid_over(volume, size.tolist(), spacing.tolist())


def grid_over(volume: sitk.Image, size: Sequence[int], spacing_mm: Sequence[float]) -> sitk.Image:
    """Return an empty volume of a size and spacing whose outer corner lies on that of `volume`."""
    old_spacing, spacing = np.array(volume.GetSpacing()), np.array(spacing_mm, dtype=float)
    direction = np.array(volume.GetDirection()).reshape(3, 3)
    origin = np.array(volume.GetOrigin()) + direction @ ((spacing - old_spacing) / 2)
    grid = sitk.Image([int(n) for n in size], sitk.sitkUInt8)
    grid.SetOrigin(origin.tolist())
    grid.SetSpacing(spacing.tolist())
    grid.SetDirection(volume.GetDirection())
    return grid


def bounding_box(mask: sitk.Image, margin_mm: float = 0.0) -> Box | None:
    """Return the box round all voxels that are not 0, widened by a margin, cut at the edge; None if empty."""
    array = sitk.GetArrayViewFromImage(mask)
    slices = np.array([bool(plane.any()) for plane in array])  # slice by slice: no copy of the whole
    if not slices.any():
        return None
    projection = np.zeros(array.shape[1:], dtype=bool)
    for z in np.flatnonzero(slices):
        projection |= array[z] != 0
    hits = [np.flatnonzero(found) for found in (projection.any(axis=0), projection.any(axis=1), slices)]
    first_x, first_y, first_z = (int(hit[0]) for hit in hits)
    width, height, depth = (int(hit[-1] - hit[0] + 1) for hit in hits)
    return widened(Box((first_x, first_y, first_z), (width, height, depth)), mask, margin_mm)


def widened(box: Box, volume: sitk.Image, margin_mm: float) -> Box:
    """Return a box with a margin on all sides, cut at the edge of its volume."""
    margins = [int(np.ceil(margin_mm / spacing)) for spacing in volume.GetSpacing()]
    start = [max(0, first - margin) for first, margin in zip(box.start, margins, strict=True)]
    ends = zip(box.end, margins, volume.GetSize(), strict=True)
    size = [
        min(length, end + margin) - first for (end, margin, length), first in zip(ends, start, strict=True)
    ]
    return Box((start[0], start[1], start[2]), (size[0], size[1], size[2]))


def union(boxes: Sequence[Box]) -> Box:
    """Return the smallest box that holds all of these; there is at least one."""
    start = np.min([box.start for box in boxes], axis=0)
    size = np.max([box.end for box in boxes], axis=0) - start
    return Box((int(start[0]), int(start[1]), int(start[2])), (int(size[0]), int(size[1]), int(size[2])))
