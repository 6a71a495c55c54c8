"""Pack a CT and its masks to fit a page: cut to the chest, coarser, fewer grey levels.

A thin-slice CT takes 200 MB, a page is to stay below 15. Lossy picture formats would allow finer voxels, but
need a decoder in the page and add artefacts along the edges of lesions.
"""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from radiogen.drawing.planes import patient_axes
from radiogen.io.nifti import write_volume
from radiogen.volume import bounding_box, crop, grid_over, resample_to, same_grid, union, volume_like

HEAVIEST_BYTES = 6_000_000  # of the packed CT; base64 makes 8 MB of it
MOST_VOXELS = 14_000_000  # first guess; noise decides how well they pack
MARGIN_MM = 30.0  # round the lungs and lesions: ribs and the chest wall
# From air to cortical bone. A step of 4 HU is less than one of the 256 grey levels of a lung window (6 HU).
LOW_HU, HIGH_HU, STEP_HU = -1024, 1600, 4
MOST_TRIES = 12
# Of the lungs, which are there for orientation, the page carries the edge in axial planes only: the edge that
# the viewer draws is three-dimensional and fills the slices where a mask ends above or below.
OUTLINED = ("lungs",)
SOLID_MM = 2.0


@dataclass(frozen=True)
class PackedVolumes:
    """Compressed NIfTI files, and how they differ from the original."""

    ct: bytes  # HU
    masks: dict[str, bytes]  # on the grid of the CT; of the lungs the edge in axial planes
    spacing_mm: tuple[float, float, float]  # of the packed volumes, in the order of the volume
    original_mm: tuple[float, float, float]  # of the CT as it was read
    is_cut: bool  # whether air round the chest was cut away

    @property
    def is_coarser(self) -> bool:
        """Whether the voxels are not those of the CT."""
        return not np.allclose(self.spacing_mm, self.original_mm)


def pack_for_page(
    ct: sitk.Image, masks: Mapping[str, sitk.Image], heaviest_bytes: int = HEAVIEST_BYTES
) -> PackedVolumes:
    """Pack volumes for a page, in the finest voxels with which the compressed CT stays within a limit.

    Where a voxel must grow, values are averaged (CT) or the nearest is taken (masks); no voxel becomes
    finer. HU are clipped to -1024..1600 and rounded to 4. Measure on the original, not on this.

    Args:
        ct: HU.
        masks: On the grid of `ct`.
        heaviest_bytes: Of the packed CT.
    """
    boxes = [box for mask in masks.values() if (box := bounding_box(mask, MARGIN_MM))]
    chest = union(boxes) if boxes else None
    # Air, table and arms take most of a CT and none of the interest.
    whole = ct
    if chest:
        ct, masks = crop(ct, chest), {name: crop(mask, chest) for name, mask in masks.items()}
    original = np.array(ct.GetSpacing())
    voxel_mm = _first_guess(ct)
    for _ in range(MOST_TRIES):
        spacing = np.maximum(original, voxel_mm)
        grid = _grid_of(ct, spacing)
        packed = pack(_rounded(_coarser(ct, grid)))
        if len(packed) <= heaviest_bytes:
            break
        voxel_mm = _next_guess(original, voxel_mm, len(packed) / heaviest_bytes)
    x, y, z = grid.GetSpacing()
    x_mm, y_mm, z_mm = original.tolist()
    return PackedVolumes(
        packed,
        {name: _packed_mask(name, resample_to(mask, grid, 0, nearest=True)) for name, mask in masks.items()},
        (x, y, z),
        (x_mm, y_mm, z_mm),
        is_cut=ct.GetSize() != whole.GetSize(),
    )


def pack_whole(ct: sitk.Image, masks: Mapping[str, sitk.Image]) -> PackedVolumes:
    """Pack the volumes as they are."""
    x, y, z = ct.GetSpacing()
    return PackedVolumes(
        pack(ct),
        {name: _packed_mask(name, mask) for name, mask in masks.items()},
        (x, y, z),
        (x, y, z),
        is_cut=False,
    )


