"""Fill closed contours: a voxel belongs to an outline if its centre lies inside."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from radiogen.errors import OutlineError

Points = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
EDGE_VOXELS = 1.0  # how far a contour may run over the edge of the image within a slice
SAME_PLANE = 0.2  # of the slice spacing: contours nearer than this were drawn on one plane


def fill_polygons(polygons: Sequence[Points], size: tuple[int, int]) -> BoolArray:
    """Pixels whose centre lies in an odd number of polygons, so that a hole is a polygon in another.

    Args:
        polygons: Corners as (column, row) in pixels, shape (n, 2); pixel centres are whole numbers.
        size: Columns and rows of the image.

    Returns:
        Shape (rows, columns).

    >>> fill_polygons([np.array([[0.5, 0.5], [2.5, 0.5], [2.5, 1.5], [0.5, 1.5]])], (4, 3)).astype(int)
    array([[0, 0, 0, 0],
           [0, 1, 1, 0],
           [0, 0, 0, 0]])
    """
    columns, rows = size
    crossings = np.zeros((rows, columns + 1), dtype=np.int32)
    for corners in polygons:
        # Half-open edges: a row through a corner meets one of its two edges, so neighbours share no pixel.
        x, y = np.round(corners, 6).T
        x_next, y_next = np.roll(x, -1), np.roll(y, -1)
        first = np.clip(np.ceil(np.minimum(y, y_next)), 0, rows).astype(int)
        last = np.clip(np.ceil(np.maximum(y, y_next)), 0, rows).astype(int)
        edge = np.repeat(np.arange(len(x)), last - first)
        row = np.concatenate([np.arange(a, b) for a, b in zip(first, last, strict=True)])
        share = (row - y[edge]) / (y_next - y)[edge]
        cut = np.round(x[edge] + share * (x_next - x)[edge], 6)
        np.add.at(crossings, (row, np.clip(np.ceil(cut), 0, columns).astype(int)), 1)
    inside: BoolArray = np.cumsum(crossings, axis=1)[:, :columns] % 2 == 1
    return inside


def lay_contours(contours: Sequence[Points], ct: sitk.Image, source: Path) -> BoolArray:
    """Fill contours that lie in the slices of a CT.

    Each contour goes to the nearest slice, at most half a slice away. Where several planes of contours
    fall on one slice the nearest counts; contours of one plane are combined by exclusive or.

    Args:
        contours: Corners in LPS millimetres, shape (n, 3) each.
        ct: The grid.
        source: The file, for messages.

    Returns:
        Shape (z, y, x).

    Raises:
        OutlineError: A contour leaves the CT (with the distance) or is not parallel to its slices.
    """
    planes: dict[int, list[tuple[float, Points]]] = defaultdict(list)
    for points in contours:
        index = indices_of(points, ct)
        check_inside(index, ct, source)
        height = float(index[:, 2].mean())
        if np.ptp(index[:, 2]) > 0.5:
            raise OutlineError(
                source, "has contours that are not parallel to the CT's slices", "draw on the slices"
            )
        planes[round(height)].append((height, index[:, :2]))
    columns, rows, slices = ct.GetSize()
    inside = np.zeros((slices, rows, columns), dtype=bool)
    for k, drawn in planes.items():
        nearest = min((height for height, _ in drawn), key=lambda height: abs(height - k))
        plane = [corners for height, corners in drawn if abs(height - nearest) < SAME_PLANE]
        inside[min(max(k, 0), slices - 1)] |= fill_polygons(plane, (columns, rows))
    return inside


def indices_of(points_mm: Points, ct: sitk.Image) -> Points:
    """Continuous voxel indices (x, y, z) of points in LPS millimetres, both of shape (n, 3)."""
    direction = np.array(ct.GetDirection()).reshape(3, 3)
    steps = np.linalg.solve(direction, (points_mm - np.array(ct.GetOrigin())).T).T
    return np.asarray(steps / np.array(ct.GetSpacing()))


def check_inside(index: Points, ct: sitk.Image, source: Path) -> None:
    """Refuse points that lie off a CT.

    Args:
        index: Continuous voxel indices (x, y, z), shape (n, 3).
        ct: The grid.
        source: The file, for messages.

    Raises:
        OutlineError: A point lies more than a voxel off the edge within a slice, or beyond the last slice.
    """
    allowed = np.array([EDGE_VOXELS, EDGE_VOXELS, 1e-3])
    over = np.maximum(-0.5 - index, index - (np.array(ct.GetSize()) - 0.5))
    if not np.all(np.isfinite(index)) or np.any(over > allowed):
        distance = float(np.nanmax(np.maximum(over, 0) * np.array(ct.GetSpacing())))
        raise OutlineError(
            source,
            f"lies outside the CT by {distance:.1f} mm",
            "give the outline of this CT, or the whole CT",
        )
