"""Cut a volume along the patient's three planes without moving its voxels."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
from scipy import ndimage

from radiogen.errors import VolumeError

AnyArray = npt.NDArray[Any]
Point = tuple[float, float, float]
Index = tuple[int, int, int]

BODY_HU = -400.0  # between lung and fat
BODY_MARGIN_MM = 12.0
PATIENT_AXES = ("LR", "PA", "SI")  # the letters along x, y, z of LPS: towards, and from


@dataclass(frozen=True)
class PatientAxes:
    """Which axis of a volume runs along x, y and z of the patient, and which of them run backwards."""

    axes: tuple[int, int, int]
    flipped: tuple[bool, bool, bool]
    spacing_mm: Point  # along x, y, z of the patient
    tilt_degrees: float  # the largest angle between an axis of the volume and the patient's

    def oriented(self, volume: sitk.Image) -> AnyArray:
        """Return a view of the voxels, index order (z, y, x) growing to the head, the back and the left.

        The view shares the memory of `volume`, which has to live as long. Nothing is resampled: what is drawn
        are the voxels of the file.
        """
        view = np.asarray(sitk.GetArrayViewFromImage(volume))
        x, y, z = self.axes
        # Arrays are (z, y, x): axis a of the volume is axis 2 - a of the array.
        view = view.transpose(2 - z, 2 - y, 2 - x)
        x_step, y_step, z_step = (-1 if flip else 1 for flip in self.flipped)
        return view[::z_step, ::y_step, ::x_step]

    def index_at(self, volume: sitk.Image, point_mm: Point) -> Index:
        """Return the voxel (x, y, z of the patient) at an LPS point.

        Raises:
            VolumeError: The point lies outside.
        """
        if not np.isfinite(point_mm).all():
            raise VolumeError(f"point {point_mm}", "is not three numbers", "give x, y, z in mm LPS")
        inside = volume.TransformPhysicalPointToIndex([float(value) for value in point_mm])
        size = volume.GetSize()
        if any(not 0 <= i < n for i, n in zip(inside, size, strict=True)):
            raise VolumeError(f"point {point_mm}", "lies outside the CT", "give x, y, z in mm LPS inside it")
        turned = [inside[axis] for axis in self.axes]
        x, y, z = (
            size[axis] - 1 - i if flip else i
            for i, axis, flip in zip(turned, self.axes, self.flipped, strict=True)
        )
        return x, y, z

    def point_at(self, volume: sitk.Image, index: Index) -> Point:
        """Return the LPS point of a voxel (x, y, z of the patient)."""
        inside = [0, 0, 0]
        for i, axis, flip in zip(index, self.axes, self.flipped, strict=True):
            inside[axis] = volume.GetSize()[axis] - 1 - i if flip else i
        x, y, z = volume.TransformIndexToPhysicalPoint(inside)
        return x, y, z


def patient_axes(volume: sitk.Image) -> PatientAxes:
    """Find the patient's axes among those of a volume, whatever its direction matrix."""
    code = sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(volume.GetDirection())
    axes = [next(a for a, letter in enumerate(code) if letter in pair) for pair in PATIENT_AXES]
    flipped = [code[axis] == pair[1] for axis, pair in zip(axes, PATIENT_AXES, strict=True)]
    # 1 where an axis of the volume is the patient's; a tilted gantry or an oblique scan lies below.
    cosines = np.abs(np.array(volume.GetDirection()).reshape(3, 3))[[0, 1, 2], axes]
    spacing = volume.GetSpacing()
    return PatientAxes(
        (axes[0], axes[1], axes[2]),
        (flipped[0], flipped[1], flipped[2]),
        (spacing[axes[0]], spacing[axes[1]], spacing[axes[2]]),
        float(np.degrees(np.arccos(np.clip(cosines, 0, 1))).max()),
    )


@dataclass(frozen=True)
class Plane:
    """One slice as a radiologist views it: rows downwards, columns to the right, with the masks on it."""

    name: str
    hu: AnyArray  # (rows, columns)
    masks: Mapping[str, AnyArray]  # labels, same shape
    row_mm: float
    column_mm: float
    position: str  # "z -949.0 mm"
    letters: tuple[str, str, str, str]  # what lies left, right, up, down
    at_mm: tuple[float, float]  # the common point, from the upper left corner: along columns, along rows

    @property
    def size_mm(self) -> tuple[float, float]:
        """Width and height."""
        rows, columns = self.hu.shape
        return columns * self.column_mm, rows * self.row_mm