def _packed_mask(name: str, mask: sitk.Image) -> bytes:
    """Pack a mask, of those in `OUTLINED` the edge only."""
    return pack(axial_edge(mask) if name in OUTLINED else mask)


def axial_edge(mask: sitk.Image) -> sitk.Image:
    """Keep the voxels of a label that have a neighbour of another label in their axial plane."""
    labels = np.asarray(sitk.GetArrayViewFromImage(mask))
    z = 2 - patient_axes(mask).axes[2]  # of the array
    inner = np.ones_like(labels, dtype=bool)
    for axis in {0, 1, 2} - {z}:
        for step in (1, -1):
            inner &= np.roll(labels, step, axis) == labels
    return volume_like(np.where(inner, 0, labels).astype(np.uint8), mask)


def pack_solid(mask: sitk.Image) -> bytes:
    """Pack how much of each voxel of about `SOLID_MM` lies in a mask, 0 to 255, for a smooth surface."""
    inside = sitk.Cast(mask > 0, sitk.sitkUInt8) * 255
    factors = [max(1, round(SOLID_MM / spacing)) for spacing in mask.GetSpacing()]
    shares = sitk.BinShrink(sitk.Cast(inside, sitk.sitkFloat32), factors)
    # Shares, smoothed, look like a surface without extracting one.
    # A variance in mm²: a standard deviation of 0.63 voxels of the solid.
    smooth = sitk.DiscreteGaussian(shares, 0.4 * SOLID_MM**2)
    return pack(sitk.Cast(smooth, sitk.sitkUInt8))


def pack(volume: sitk.Image) -> bytes:
    """Return the bytes of a `.nii.gz` file of a volume."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "volume.nii.gz"
        write_volume(volume, path)
        return path.read_bytes()


def _first_guess(ct: sitk.Image) -> float:
    """Return the voxel size with which about `MOST_VOXELS` fill the volume."""
    spacing, voxel_mm = np.array(ct.GetSpacing()), float(min(ct.GetSpacing()))
    extent = spacing * ct.GetSize()
    while np.prod(extent / np.maximum(spacing, voxel_mm)) > MOST_VOXELS:
        voxel_mm *= 1.05
    return voxel_mm


def _next_guess(spacing: np.ndarray, voxel_mm: float, too_heavy: float) -> float:
    """Return a voxel size with which the bytes fall by a factor, and 3 % more, for noise packs unevenly."""
    start = np.prod(np.maximum(spacing, voxel_mm))
    while np.prod(np.maximum(spacing, voxel_mm)) < 1.03 * too_heavy * start:
        voxel_mm *= 1.02
    return voxel_mm


def _grid_of(ct: sitk.Image, spacing: np.ndarray) -> sitk.Image:
    # 1e-6: 3 x 0.7 mm in voxels of 2.1 mm is one voxel, not none by rounding.
    size = np.maximum(1, np.floor(np.array(ct.GetSize()) * ct.GetSpacing() / spacing + 1e-6)).astype(int)
    return grid_over(ct, size.tolist(), spacing.tolist())


def _coarser(ct: sitk.Image, grid: sitk.Image) -> sitk.Image:
    """Average in whole steps as far as these go, then resample to the grid, so that no voxel is skipped."""
    if same_grid(ct, grid):
        return ct
    factors = [
        # 0.01: a voxel of 1.995 times the size is averaged over two.
        max(1, int(new / old + 0.01))
        for new, old in zip(grid.GetSpacing(), ct.GetSpacing(), strict=True)
    ]
    averaged = sitk.BinShrink(ct, factors) if max(factors) > 1 else ct
    return resample_to(averaged, grid, LOW_HU)


def _rounded(ct: sitk.Image) -> sitk.Image:
    """Clip HU and round them to steps, int16: noise below what a window shows compresses badly."""
    hu = np.clip(sitk.GetArrayViewFromImage(ct), LOW_HU, HIGH_HU)
    return volume_like((np.round(hu / STEP_HU) * STEP_HU).astype(np.int16), ct)
