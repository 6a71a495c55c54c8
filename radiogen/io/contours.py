"""Fill the closed contours of one structure on the slices of a CT, and check that they belong to it.

A structure is a solid made of slabs: each plane of contours stands for the thickness at which planes follow
each other. A voxel belongs to it if its centre lies inside: one rule for RTSTRUCT, SEG and masks, so that the
same outline gives the same voxels in every format. Finer sampling at the border would not be nearer to the
truth.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from radiogen.errors import OutlineError
from radiogen.io.polygons import BoolArray, FilledPolygon, Points, fill_polygon, polygon_area
from radiogen.volume import voxel_ml

EDGE_VOXELS = 1.0  # how far an outline may run over the edge of the image within a slice
FARTHEST_MM = 1e5  # no scanner places anything further away
SAME_PLANE_MM = 0.1  # contours nearer than this were drawn on one plane
MISSING = 1.5  # times the usual distance of planes: a wider gap has lost a plane
THICKEST_MM = 10.0  # planes further apart than CT slices are do not stand for what lies between them
MOST_CUTS = 50_000_000  # of all contours with lines of pixels; one drawn by hand has thousands
MOST_PIXELS = 4_000_000_000  # of all contours' boxes; a body on 500 slices has 130 million
ON_FIRST = -0.499  # a plane half a slice below the first belongs to it
COMPARED_AT_MOST = 100  # contours of a plane that are compared with each other


@dataclass(frozen=True)
class CtReference:
    """What a DICOM outline may name of its CT; empty for a CT that is a volume file.

    Attributes:
        frame_uids: FrameOfReferenceUIDs of the CT.
        slice_positions: Position in LPS millimetres by SOPInstanceUID.
    """

    frame_uids: frozenset[str] = frozenset()
    slice_positions: Mapping[str, tuple[float, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class OutlinePlane:
    """A plane of an outline: a point of it in LPS millimetres, and the slices it names as its own."""

    point_mm: Points
    slice_uids: tuple[str, ...]


def indices_of(points_mm: Points, ct: sitk.Image) -> Points:
    """Return continuous voxel indices (x, y, z) of points in LPS millimetres, both of shape (n, 3)."""
    direction = np.array(ct.GetDirection()).reshape(3, 3)
    # ITK transforms one point a call, and an RTSTRUCT may have a hundred thousand.
    steps = np.linalg.solve(direction, (points_mm - np.array(ct.GetOrigin())).T).T
    return np.asarray(steps / np.array(ct.GetSpacing()))


def check_numbers(points_mm: Points, source: Path) -> None:
    """Refuse coordinates that are no place in a scanner: not finite, or 100 m away.

    Raises:
        OutlineError: There is one.
    """
    if not np.all(np.abs(points_mm) <= FARTHEST_MM):  # NaN fails too
        raise OutlineError(source, "has coordinates that are no millimetres of a scanner", "export it anew")


def check_inside(index: Points, ct: sitk.Image, source: Path) -> None:
    """Refuse points that lie off a CT.

    Args:
        index: Continuous voxel indices (x, y, z), shape (n, 3).
        ct: The grid.
        source: The file, for messages.

    Raises:
        OutlineError: A point lies more than a voxel off the edge within a slice, or beyond the last slice.
    """
    # Polygons may follow the border of the image; between slices half a slice is a slice's own thickness.
    allowed = np.array([EDGE_VOXELS, EDGE_VOXELS, 1e-3])
    over = np.maximum(-0.5 - index, index - (np.array(ct.GetSize()) - 0.5))
    if np.any(over > allowed):
        distance = float((np.maximum(over, 0) * np.array(ct.GetSpacing())).max())
        wrong = f"lies outside the CT by {distance:.1f} mm"
        raise OutlineError(source, wrong, "give the outline of this CT, or the whole CT")


def check_frame(
    frame_uid: str, planes: Sequence[OutlinePlane], ct: sitk.Image, reference: CtReference, source: Path
) -> list[str]:
    """Check that the millimetres of a DICOM outline are those of the CT.

    Millimetres of two frames of reference have nothing to do with each other. An outline of another frame is
    taken only if every plane of it names a slice of this CT and lies on that slice.

    Args:
        frame_uid: Frame of reference of the outline, empty if it names none.
        planes: Planes of the outline that are not empty.
        ct: The grid.
        reference: The CT's frames of reference and slices.
        source: The file, for messages.

    Returns:
        What was decided.

    Raises:
        OutlineError: It belongs to another frame of reference, and nothing proves the same place.
    """
    if not reference.slice_positions:
        return ["the CT does not say its frame of reference: the outline is placed by its millimetres"]
    distances = [_off_named_slice(plane, ct, reference) for plane in planes]
    known = [mm for mm in distances if mm is not None]
    away = max(known, default=0.0)
    is_on = away <= 0.5 * ct.GetSpacing()[2] + 1e-3  # half a slice: the plane still means that slice
    if not frame_uid or not reference.frame_uids or frame_uid in reference.frame_uids:
        wrong = f"planes of the outline lie up to {away:.1f} mm off the slices they name"
        return [] if is_on else [f"{wrong}: their millimetres count"]
    if known and len(known) == len(distances) and is_on:
        return ["the outline has another frame of reference, but each plane lies on the CT slice it names"]
    problem = "does not name the CT's slices" if is_on else f"lies {away:.1f} mm off the slices it names"
    wrong = f"has another frame of reference than the CT and {problem}"
    raise OutlineError(source, wrong, "give the outline of this CT")


def _off_named_slice(plane: OutlinePlane, ct: sitk.Image, reference: CtReference) -> float | None:
    """Return the distance in mm along the normal from the nearest slice it names; None if it names none."""
    normal = np.array(ct.GetDirection()).reshape(3, 3)[:, 2]
    named = [reference.slice_positions[uid] for uid in plane.slice_uids if uid in reference.slice_positions]
    return min((abs(float((plane.point_mm - np.array(at)) @ normal)) for at in named), default=None)


@dataclass(frozen=True)
class FilledContours:
    """A structure on the grid of a CT.

    Attributes:
        inside: Shape (z, y, x).
        polygon_ml: Volume of the polygons on the slices they fill, to compare with that of the voxels.
        decisions: What was decided, in sentences.
    """

    inside: BoolArray
    polygon_ml: float
    decisions: tuple[str, ...]


@dataclass(frozen=True)
class _Plane:
    height: float  # in slices
    contours: tuple[Points, ...]  # (column, row) in pixels


@dataclass
class _ContourCounts:
    smaller: int = 0  # contours that enclose no voxel centre
    doubled: int = 0
    crossing: int = 0


def fill_contours(contours: Sequence[Points], ct: sitk.Image, source: Path) -> FilledContours:
    """Fill the contours of one structure.

    Planes of contours need not lie on slices: between two planes each slice takes the nearer one, at the ends
    a plane reaches half of their usual distance. Where planes are missing the slices stay empty, and their
    places are reported. No shape is interpolated. Contours of one plane are combined by exclusive or, so that
    one within another is a hole; equal contours count once, since an exclusive or would erase them.

    Args:
        contours: Corners in LPS millimetres, shape (n, 3) each, finite.
        ct: The grid.
        source: The file, for messages.

    Raises:
        OutlineError: A contour leaves the CT (with the distance) or is not parallel to its slices.
    """
    planes = _planes(contours, ct, source)
    columns, rows, slices = ct.GetSize()
    inside = np.zeros((slices, rows, columns), dtype=bool)
    counts = _ContourCounts()
    decisions = []
    # A slice reaches half its thickness below its centre; what lies there still belongs to it.
    heights = np.maximum([plane.height for plane in planes], ON_FIRST)
    slice_mm = ct.GetSpacing()[2]
    step = _usual_step(heights, slice_mm)
    filled = _nearest_planes(heights, step, slices)
    square_pixels = 0.0
    for i, where in filled.items():
        inside[where], area = _fill(planes[i], (columns, rows), counts)
        square_pixels += area * len(where)
    if step != 1.0:
        decisions.append(
            f"contours every {step * slice_mm:.2f} mm on slices every {slice_mm:.2f} mm: "
            "each slice takes the nearest plane"
        )
    decisions += _gaps(heights, step, inside, ct)
    off_mm = float(np.abs(heights - np.rint(heights)).max()) * slice_mm
    if step == 1.0 and off_mm > SAME_PLANE_MM:
        decisions.append(
            f"contours lie up to {off_mm:.2f} mm off the slices: each slice takes the nearest plane"
        )
    decisions += _count_decisions(counts)
    if step >= 1.0 and len(filled) < len(planes):
        left_out = len(planes) - len(filled)
        decisions.append(f"{left_out} planes of contours left out: their slice has a nearer one")
    return FilledContours(inside, square_pixels * voxel_ml(ct), tuple(decisions))


def _planes(contours: Sequence[Points], ct: sitk.Image, source: Path) -> list[_Plane]:
    """Sort contours into planes by height, all at once: an RTSTRUCT may hold ten thousand."""
    index = indices_of(np.concatenate(contours), ct)
    check_inside(index, ct, source)
    starts = np.cumsum([0, *map(len, contours)])[:-1]
    low, high = np.minimum.reduceat(index, starts), np.maximum.reduceat(index, starts)
    # More than half a slice of height within one contour: it does not mean one slice.
    if (high - low)[:, 2].max() > 0.5:
        raise OutlineError(
            source, "has contours that are not parallel to the CT's slices", "draw on the slices"
        )
    # A damaged coordinate can span the whole image: the work is estimated before any contour is filled.
    boxes = np.prod(high[:, :2] - low[:, :2] + 1, axis=1).sum()
    if np.abs(np.diff(index[:, 1])).sum() > MOST_CUTS or boxes > MOST_PIXELS:
        raise OutlineError(source, "has contours longer than anybody draws", "draw it anew")
    heights = np.add.reduceat(index[:, 2], starts) / [len(one) for one in contours]
    corners = np.split(index[:, :2], starts[1:])
    planes: list[tuple[float, list[Points]]] = []
    for i in np.argsort(heights, kind="stable"):
        if planes and heights[i] - planes[-1][0] <= SAME_PLANE_MM / ct.GetSpacing()[2]:
            planes[-1][1].append(corners[i])
        else:
            planes.append((float(heights[i]), [corners[i]]))
    return [_Plane(height, tuple(drawn)) for height, drawn in planes]


def _usual_step(heights: Points, slice_mm: float) -> float:
    """Return the distance at which planes of contours follow each other, in slices; 1 where none is usual."""
    # To a tenth of a millimetre, so that rounded positions count as one distance.
    gaps = np.round(np.diff(heights) * slice_mm, 1)
    if len(gaps) < 2:
        return 1.0
    # The commonest gap; it must occur twice, or two planes alone would set the thickness.
    values, counts = np.unique(gaps, return_counts=True)
    usual, count = float(values[np.argmax(counts)]), int(counts.max())
    if count < 2 or usual > THICKEST_MM or abs(usual - slice_mm) <= SAME_PLANE_MM:
        return 1.0
    return float(np.diff(heights)[gaps == usual].mean())


def _nearest_planes(heights: Points, step: float, slices: int) -> dict[int, list[int]]:
    """Return the slices that each plane fills, by its number: the nearest ones, of two the lower."""
    filled: dict[int, list[int]] = defaultdict(list)
    runs = np.split(np.arange(len(heights)), np.flatnonzero(np.diff(heights) > MISSING * step) + 1)
    for run in runs:
        low, high = heights[run[0]] - step / 2, heights[run[-1]] + step / 2
        # Rounded, so that a height of half a slice does not depend on the last bit.
        first, behind = (int(np.ceil(round(float(height), 3))) for height in (low, high))
        for k in range(max(first, 0), min(behind, slices)):
            distance = np.round(np.abs(heights[run] - k), 3)
            filled[int(run[np.argmin(distance)])].append(k)
    return filled


def _gaps(heights: Points, step: float, inside: BoolArray, ct: sitk.Image) -> list[str]:
    """Return what lies empty between planes that are further apart than usual."""
    empty = []
    for a, b in pairwise(heights):
        if b - a > MISSING * step:
            between = range(max(int(np.floor(a)) + 1, 0), min(int(np.ceil(b)), len(inside)))
            empty += [k for k in between if not inside[k].any()]
    if not empty:
        return []
    places = [f"{ct.TransformIndexToPhysicalPoint((0, 0, k))[2]:.1f}" for k in empty[:8]]
    more = ", ..." if len(empty) > 8 else ""
    return [
        f"{len(empty)} slices between the contours have none and stay empty (z {', '.join(places)}{more} mm)"
    ]


def _fill(plane: _Plane, size: tuple[int, int], counts: _ContourCounts) -> tuple[BoolArray, float]:
    """Return one plane of contours by exclusive or: pixels, and the area of the polygons in square pixels."""
    inside = np.zeros(size[::-1], dtype=bool)
    # Equal to a micrometre of a pixel: the same contour written twice.
    contours = {np.round(corners, 3).tobytes(): corners for corners in plane.contours}
    counts.doubled += len(plane.contours) - len(contours)
    kept: list[tuple[FilledPolygon, float]] = []
    for corners in contours.values():
        filled, area = fill_polygon(corners, size), polygon_area(corners)
        counts.smaller += not filled.inside.any()
        # 1 % of area: the same outline exported twice with other rounding or another first corner.
        if any(_is_same(filled, other) and abs(area - b) <= 0.01 * b for other, b in kept):
            counts.doubled += 1
            continue
        under = filled.cut_from(inside)
        under ^= filled.inside
        if len(contours) <= COMPARED_AT_MOST:
            kept.append((filled, area))
    # Comparing grows with the square of the contours; the area is then that of the pixels.
    if len(contours) > COMPARED_AT_MOST:
        return inside, float(inside.sum())
    return inside, _area(kept, counts)


def _area(polygons: Sequence[tuple[FilledPolygon, float]], counts: _ContourCounts) -> float:
    """Return the area between polygons of one plane: one in another is a hole, one in a hole an island."""
    total = 0.0
    for polygon, area in polygons:
        pixels = int(polygon.inside.sum())
        around = 0  # larger polygons that hold this one
        for other, other_area in polygons:
            if other is polygon or other_area < area:
                continue
            shared = _shared(polygon, other)
            around += 0 < shared == pixels
            counts.crossing += 0 < shared < pixels
        # The even-odd rule, as for the pixels: an odd number of polygons around this one makes it a hole.
        total += area if around % 2 == 0 else -area
    return total


def _is_same(a: FilledPolygon, b: FilledPolygon) -> bool:
    return a.start == b.start and bool(a.inside.any()) and np.array_equal(a.inside, b.inside)


def _shared(a: FilledPolygon, b: FilledPolygon) -> int:
    """Return how many pixels lie in both."""
    ends = [(p.start[0] + p.inside.shape[1], p.start[1] + p.inside.shape[0]) for p in (a, b)]
    left, top = (max(p, q) for p, q in zip(a.start, b.start, strict=True))
    right, bottom = (min(p, q) for p, q in zip(*ends, strict=True))
    if right <= left or bottom <= top:
        return 0
    one, other = (
        p.inside[top - p.start[1] : bottom - p.start[1], left - p.start[0] : right - p.start[0]]
        for p in (a, b)
    )
    return int((one & other).sum())


def _count_decisions(counts: _ContourCounts) -> list[str]:
    decisions = []
    if counts.smaller:
        decisions.append(f"{counts.smaller} contours are too small to enclose the centre of a voxel")
    if counts.doubled:
        decisions.append(f"{counts.doubled} contours are there twice and count once")
    if counts.crossing:
        decisions.append(
            f"{counts.crossing} contours cross another of their plane: what lies in both counts as outside"
        )
    return decisions
