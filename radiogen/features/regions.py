"""Which voxels of a case are pooled: the lesion, a ring round it inside the lungs, lung far away from it."""

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
from scipy import ndimage

from radiogen.volume import array_of, resample_to

Voxels = npt.NDArray[np.bool_]

BALL_MM = 10.0  # radius of the piece of lung that serves as a control
AWAY_MM = 20.0  # how far from every lesion it lies, where the lungs are large enough


def on_grid(mask: sitk.Image, grid: sitk.Image) -> Voxels:
    """A lesion mask on another grid, nearest neighbour; one that falls between the voxels keeps its deepest.

    Args:
        mask: All that is not 0 is the lesion; it holds at least one voxel.
        grid: Where the voxels of the result lie, order (z, y, x).
    """
    voxels: Voxels = array_of(resample_to(mask, grid, outside=0, nearest=True)) != 0
    if not voxels.any():
        z, y, x = deepest(array_of(mask) != 0)
        place = mask.TransformIndexToPhysicalPoint((x, y, z))
        index = np.array(grid.TransformPhysicalPointToIndex(place))
        i, j, k = np.clip(index, 0, np.array(grid.GetSize()) - 1)
        voxels[k, j, i] = True
    return voxels


def deepest(voxels: Voxels) -> tuple[int, int, int]:
    """The voxel (z, y, x) farthest inside, the first where several are; a fold of a mask is never missed."""
    low, high = bounds(voxels)
    piece = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    depth = ndimage.distance_transform_edt(np.pad(voxels[piece], 1))
    z, y, x = np.unravel_index(int(depth.argmax()), depth.shape)
    return int(z) + low[0] - 1, int(y) + low[1] - 1, int(x) + low[2] - 1


def bounds(voxels: Voxels) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """First voxel and the one behind the last, on each axis, of a mask that is not empty."""
    pairs = []
    for axis in range(3):
        hit = np.flatnonzero(voxels.any(axis=tuple(other for other in range(3) if other != axis)))
        pairs.append((int(hit[0]), int(hit[-1]) + 1))
    (a, b), (c, d), (e, f) = pairs
    return (a, c, e), (b, d, f)


def ring(
    lesion: Voxels, others: Voxels, lungs: Voxels, spacing_mm: npt.ArrayLike, mm: tuple[float, float]
) -> Voxels:
    """Lung between two distances from the surface of a lesion, without the other lesions; may be empty.

    Args:
        lesion: (D, H, W), one lesion.
        others: All lesions.
        lungs: The lungs.
        spacing_mm: Of the arrays, order (z, y, x).
        mm: The ring begins beyond the first distance and ends with the second.
    """
    spacing = np.asarray(spacing_mm, dtype=float)
    low, high = bounds(lesion)
    margin = np.ceil(mm[1] / spacing).astype(int) + 1
    piece = tuple(
        slice(max(0, a - m), min(n, b + m))
        for a, b, m, n in zip(low, high, margin, lesion.shape, strict=True)
    )
    away = ndimage.distance_transform_edt(~lesion[piece], sampling=spacing)
    found: Voxels = np.zeros_like(lesion)
    found[piece] = (away > mm[0]) & (away <= mm[1]) & lungs[piece] & ~others[piece]
    return found


def lung_outside(lesions: Voxels, lungs: Voxels, spacing_mm: npt.ArrayLike) -> Voxels:
    """A ball of lung away from all lesions: what scanner, hospital and lung look like without the tumour.

    Its centre is the point deepest inside the lungs that lies more than `AWAY_MM` from every lesion (or,
    in lungs too small for that, deepest beside them). One size for all patients, so that it does not tell
    the size of the lesion. Empty where there is no lung beside the lesions.
    """
    spacing = np.asarray(spacing_mm, dtype=float)
    free = lungs & ~lesions
    if lesions.any():
        far = free & (ndimage.distance_transform_edt(~lesions, sampling=spacing) > AWAY_MM)
        free = far if far.any() else free
    if not free.any():
        return np.zeros_like(lungs)
    depth = ndimage.distance_transform_edt(np.pad(free, 1), sampling=spacing)[1:-1, 1:-1, 1:-1]
    centre = np.unravel_index(int(depth.argmax()), depth.shape)
    axes = [((np.arange(n) - c) * s) ** 2 for n, c, s in zip(lungs.shape, centre, spacing, strict=True)]
    squares = axes[0][:, None, None] + axes[1][None, :, None] + axes[2][None, None, :]
    ball: Voxels = (squares <= BALL_MM**2) & lungs & ~lesions
    return ball


def slabs(lesion: Voxels, spacing_mm: npt.ArrayLike, count: int) -> list[Voxels]:
    """A lesion cut across its longest axis into pieces of equal size; fewer where it has fewer voxels."""
    places = np.argwhere(lesion)
    millimetres = places * np.asarray(spacing_mm, dtype=float)
    centred = millimetres - millimetres.mean(axis=0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    axis = axes[0] * np.sign(axes[0][np.abs(axes[0]).argmax()])
    order = np.argsort(centred @ axis, kind="stable")
    pieces = []
    for part in np.array_split(order, min(count, len(order))):
        piece: Voxels = np.zeros_like(lesion)
        piece[tuple(places[part].T)] = True
        pieces.append(piece)
    return pieces
