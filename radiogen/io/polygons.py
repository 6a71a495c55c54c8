"""Fill polygons on the pixels of a slice, and trace masks back into polygons.

A pixel belongs to a polygon if its centre lies inside.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
CUTS_AT_ONCE = 4_000_000


@dataclass(frozen=True)
class FilledPolygon:
    """The part of a slice round a polygon: first column and row, and pixels of shape (rows, columns)."""

    start: tuple[int, int]
    inside: BoolArray

    def cut_from(self, plane: BoolArray) -> BoolArray:
        """Return the view of a slice, shape (rows, columns), that lies under this part."""
        x, y = self.start
        rows, columns = self.inside.shape
        return plane[y : y + rows, x : x + columns]


def fill_polygons(polygons: Sequence[Points], size: tuple[int, int]) -> BoolArray:
    """Fill pixels whose centre lies in an odd number of polygons, so that a hole is a polygon in another.

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
    inside = np.zeros(size[::-1], dtype=bool)
    for corners in polygons:
        filled = fill_polygon(corners, size)
        under = filled.cut_from(inside)
        under ^= filled.inside
    return inside


def fill_polygon(corners: Points, size: tuple[int, int]) -> FilledPolygon:
    """Fill the pixels whose centre lies inside one polygon, by the even-odd rule.

    Edges are half-open: polygons that share an edge share no pixel and leave none between them. The number
    of pixels differs from the area by less than the length of the outline (V. Jarnik, 1925).

    Args:
        corners: (column, row) in pixels, shape (n, 2).
        size: Columns and rows of the image; what lies outside is cut off.
    """
    # Rounded, so that a corner on a pixel centre does not depend on the last bit of a transform.
    x, y = np.round(corners, 6).T
    left, right = (int(np.clip(np.ceil(v), 0, size[0])) for v in (x.min(), x.max()))
    top, bottom = (int(np.clip(np.ceil(v), 0, size[1])) for v in (y.min(), y.max()))
    shape = (bottom - top, right - left)
    if 0 in shape:
        return FilledPolygon((left, top), np.zeros(shape, dtype=bool))
    # One column more than pixels: edges right of the last pixel are counted there and dropped.
    width = shape[1] + 1
    crossings = np.zeros(shape[0] * width, dtype=np.int64)
    for row, cut in _cuts(x, y, top, bottom):
        column = np.clip(np.ceil(cut), left, right).astype(np.int64) - left
        crossings += np.bincount((row - top) * width + column, minlength=len(crossings))
    odd = (crossings.reshape(shape[0], width)[:, :-1] & 1).astype(bool)
    # A pixel is inside if the edges left of it number odd.
    return FilledPolygon((left, top), np.logical_xor.accumulate(odd, axis=1))


def _cuts(x: Points, y: Points, top: int, bottom: int) -> Iterator[tuple[npt.NDArray[np.int64], Points]]:
    """Return where the edges of a polygon cross the lines of pixel centres: rows and places along them."""
    x_next, y_next = np.roll(x, -1), np.roll(y, -1)
    first = np.clip(np.ceil(np.minimum(y, y_next)), top, bottom).astype(np.int64)
    last = np.clip(np.ceil(np.maximum(y, y_next)), top, bottom).astype(np.int64)
    count = last - first
    end = np.cumsum(count)
    start = 0
    # A part at a time: a million edges that cross the whole image would fill the memory.
    while start < len(x):
        done = end[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(end, done + CUTS_AT_ONCE, side="right")))
        edge = np.repeat(np.arange(start, stop), count[start:stop])
        row = np.arange(len(edge)) - (end[edge] - count[edge] - done) + first[edge]
        # Edges along a row cross no line of pixel centres (their count is 0), so this never divides by 0.
        share = (row - y[edge]) / (y_next - y)[edge]
        yield row, np.round(x[edge] + share * (x_next - x)[edge], 6)
        start = stop


def polygon_area(corners: Points) -> float:
    """Return the area in square pixels by the shoelace formula; a keyhole's hole counts as outside.

    >>> polygon_area(np.array([[0.0, 0.0], [3.0, 0.0], [3.0, 2.0], [0.0, 2.0]]))
    6.0
    """
    # Centred first: products of large coordinates would lose the digits of a small area.
    x, y = (corners - corners.mean(axis=0)).T
    return abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2


Corner = tuple[int, int]  # column and row of a pixel's upper left corner


def trace(mask: BoolArray) -> list[list[Corner]]:
    """Return closed lines along the pixel edges round every part and hole of a mask.

    No edge is walked twice, so the even-odd rule gives back every pixel, also where parts touch by a corner.

    Args:
        mask: Shape (rows, columns).

    Returns:
        Corners of each line; (0, 0) is the upper left corner of the first pixel.

    >>> trace(np.array([[True, True], [False, False]]))
    [[(0, 0), (2, 0), (2, 1), (0, 1)]]
    """
    edges: dict[Corner, list[Corner]] = defaultdict(list)
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return []
    top, left = int(rows[0]), int(columns[0])
    mask = mask[top : rows[-1] + 1, left : columns[-1] + 1]
    # A frame of background, so that pixels at the border have an edge to it as well.
    padded = np.pad(mask, 1)
    for shift, start, end in (  # the neighbour across each edge, and the edge with the inside on its right
        ((-1, 0), (0, 0), (1, 0)),
        ((0, 1), (1, 0), (1, 1)),
        ((1, 0), (1, 1), (0, 1)),
        ((0, -1), (0, 1), (0, 0)),
    ):
        across = np.roll(padded, (-shift[0], -shift[1]), (0, 1))[1:-1, 1:-1]
        for row, column in np.add(np.argwhere(mask & ~across), (top, left)).tolist():
            edges[column + start[0], row + start[1]].append((column + end[0], row + end[1]))
    lines = []
    # Sorted by row and column, so that the same mask gives the same contours in every run.
    for first in sorted(edges, key=lambda corner: (corner[1], corner[0])):
        while edges[first]:
            line = [first]
            here = edges[first].pop()
            while here != first:
                line.append(here)
                here = edges[here].pop()
            lines.append(_without_straight(line))
    return lines


def _without_straight(line: Sequence[Corner]) -> list[Corner]:
    """Return only the corners where a line turns."""
    before, after = [line[-1], *line[:-1]], [*line[1:], line[0]]
    turns = [a[0] != c[0] and a[1] != c[1] for a, c in zip(before, after, strict=True)]
    return [corner for corner, is_turn in zip(line, turns, strict=True) if is_turn]
