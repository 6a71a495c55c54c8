"""Pieces of a prepared case: where they begin, what is read for them, what they hold."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from radiogen.training.augmentation import Chance
from radiogen.training.prepared import PreparedCase
from radiogen.training.warp import Shape, Warp
from radiogen.volume import FloatArray

Labels = npt.NDArray[np.int16]


@dataclass(frozen=True)
class Piece:
    """A piece of a case after the warp: HU, lesions 0..n, lungs, and the lesion that it was drawn for."""

    hu: FloatArray
    lesion: Labels
    lungs: Labels
    asked: int | None
    spacing_mm: tuple[float, float, float]  # (x, y, z)

    def cut(self, box: tuple[slice, slice, slice]) -> "Piece":
        """A part of it."""
        return replace(self, hu=self.hu[box], lesion=self.lesion[box], lungs=self.lungs[box])


def place_round(case: PreparedCase, label: int, warp: Warp, central: bool, chance: Chance) -> Shape:
    """The first voxel of a patch that holds the middle of a lesion, near its own middle or anywhere."""
    start = []
    shapes = zip(case.shape, warp.covered, warp.inset, case.lesion_boxes[label], strict=True)
    for length, size, inset, edge in shapes:
        middle = (edge.start + edge.stop) // 2
        slack = max(0, (size - (edge.stop - edge.start)) // 4) if central else 2 * size // 5
        first = middle - size // 2 + int(chance.integers(-slack, slack + 1))
        first = min(max(first, 0), length - size) if length > size else (length - size) // 2
        start.append(first - inset)
    z, y, x = start
    return z, y, x


def read_padded(
    case: PreparedCase, name: str, first: Sequence[int], shape: Shape, size: Shape, outside: int
) -> Labels:
    """A piece of an array of a case, from the voxel `first` on.

    What a warp asks for beyond the case is mirrored, so that no edge is seen where there is none; on an
    axis on which the case is no longer than a patch it is `outside`, as the network sees it in use.
    """
    short = [n <= s for n, s in zip(case.shape, size, strict=True)]
    ends = [  # the last voxel of a case may jut out of the scan and be air
        n - 1 if f + s > n and not is_short else n
        for f, s, n, is_short in zip(first, shape, case.shape, short, strict=True)
    ]
    inside = [slice(max(0, f), min(n, f + s)) for f, n, s in zip(first, ends, shape, strict=True)]
    piece = case.read(name, (inside[0], inside[1], inside[2]))
    pad = [(i.start - f, f + s - i.stop) for i, f, s in zip(inside, first, shape, strict=True)]
    if not any(before or behind for before, behind in pad):
        return piece
    mirrored = [(0, 0) if is_short else both for both, is_short in zip(pad, short, strict=True)]
    filled = [both if is_short else (0, 0) for both, is_short in zip(pad, short, strict=True)]
    return np.pad(np.pad(piece, mirrored, mode="reflect"), filled, constant_values=outside)