def cut_planes(
    ct: sitk.Image, masks: Mapping[str, sitk.Image], index: Index, axes: PatientAxes
) -> dict[str, Plane]:
    """Cut the axial, coronal and sagittal slice through one voxel.

    Args:
        ct: HU.
        masks: By name, on the grid of `ct`.
        index: Voxel in the order x, y, z of the patient, as `PatientAxes.index_at` gives it.
        axes: Of `ct`.
    """
    i, j, k = index
    size = [ct.GetSize()[axis] for axis in axes.axes]
    point = axes.point_at(ct, index)
    x_mm, y_mm, z_mm = axes.spacing_mm
    across = ((i + 0.5) * x_mm, (j + 0.5) * y_mm, (size[2] - k - 0.5) * z_mm)

    def plane(
        name: str, cut: Any, row_mm: float, column_mm: float, letters: str, at: tuple[float, float]
    ) -> Plane:
        axis = {"axial": 2, "coronal": 1, "sagittal": 0}[name]
        return Plane(
            name,
            axes.oriented(ct)[cut],
            {key: axes.oriented(mask)[cut] for key, mask in masks.items()},
            row_mm,
            column_mm,
            # `+ 0.0` turns -0.0 into 0.0.
            f"{'xyz'[axis]} {round(point[axis], 1) + 0.0:.1f} mm",
            (letters[0], letters[1], letters[2], letters[3]),
            at,
        )

    # The head lies up, and rows are drawn downwards.
    every, upwards = slice(None), slice(None, None, -1)
    return {
        "axial": plane("axial", (k, every, every), y_mm, x_mm, "RLAP", (across[0], across[1])),
        "coronal": plane("coronal", (upwards, j, every), z_mm, x_mm, "RLSI", (across[0], across[2])),
        "sagittal": plane("sagittal", (upwards, every, i), z_mm, y_mm, "APSI", (across[1], across[2])),
    }


@dataclass(frozen=True)
class WidestCut:
    """Where a mask's largest connected part is widest, and how large that part is."""

    index: Index  # x, y, z of the patient
    extent_mm: Point  # edges of its box


def widest_cut(mask: AnyArray, spacing_mm: Point) -> WidestCut | None:
    """Find the slice of each plane on which the largest connected part of a mask covers most.

    Args:
        mask: Labels in the order (z, y, x) of the patient; all that is not 0 counts.
        spacing_mm: Along x, y, z.

    Returns:
        None for an empty mask.
    """
    box = _box(mask)
    if box is None:
        return None
    parts, count = ndimage.label(mask[box] != 0, np.ones((3, 3, 3)))
    largest = parts == 1 + int(np.argmax(np.bincount(parts.ravel(), minlength=count + 1)[1:]))
    index, extent = [], []
    for axis, spacing in zip((2, 1, 0), spacing_mm, strict=True):
        profile = largest.sum(axis=tuple(a for a in (0, 1, 2) if a != axis))
        # Of several slices that are as wide the middle one, where the lesion is whole.
        widest = np.flatnonzero(profile == profile.max())
        index.append(int(box[axis].start + widest[len(widest) // 2]))
        extent.append(float(np.ptp(np.flatnonzero(profile)) + 1) * spacing)
    return WidestCut((index[0], index[1], index[2]), (extent[0], extent[1], extent[2]))


def _box(mask: AnyArray) -> tuple[slice, slice, slice] | None:
    """Return the box round the voxels that are not 0; None where there are none.

    Empty slices are dropped before the other axes are searched, for those go across memory and are slow.
    """
    box: list[slice] = []
    rest = mask
    for axis in range(3):
        others = tuple(a for a in range(3) if a != axis)
        occupied = np.flatnonzero(rest.any(axis=others))
        if len(occupied) == 0:
            return None
        box.append(slice(int(occupied[0]), int(occupied[-1]) + 1))
        rest = rest[(slice(None),) * axis + (box[-1],)]
    return box[0], box[1], box[2]


def body_edges_mm(axial: Plane) -> tuple[tuple[float, float], tuple[float, float]]:
    """Find the body on an axial plane, with a margin, so that air and table take no room in a picture.

    Returns:
        Left and right, front and back edge, mm from the upper left corner. The whole plane where no
        region denser than lung fills a tenth of it, or where the common point lies outside that region.
    """
    width, height = axial.size_mm
    whole_plane = (0.0, width), (0.0, height)
    regions, count = ndimage.label(axial.hu > BODY_HU)
    sizes = np.bincount(regions.ravel(), minlength=count + 1)[1:]
    if count == 0 or sizes.max() < 0.1 * axial.hu.size:
        return whole_plane
    body = regions == 1 + int(np.argmax(sizes))
    edges = []
    for axis, step, at, end in zip(
        (0, 1), (axial.column_mm, axial.row_mm), axial.at_mm, (width, height), strict=True
    ):
        occupied = np.flatnonzero(body.any(axis=axis))
        first = occupied[0] * step - BODY_MARGIN_MM
        last = (occupied[-1] + 1) * step + BODY_MARGIN_MM
        # A point beside the body, such as in an arm or on the table, must not leave the picture.
        if not first <= at <= last:
            return whole_plane
        edges.append((float(max(0.0, first)), float(min(end, last))))
    return edges[0], edges[1]
