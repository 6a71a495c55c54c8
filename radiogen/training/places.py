"""Where a patch may lie: over enough lung, and clear of what it must not show."""

from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.ndimage import binary_dilation, find_objects

from radiogen.training.augmentation import Reading, Shape
from radiogen.training.settings import TrainingSettings
from radiogen.volume import FloatArray

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


def move_on(start: npt.NDArray[np.int64], case: Shape, patch: Shape, rng: np.random.Generator) -> Shape:
    """A first voxel moved on by up to `BLOCK - 1` voxels, still inside the case."""
    moved = [
        min(int(first) + int(step), length - size) if length > size else int(first)
        for first, step, length, size in zip(start, rng.integers(0, BLOCK, 3), case, patch, strict=True)
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


TISSUE_HU = -500.0  # vessels, walls and scars: what a first pass takes for a lesion
NEAR_LUNGS = 3  # voxels
SIDES = (0.6, 1.4)  # of the box, against the wanted size


def empty_box(
    hu: FloatArray,
    lungs: npt.NDArray[np.bool_],
    lesion: npt.NDArray[np.bool_],
    sides: npt.NDArray[np.float64],
    rng: np.random.Generator,
) -> tuple[slice, slice, slice] | None:
    """A box about a voxel of tissue in or at the lungs, clear of every lesion; None if none is found.

    Args:
        hu: The patch, shape (D, H, W), HU.
        lungs: Lung mask of the patch.
        lesion: What the box must not touch.
        sides: Voxels of a box of the wanted size, (z, y, x).
        chance: Decides alone what is drawn.
    """
    tissue = np.flatnonzero((hu > TISSUE_HU) & binary_dilation(lungs, iterations=NEAR_LUNGS) & ~lesion)
    if not len(tissue):
        return None
    middle = np.unravel_index(int(rng.choice(tissue)), hu.shape)
    half = np.maximum(sides * rng.uniform(*SIDES, size=3) / 2, 1)
    z, y, x = (
        slice(max(0, round(at - h)), min(n, round(at + h) + 1))
        for at, h, n in zip(middle, half, hu.shape, strict=True)
    )
    return None if lesion[z, y, x].any() else (z, y, x)


Mask = npt.NDArray[np.bool_]
GROWTH = (0.5, 1.5)  # a box that is much too large: its faces move out by this share of the lesion's width
BESIDE = (0.25, 0.5)  # a box partly beside: shifted by this share of the lesion's width


def drawn_box(lesion: Mask, training: TrainingSettings, rng: np.random.Generator) -> FloatArray:
    """The box round a lesion of a patch as a person would draw it; 1 inside, 0 outside.

    Its faces are shifted (`box_jitter`) and moved out (`box_loosen`); a share of the boxes
    (`box_careless`) is much too large or partly beside the lesion. Where the lesion reaches out of the
    patch, so does the box.

    Args:
        lesion: The lesion in the patch as the network will see it, not empty.
        training: How far.
        chance: Decides alone what is drawn.
    """
    careless: Literal["", "large", "beside"] = ""
    if rng.random() < training.box_careless:
        careless = "large" if rng.random() < 0.5 else "beside"
    widest = training.box_jitter + training.box_loosen
    prior = np.zeros(lesion.shape, np.float32)
    slices = []
    for edge, size in zip(find_objects(lesion.astype(np.uint8))[0], lesion.shape, strict=True):
        width = edge.stop - edge.start
        out_low, out_high = rng.uniform(-training.box_jitter, widest, size=2) * width
        grown, shift = rng.uniform(*GROWTH, size=2) * width, rng.uniform(*BESIDE) * width
        shift *= rng.choice([-1, 1])
        if careless == "large":
            out_low, out_high = grown
        if careless == "beside":
            out_low, out_high = out_low - shift, out_high + shift
        low = 0 if edge.start == 0 else round(edge.start - out_low)
        high = size if edge.stop == size else round(edge.stop + out_high)
        low = int(np.clip(low, 0, size - 1))
        slices.append(slice(low, int(np.clip(high, low + 1, size))))
    prior[tuple(slices)] = 1.0
    return prior


def rough_mask(lesion: Mask, rng: np.random.Generator) -> FloatArray:
    """A mask that is up to three voxels too large."""
    rounds = int(rng.integers(0, 4))
    rough = binary_dilation(lesion, iterations=rounds) if rounds else lesion
    return np.asarray(rough, dtype=np.float32)
