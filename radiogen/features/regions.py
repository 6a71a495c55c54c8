"""Find the voxels to measure: the lesion, the ring of lung round it, its patches, and lung far from it."""

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
from scipy import ndimage

from radiogen.volume import array_of, resample_to

Voxels = npt.NDArray[np.bool_]

BALL_MM = 10.0  # radius of the ball of lung that serves as a negative control
AWAY_MM = 20.0  # its distance from every lesion, where the lungs are large enough


def on_grid(mask: sitk.Image, grid: sitk.Image) -> Voxels:
    """Resample a lesion mask to another grid, nearest neighbour; no lesion is lost between the voxels.

    One that would be lost keeps its deepest voxel.

    Args:
        mask: All that is not 0 is the lesion; it holds at least one voxel.
        grid: The grid of the result, which is an array in the order (z, y, x).
    """
    voxels: Voxels = array_of(resample_to(mask, grid, outside=0, nearest=True)) != 0
    if not voxels.any():
        z, y, x = deepest(array_of(mask) != 0)
        point_mm = mask.TransformIndexToPhysicalPoint((x, y, z))
        index = np.array(grid.TransformPhysicalPointToIndex(point_mm))
        i, j, k = np.clip(index, 0, np.array(grid.GetSize()) - 1)
        voxels[k, j, i] = True
    return voxels


def deepest(voxels: Voxels) -> tuple[int, int, int]:
    """Return the voxel (z, y, x) farthest inside a mask, the first of several."""
    low, high = bounds(voxels)
    box = tuple(slice(first, last) for first, last in zip(low, high, strict=True))
    depth = ndimage.distance_transform_edt(np.pad(voxels[box], 1))
    z, y, x = np.unravel_index(int(depth.argmax()), depth.shape)
    return int(z) + low[0] - 1, int(y) + low[1] - 1, int(x) + low[2] - 1


def bounds(voxels: Voxels) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """Return the first voxel and the one behind the last, on each axis, of a mask that is not empty."""
    occupied = [np.flatnonzero(voxels.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))]
    z, y, x = ((int(indices[0]), int(indices[-1]) + 1) for indices in occupied)
    return (z[0], y[0], x[0]), (z[1], y[1], x[1])


def ring(
    lesion: Voxels, others: Voxels, lungs: Voxels, spacing_mm: npt.ArrayLike, mm: tuple[float, float]
) -> Voxels:
    """Return the lung between two distances from the surface of a lesion, without the other lesions.

    The ring may be empty.

    Args:
        lesion: (D, H, W), one lesion.
        others: All lesions.
        lungs: The lungs.
        spacing_mm: Spacing of the arrays, order (z, y, x).
        mm: The ring begins beyond the first distance and ends with the second.
    """
    spacing = np.asarray(spacing_mm, dtype=float)
    low, high = bounds(lesion)
    margin = np.ceil(mm[1] / spacing).astype(int) + 1
    # the distance map of the whole scan would take much longer than that of the lesion's box
    near = tuple(
        slice(max(0, first - reach), min(length, last + reach))
        for first, last, reach, length in zip(low, high, margin, lesion.shape, strict=True)
    )
    away_mm = ndimage.distance_transform_edt(~lesion[near], sampling=spacing)
    inside: Voxels = np.zeros_like(lesion)
    inside[near] = (away_mm > mm[0]) & (away_mm <= mm[1]) & lungs[near] & ~others[near]
    return inside


def lung_outside(lesions: Voxels, lungs: Voxels, spacing_mm: npt.ArrayLike) -> Voxels:
    """Return a ball of lung away from all lesions: scanner, hospital and lung without the tumour.

    Its centre is the point deepest inside the lungs that lies more than `AWAY_MM` from every lesion (in lungs
    too small for that, deepest beside them). It has one size for all patients: a copy of the lesion's shape
    would carry the volume along. It is empty where there is no lung beside the lesions.
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
    # cut by the lungs and the lesions: chest wall in the ball would not be lung
    ball: Voxels = (squares <= BALL_MM**2) & lungs & ~lesions
    return ball


def cut_patches(lesion: Voxels, spacing_mm: npt.ArrayLike, count: int) -> list[Voxels]:
    """Cut a lesion across its longest axis into patches of equal size; fewer where it has fewer voxels."""
    indices = np.argwhere(lesion)
    points_mm = indices * np.asarray(spacing_mm, dtype=float)
    centered = points_mm - points_mm.mean(axis=0)
    _, _, axes = np.linalg.svd(centered, full_matrices=False)
    axis = axes[0] * np.sign(axes[0][np.abs(axes[0]).argmax()])  # the sign of an SVD is arbitrary
    order = np.argsort(centered @ axis, kind="stable")
    patches = []
    for part in np.array_split(order, min(count, len(order))):
        patch: Voxels = np.zeros_like(lesion)
        patch[tuple(indices[part].T)] = True
        patches.append(patch)
    return patches
