"""Order the slices of a CT by where they lie, never by file name, and find the even grid they form.

Only ImagePositionPatient along the normal of ImageOrientationPatient orders slices: instance numbers, file
names and slice locations are often wrong.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from radiogen.errors import SeriesError
from radiogen.io.dicom.pixels import LOWEST_HU, HuArray
from radiogen.io.dicom.slice_header import SliceFile

EVEN = 0.1  # of the slice spacing: how far a slice may lie off its even place
SIDEWAYS = 0.25  # of a pixel: how far a slice may lie beside the line through the others
SAME_PLACE = 0.02  # of the slice spacing: slices nearer than this share one place
TURNED = 1e-3  # difference of direction cosines
SAME_SIZE = 1e-3  # relative difference of pixel spacings
_NO_GAP_MM = 1e-4  # positions nearer than this are equal whatever the spacing: they are written in decimals

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class SliceStack:
    """Slices of one size and orientation in their order; files of one place stand together.

    Attributes:
        places: The slices along the normal, at least one a place.
        axes: Directions of rows, columns and the normal, shape (3, 3), one a line.
        heights_mm: Along the normal, from the first place.
        shifts_mm: Sideways from the first place along rows and columns, shape (n, 2).
        median_spacing_mm: Lower median of the distances of neighbouring places.
    """

    places: tuple[tuple[SliceFile, ...], ...]
    axes: Floats
    heights_mm: Floats
    shifts_mm: Floats
    median_spacing_mm: float

    @property
    def first(self) -> SliceFile:
        return self.places[0][0]

    @property
    def even_mm(self) -> float:
        """The spacing if it were even."""
        return round(float(self.heights_mm[-1]) / max(len(self.places) - 1, 1), 6)

    @property
    def is_even(self) -> bool:
        """Whether every slice lies where even spacing puts it."""
        off = np.abs(self.heights_mm - self.even_mm * np.arange(len(self.places)))
        return bool(off.max() <= EVEN * self.even_mm)

    @property
    def sideways_mm(self) -> float:
        """How far a slice lies beside the first one's normal."""
        return float(np.linalg.norm(self.shifts_mm, axis=1).max())

    @property
    def is_upright(self) -> bool:
        """Whether the slices lie behind each other, not sheared by a tilted gantry."""
        return self.sideways_mm <= SIDEWAYS * min(self.first.pixel_spacing_mm)

    @property
    def is_doubled(self) -> bool:
        return any(len(place) > 1 for place in self.places)


def order_slices(slices: Sequence[SliceFile]) -> SliceStack:
    """Order slices along their normal.

    Args:
        slices: At least one; alike as `check_alike` has it.
    """
    axes = _axes(slices[0])
    positions = np.array([item.position_mm for item in slices])
    heights = positions @ axes[2]
    # Path and frame break ties, so that doubled slices come in the same order in every run.
    order = sorted(range(len(slices)), key=lambda i: (heights[i], slices[i].path, slices[i].frame))
    gaps = np.diff(heights[order])
    usual = _lower_median(gaps[gaps > _NO_GAP_MM])
    places: list[list[int]] = []
    for i in order:
        if places and heights[i] - heights[places[-1][0]] <= max(SAME_PLACE * usual, _NO_GAP_MM):
            places[-1].append(i)
        else:
            places.append([i])
    firsts = [place[0] for place in places]
    steps = positions[firsts] - positions[firsts[0]]
    return SliceStack(
        places=tuple(tuple(slices[i] for i in place) for place in places),
        axes=axes,
        heights_mm=steps @ axes[2],
        shifts_mm=steps @ axes[:2].T,
        median_spacing_mm=_lower_median(np.diff(heights[firsts])),
    )


