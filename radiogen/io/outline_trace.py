"""Draw closed lines along the edges of a mask's pixels: filled by exclusive or they give the same mask."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from radiogen.io.polygons import BoolArray

Corner = tuple[int, int]  # column and row of a pixel's upper left corner


def trace(mask: BoolArray) -> list[list[Corner]]:
    """Closed lines along the pixel edges round every part and hole of a mask.

    No edge is walked twice, so the even-odd rule gives back every pixel, also where parts touch by a corner.

    Args:
        mask: Shape (rows, columns).

    Returns:
        Corners of each line; (0, 0) is the upper left corner of the first pixel.

    >>> trace(np.array([[True, True], [False, False]]))
    [[(0, 0), (2, 0), (2, 1), (0, 1)]]
    """
    ways: dict[Corner, list[Corner]] = defaultdict(list)
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return []
    top, left = int(rows[0]), int(columns[0])
    mask = mask[top : rows[-1] + 1, left : columns[-1] + 1]
    padded = np.pad(mask, 1)
    for shift, start, end in (  # the neighbour across each edge, and the edge with the inside on its right
        ((-1, 0), (0, 0), (1, 0)),
        ((0, 1), (1, 0), (1, 1)),
        ((1, 0), (1, 1), (0, 1)),
        ((0, -1), (0, 1), (0, 0)),
    ):
        across = np.roll(padded, (-shift[0], -shift[1]), (0, 1))[1:-1, 1:-1]
        for row, column in np.add(np.argwhere(mask & ~across), (top, left)).tolist():
            ways[column + start[0], row + start[1]].append((column + end[0], row + end[1]))
    lines = []
    for first in sorted(ways, key=lambda corner: (corner[1], corner[0])):
        while ways[first]:
            line, here = [first], ways[first].pop()
            while here != first:
                line.append(here)
                here = ways[here].pop()
            lines.append(_without_straight(line))
    return lines


def _without_straight(line: Sequence[Corner]) -> list[Corner]:
    """Only the corners where a line turns."""
    before, after = [line[-1], *line[:-1]], [*line[1:], line[0]]
    turns = [a[0] != c[0] and a[1] != c[1] for a, c in zip(before, after, strict=True)]
    return [corner for corner, is_turn in zip(line, turns, strict=True) if is_turn]
