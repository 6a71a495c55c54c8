"""Lay slices on an even, upright grid: as they are where they fit, else shifted and interpolated."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from radiogen.io.dicom.pixels import LOWEST_HU, HuArray
from radiogen.io.dicom.grid import EVEN, Stack

Floats = npt.NDArray[np.float64]


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


def even_grid(stack: Stack) -> EvenGrid:
    """The grid for a stack; an uneven one gets the usual spacing, a sheared one room at its sides."""
    first, said = stack.first, []
    spacing = stack.even_mm if stack.is_even else stack.usual_mm
    heights = np.arange(len(stack.places), dtype=float)
    if not stack.is_even:
        heights = stack.heights_mm / spacing
    planes = int(np.floor(heights[-1] + EVEN)) + 1
    columns, rows = first.size
    origin = np.array(first.position_mm)
    shifts = None
    if not stack.is_upright:
        pixels = stack.shifts_mm / np.array(first.pixel_spacing_mm)
        start = np.floor(pixels.min(axis=0))
        room = np.ceil(pixels.max(axis=0) - start).astype(int)
        origin = origin + (start * np.array(first.pixel_spacing_mm)) @ stack.axes[:2]
        columns, rows = columns + int(room[0]), rows + int(room[1])
        shifts = pixels - start
        said.append(
            f"gantry tilt: slices moved sideways by up to {stack.sideways_mm:.1f} mm to an upright volume"
        )
    if not stack.is_even:
        whole = sum(_is_on_plane(heights, k) for k in range(planes))
        said.append(
            f"uneven spacing: {planes - whole} of {planes} planes interpolated, {spacing:.3f} mm apart"
        )
    return EvenGrid(
        size=(columns, rows, planes),
        origin_mm=tuple(origin.tolist()),
        spacing_mm=(*first.pixel_spacing_mm, round(spacing, 6)),
        direction=tuple(stack.axes.T.ravel().tolist()),
        heights=heights,
        shifts=shifts,
        decisions=tuple(said),
    )


def _is_on_plane(heights: Floats, plane: int) -> bool:
    return bool(np.abs(heights - plane).min() <= EVEN)


def lay_slices(slices: Iterable[HuArray], grid: EvenGrid, out: HuArray) -> None:
    """Put slices on the grid, one after the other.

    Args:
        slices: HU in the order of the stack, shape (rows, columns) of the scanner.
        grid: What `even_grid` made of the stack.
        out: Receives HU, shape (planes, rows, columns) of the grid.
    """
    plane = 0
    below: HuArray | None = None
    height_below = 0.0
    for hu, height in zip(_shifted(slices, grid), grid.heights, strict=True):
        while plane < len(out) and plane <= height + EVEN:
            if abs(height - plane) <= EVEN or below is None:
                out[plane] = hu
            elif plane - height_below <= EVEN:
                out[plane] = below
            else:
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
    """A slice moved by fractions of a pixel into a larger one; what lies partly outside becomes air."""
    moved = np.full(size, LOWEST_HU, dtype=np.int16)
    values, start = hu.astype(np.float32), []
    for axis, shift in ((0, down), (1, right)):
        whole = int(shift)
        share = np.float32(shift - whole)
        if share > 0:
            ahead, behind = np.delete(values, 0, axis), np.delete(values, -1, axis)
            values = ahead + share * (behind - ahead)
            whole += 1
        start.append(whole)
    y, x = start
    moved[y : y + values.shape[0], x : x + values.shape[1]] = np.rint(values)
    return moved