def _lower_median(gaps: Floats) -> float:
    """Return the lower median, a gap that really occurs, whatever is missing; 0 without gaps."""
    return float(np.sort(gaps)[(len(gaps) - 1) // 2]) if len(gaps) else 0.0


def _axes(item: SliceFile) -> Floats:
    """Return the directions of rows, columns and normal, made perpendicular, one a line."""
    row, column = np.array(item.orientation).reshape(2, 3)
    row = row / np.linalg.norm(row)
    normal = np.cross(row, column)
    normal /= np.linalg.norm(normal)
    return np.stack([row, np.cross(normal, row), normal])


def are_parallel(one: SliceFile, other: SliceFile) -> bool:
    """Return whether two slices have the same directions of rows and columns."""
    return bool(np.allclose(one.orientation, other.orientation, atol=TURNED))


def check_alike(folder: Path, slices: Sequence[SliceFile]) -> None:
    """Refuse slices that cannot lie in one volume.

    Raises:
        SeriesError: Several patients, sizes, pixel spacings or orientations, or skewed axes.
    """
    first = slices[0]
    row, column = np.array(first.orientation).reshape(2, 3)
    # Cosines are written with few digits: 1 % off unit length is rounding, not a skewed scan.
    lengths = np.linalg.norm([row, column], axis=1)
    if abs(float(row @ column)) > TURNED or np.abs(lengths - 1).max() > 1e-2:
        raise SeriesError(
            first.path, "its rows and columns are not at right angles", "export the series again"
        )
    for item in slices:
        if item.patient != first.patient:
            wrong = f"one series holds two patients ({first.name} and {item.name})"
            raise SeriesError(folder, wrong, "separate the patients, one folder each")
        spacing_differs = not np.allclose(item.pixel_spacing_mm, first.pixel_spacing_mm, rtol=SAME_SIZE)
        if item.size != first.size or spacing_differs:
            wrong = (
                f"has {item.size} pixels of {item.pixel_spacing_mm} mm, {first.name} {first.size} of "
                f"{first.pixel_spacing_mm} mm"
            )
            raise SeriesError(item.path.with_name(item.name), wrong, "keep one reconstruction in the folder")
        if not are_parallel(item, first):
            raise SeriesError(
                item.path, f"is turned against {first.name}", "keep one orientation in the folder"
            )


def gap_error(folder: Path, stack: SliceStack) -> SeriesError:
    """Return the error of a stack that is not even: where slices are missing, or which lie unevenly."""
    gaps, usual = np.diff(stack.heights_mm), stack.median_spacing_mm
    hint = ", or ingest it with --gaps resample to interpolate" if gaps.max() <= widest_gap(stack) else ""
    z = [place[0].position_mm[2] for place in stack.places]
    # A gap of a whole number of steps is a missing slice; anything else is uneven spacing.
    steps = np.rint(gaps / usual)
    missing = np.flatnonzero((steps >= 2) & (np.abs(gaps / usual - steps) <= EVEN * steps))
    if len(missing):
        i = missing[0]
        return SeriesError(
            folder,
            f"{int(steps[i]) - 1} of the slices missing between z {z[i]:.2f} and {z[i + 1]:.2f} mm, they lie "
            f"{usual:.2f} mm apart",
            f"give the whole series{hint}",
        )
    worst = int(np.argmax(np.abs(gaps - usual)))
    return SeriesError(
        folder,
        f"slices at z {z[worst]:.2f} and {z[worst + 1]:.2f} mm lie {gaps[worst]:.2f} mm apart, the others "
        f"{usual:.2f} mm",
        f"give a series with even spacing{hint}",
    )


def widest_gap(stack: SliceStack) -> float:
    """Return the widest gap in mm that may be interpolated: one missing slice; two cannot be guessed."""
    return 2 * stack.median_spacing_mm * (1 + EVEN)


def tilt_error(folder: Path, stack: SliceStack) -> SeriesError:
    """Return the error of a stack that is sheared, with its angle."""
    degrees = np.degrees(np.arctan2(np.linalg.norm(stack.shifts_mm[-1]), stack.heights_mm[-1]))
    return SeriesError(
        folder,
        f"the slices are shifted sideways by up to {stack.sideways_mm:.1f} mm "
        f"(gantry tilt of {degrees:.1f} degrees)",
        "give a series without tilt, or ingest it with --tilt resample to make it upright",
    )


@dataclass(frozen=True)
class EvenGrid:
    """The voxels that a stack of slices becomes.

    Attributes:
        size: Columns, rows, planes.
        origin_mm: Centre of the first voxel, LPS.
        spacing_mm: Columns, rows, planes.
        direction: As SimpleITK has it, nine numbers.
        heights: Where each slice lies, in planes from the first.
        shifts: How far each slice is moved along columns and rows, in pixels, shape (n, 2), not negative;
            None where the stack is upright.
        decisions: What is done to the slices.
    """

    size: tuple[int, int, int]
    origin_mm: tuple[float, ...]
    spacing_mm: tuple[float, ...]
    direction: tuple[float, ...]
    heights: Floats
    shifts: Floats | None
    decisions: tuple[str, ...]


def even_grid(stack: SliceStack) -> EvenGrid:
    """Return the grid for a stack; an uneven one gets the usual spacing, a sheared one room at its sides.

    A tilted gantry shears the stack, and an ITK volume holds no shear. Each slice is moved within its own
    plane: the volume gets the slices' own orientation, nothing is interpolated between slices, and contours
    that were drawn on the slices still lie on slices.
    """
    first = stack.first
    decisions = []
    spacing = stack.even_mm if stack.is_even else stack.median_spacing_mm
    heights = np.arange(len(stack.places), dtype=float)
    if not stack.is_even:
        heights = stack.heights_mm / spacing
    planes = int(np.floor(heights[-1] + EVEN)) + 1
    columns, rows = first.size
    origin = np.array(first.position_mm)
    shifts = None
    if not stack.is_upright:
        pixels = stack.shifts_mm / np.array(first.pixel_spacing_mm)
        # Counted from the leftmost and uppermost slice, so that no shift is negative.
        start = np.floor(pixels.min(axis=0))
        room = np.ceil(pixels.max(axis=0) - start).astype(int)
        origin = origin + (start * np.array(first.pixel_spacing_mm)) @ stack.axes[:2]
        columns, rows = columns + int(room[0]), rows + int(room[1])
        shifts = pixels - start
        decisions.append(
            f"gantry tilt: slices moved sideways by up to {stack.sideways_mm:.1f} mm to an upright volume"
        )
    if not stack.is_even:
        whole = sum(_is_on_plane(heights, k) for k in range(planes))
        decisions.append(
            f"uneven spacing: {planes - whole} of {planes} planes interpolated, {spacing:.3f} mm apart"
        )
    return EvenGrid(
        size=(columns, rows, planes),
        origin_mm=tuple(origin.tolist()),
        spacing_mm=(*first.pixel_spacing_mm, round(spacing, 6)),
        direction=tuple(stack.axes.T.ravel().tolist()),
        heights=heights,
        shifts=shifts,
        decisions=tuple(decisions),
    )


def _is_on_plane(heights: Floats, plane: int) -> bool:
    return bool(np.abs(heights - plane).min() <= EVEN)


def fill_grid(slices: Iterable[HuArray], grid: EvenGrid, out: HuArray) -> None:
    """Put slices on the grid one after the other; planes between two slices are interpolated linearly.

    Args:
        slices: HU in the order of the stack, shape (rows, columns) of the scanner.
        grid: The grid of the stack, from `even_grid`.
        out: Receives HU, shape (planes, rows, columns) of the grid.
    """
    plane = 0
    below: HuArray | None = None
    height_below = 0.0
    for hu, height in zip(_shifted(slices, grid), grid.heights, strict=True):
        # Two slices at a time are in memory; a plane within EVEN of a slice is that slice, unmixed.
        while plane < len(out) and plane <= height + EVEN:
            if abs(height - plane) <= EVEN or below is None:
                out[plane] = hu
            elif plane - height_below <= EVEN:
                out[plane] = below
            else:
                # Linear, and never across more than one missing slice: `check_series` refused the rest.
                share = (plane - height_below) / (height - height_below)
                out[plane] = np.rint(below + np.float32(share) * (hu.astype(np.float32) - below))
            plane += 1
        below, height_below = hu, float(height)


def _shifted(slices: Iterable[HuArray], grid: EvenGrid) -> Iterator[HuArray]:
    if grid.shifts is None:
        yield from slices
        return
    for hu, (right, down) in zip(slices, grid.shifts, strict=True):
        yield _move(hu, float(right), float(down), (grid.size[1], grid.size[0]))


def _move(hu: HuArray, right: float, down: float, size: tuple[int, int]) -> HuArray:
    """Move a slice by fractions of a pixel into a larger one; what lies partly outside becomes air."""
    moved = np.full(size, LOWEST_HU, dtype=np.int16)
    values = hu.astype(np.float32)
    start = []
    for axis, shift in ((0, down), (1, right)):
        whole = int(shift)
        share = np.float32(shift - whole)
        # Interpolating between two neighbours leaves one row or column fewer, which starts one further on.
        if share > 0:
            ahead, behind = np.delete(values, 0, axis), np.delete(values, -1, axis)
            values = ahead + share * (behind - ahead)
            whole += 1
        start.append(whole)
    y, x = start
    moved[y : y + values.shape[0], x : x + values.shape[1]] = np.rint(values)
    return moved
