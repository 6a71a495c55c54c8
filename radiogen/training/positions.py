"""Where in a case a patch may lie: lungs and lesions are counted in cubes, and positions found by sums."""

import numpy as np
import numpy.typing as npt

from radiogen.training.augmentation import Rng, Shape, SourceRegion

Counts = npt.NDArray[np.uint8]
BLOCK = 4  # voxels of a side of a cube


def count_blocks(mask: npt.NDArray[np.bool_]) -> Counts:
    """Count the voxels of a mask in each cube of `BLOCK` voxels, 0 to 64; the last cubes may jut out."""
    padded = np.pad(mask, [(0, -n % BLOCK) for n in mask.shape])
    d, h, w = (n // BLOCK for n in padded.shape)
    cubes = padded.reshape(d, BLOCK, h, BLOCK, w, BLOCK)
    return np.asarray(cubes.sum(axis=(1, 3, 5), dtype=np.uint8))


def lung_positions(
    lungs: Counts,
    forbidden: Counts | None,
    case: Shape,
    patch: Shape,
    region: SourceRegion,
    share: float,
) -> npt.NDArray[np.int64]:
    """Find the first voxels (n, 3) of all patches of a case that hold lung, a cube of `BLOCK` voxels apart.

    A first voxel may be moved on by up to `BLOCK - 1` voxels without reading anything forbidden.

    Args:
        lungs: Cubes of the case's lungs.
        forbidden: Cubes of what no patch may read; None if all may be read.
        case: Shape of the case.
        patch: Shape of the patch.
        region: The voxels that it is sampled from.
        share: Least share of lung. Where nothing is forbidden and no patch reaches it, those with most.
    """
    firsts = [patch_starts(n, size) for n, size in zip(case, patch, strict=True)]
    inside = [(first, first + size) for first, size in zip(firsts, patch, strict=True)]
    held = window_sums(lungs, inside)
    enough = held >= share * np.prod(patch)
    if forbidden is None:
        enough = enough if enough.any() else held == held.max()
    else:
        read = [
            (first + low, first + high + BLOCK - 1)
            for first, low, high in zip(firsts, region.low, region.high, strict=True)
        ]
        enough &= (held > 0) & (window_sums(forbidden, read) == 0)
    chosen = np.argwhere(enough)
    return np.stack([first[chosen[:, axis]] for axis, first in enumerate(firsts)], axis=1)


def patch_starts(length: int, size: int) -> npt.NDArray[np.int64]:
    """Return where a patch may begin on an axis: in steps of `BLOCK`; centred where the case is shorter."""
    if length <= size:
        return np.array([(length - size) // 2])
    return np.arange(0, length - size + 1, BLOCK)


def shift_start(start: npt.NDArray[np.int64], case: Shape, patch: Shape, rng: Rng) -> Shape:
    """Move a first voxel on by up to `BLOCK - 1` voxels, still inside the case."""
    moved = [
        min(int(first) + int(step), length - size) if length > size else int(first)
        for first, step, length, size in zip(start, rng.integers(0, BLOCK, 3), case, patch, strict=True)
    ]
    d, h, w = moved
    return d, h, w


def window_sums(
    counts: Counts, windows: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]
) -> npt.NDArray[np.int64]:
    """Return sums of cubes over windows, given on each axis by first voxels and the first ones behind.

    A cube counts in full as soon as a window touches it.
    """
    # Cumulative sums axis by axis: a window costs two look-ups an axis instead of its voxels.
    sums = counts.astype(np.int64)
    for axis, (start, stop) in enumerate(windows):
        total = np.cumsum(sums, axis=axis)
        total = np.concatenate([np.zeros_like(np.take(total, [0], axis)), total], axis=axis)
        most = counts.shape[axis]
        first = np.clip(start // BLOCK, 0, most)
        behind = np.clip(-(-stop // BLOCK), 0, most)
        sums = np.take(total, behind, axis) - np.take(total, first, axis)
    return sums
