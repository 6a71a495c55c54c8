"""Where a patch may lie: over enough lung, and clear of what it must not show."""

import numpy as np
import numpy.typing as npt

from radiogen.training.warp import Reading, Shape

BLOCK = 4  # voxels of the cubes in which lungs and forbidden voxels are counted
Counts = npt.NDArray[np.uint8]


def count_blocks(mask: npt.NDArray[np.bool_]) -> Counts:
    """How many voxels of each cube of `BLOCK` voxels a mask holds, 0 to 64; the last cubes may jut out."""
    padded = np.pad(mask, [(0, -n % BLOCK) for n in mask.shape])
    d, h, w = (n // BLOCK for n in padded.shape)
    cubes = padded.reshape(d, BLOCK, h, BLOCK, w, BLOCK)
    return np.asarray(cubes.sum(axis=(1, 3, 5), dtype=np.uint8))


def lung_places(
    lungs: Counts,
    forbidden: Counts | None,
    case: Shape,
    patch: Shape,
    reading: Reading,
    share: float,
) -> npt.NDArray[np.int64]:
    """First voxels (n, 3) of the patches of a case that hold lung, a cube of `BLOCK` voxels apart.

    A first voxel may be moved on by up to `BLOCK - 1` voxels without reading anything forbidden.

    Args:
        lungs: Cubes of the case's lungs.
        forbidden: Cubes of what no patch may read; None if all may be read.
        case: Shape of the case.
        patch: Shape of the patch.
        reading: What is read for it.
        share: Least share of lung in the patch. Where nothing is forbidden and no patch reaches it,
            those with the most lung are taken.
    """
    firsts = [first_voxels(n, size) for n, size in zip(case, patch, strict=True)]
    inside = [(first, first + size) for first, size in zip(firsts, patch, strict=True)]
    held = window_sums(lungs, inside)
    enough = held >= share * np.prod(patch)
    if forbidden is None:
        enough = enough if enough.any() else held == held.max()
    else:
        read = [
            (first + low, first + high + BLOCK - 1)
            for first, low, high in zip(firsts, reading.low, reading.high, strict=True)
        ]
        enough &= (held > 0) & (window_sums(forbidden, read) == 0)
    chosen = np.argwhere(enough)
    return np.stack([first[chosen[:, axis]] for axis, first in enumerate(firsts)], axis=1)


def first_voxels(length: int, size: int) -> npt.NDArray[np.int64]:
    """Where a patch may begin on an axis: in steps of `BLOCK`; centred where the case is shorter."""
    if length <= size:
        return np.array([(length - size) // 2])
    return np.arange(0, length - size + 1, BLOCK)


def move_on(start: npt.NDArray[np.int64], case: Shape, patch: Shape, chance: np.random.Generator) -> Shape:
    """A first voxel moved on by up to `BLOCK - 1` voxels, still inside the case."""
    moved = [
        min(int(first) + int(step), length - size) if length > size else int(first)
        for first, step, length, size in zip(start, chance.integers(0, BLOCK, 3), case, patch, strict=True)
    ]
    d, h, w = moved
    return d, h, w


def window_sums(
    counts: Counts, windows: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]
) -> npt.NDArray[np.int64]:
    """Sums of cubes over windows, given on each axis by first voxels and the first ones behind.

    A cube counts in full as soon as a window touches it.
    """
    sums = counts.astype(np.int64)
    for axis, (start, stop) in enumerate(windows):
        total = np.cumsum(sums, axis=axis)
        total = np.concatenate([np.zeros_like(np.take(total, [0], axis)), total], axis=axis)
        most = counts.shape[axis]
        first = np.clip(start // BLOCK, 0, most)
        behind = np.clip(-(-stop // BLOCK), 0, most)
        sums = np.take(total, behind, axis) - np.take(total, first, axis)
    return sums
