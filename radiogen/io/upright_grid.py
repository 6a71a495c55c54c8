"""A grid with perpendicular axes from any affine, or why there is none: a volume cannot carry a shear."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from radiogen.errors import VolumeError

FloatArray = npt.NDArray[np.float64]

MOST_MOVED = 0.1  # of the smallest spacing: how far a corner may move when axes are made perpendicular
SAID_ABOVE_MM = 0.01
NEAREST_MM, FARTHEST_MM = 1e-6, 1e6  # a spacing or an origin beyond these is a damaged header
FLAT = 1e-3  # volume that three axes of length 1 enclose; a shear of a real scanner leaves 0.8 or more
NOISE = 1e-7  # of a direction cosine stored with single precision


@dataclass(frozen=True)
class UprightGrid:
    """Size and place of a volume in LPS millimetres, and what was decided about it."""

    size: tuple[int, int, int]
    origin: tuple[float, ...]
    spacing: tuple[float, ...]
    direction: tuple[float, ...]
    said: tuple[str, ...] = ()

    def place(self, volume: sitk.Image) -> sitk.Image:
        """The volume itself, laid here."""
        volume.SetOrigin(self.origin)
        volume.SetSpacing(self.spacing)
        volume.SetDirection(self.direction)
        return volume


def upright_grid(path: Path, size: Sequence[int], axes_mm: FloatArray, origin_mm: FloatArray) -> UprightGrid:
    """Lay voxels on perpendicular axes, the nearest to the given ones.

    Args:
        path: Named in errors.
        size: Voxels along each axis.
        axes_mm: Step from voxel to voxel in LPS millimetres, one axis a column, shape (3, 3).
        origin_mm: Centre of the first voxel.

    Raises:
        VolumeError: A number is not finite, a spacing is 0, the axes lie in a plane, or they are sheared
            so much that a corner would move by more than a tenth of the smallest spacing.
    """
    if not (np.isfinite(axes_mm).all() and np.isfinite(origin_mm).all()):
        raise VolumeError(path, "has a header with values that are not finite", "export it again")
    spacing = np.linalg.norm(axes_mm, axis=0)
    farthest = max(spacing.max(), np.abs(origin_mm).max())
    if spacing.min() < NEAREST_MM or farthest > FARTHEST_MM:
        numbers = " x ".join(f"{value:g}" for value in spacing)
        wrong = f"has a damaged place, with a spacing of {numbers} mm"
        raise VolumeError(path, wrong, "correct its header or export it again")
    cosines = axes_mm / spacing
    if abs(np.linalg.det(cosines)) < FLAT:
        raise VolumeError(path, "has axes that lie in one plane (a singular affine)", "export it again")
    left, _, right = np.linalg.svd(cosines)
    direction = left @ right  # the nearest rotation, with the handedness of the axes
    whole = np.round(direction)
    direction = np.where(np.abs(direction - whole) < NOISE, whole + 0.0, direction)
    moved = np.abs((direction - cosines) * spacing * (np.array(size) - 1)).sum(axis=1)
    moved_mm = float(np.linalg.norm(moved))
    if moved_mm > MOST_MOVED * spacing.min():
        raise VolumeError(
            path,
            f"has sheared axes: made perpendicular, its corners would move by {moved_mm:.1f} mm",
            "resample it to upright axes, for example with nibabel.processing.resample_to_output",
        )
    said = (f"axes made perpendicular, corners moved by at most {moved_mm:.2f} mm",)
    return UprightGrid(
        size=(int(size[0]), int(size[1]), int(size[2])),
        origin=tuple(float(value) for value in origin_mm),
        spacing=tuple(spacing.tolist()),
        direction=tuple(direction.ravel().tolist()),
        said=said if moved_mm > SAID_ABOVE_MM else (),
    )
