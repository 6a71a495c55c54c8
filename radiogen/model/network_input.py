"""Prepare a case for a network: the lungs' box at the model's spacing, windowed and scaled."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from radiogen.config import Settings
from radiogen.errors import CaseError
from radiogen.networks.raseg import FITTING_SIZES, fits_raseg
from radiogen.volume import (
    AIR_HU,
    Box,
    FloatArray,
    array_of,
    bounding_box,
    corners_mm,
    crop,
    grid_over,
    grid_with_spacing,
    resample_to,
    union,
    widened,
    writable_volume,
)

SMOOTH_FROM = 1.2  # voxels that grow by more than this factor are smoothed before, against aliasing
KERNEL = 32  # voxels, the widest smoothing
OVERLAP = 0.5  # share of a sliding window that the next one covers too
SIGMA = 0.125  # of the Gaussian weights of a sliding window, as a share of its size
SLAB_VOXELS = 32_000_000  # of the CT that are held as float32 at once


class Window(Settings):
    """A CT window: what lies at `low_hu` and below becomes 0, at `high_hu` and above 1."""

    low_hu: float = -200.0
    high_hu: float = 250.0

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low_hu >= self.high_hu:
            raise ValueError(f"low_hu {self.low_hu} must lie below high_hu {self.high_hu}")
        return self


class Preprocessing(Settings):
    """How a case becomes an array; the defaults are the published ones.

    `patches` keeps the spacing and takes patches of `size` voxels; `squeeze`, as published,
    presses the box of the lungs into `size` voxels, so that a voxel's size differs by patient.

    Attributes:
        windows: Each window of HU is one channel of the network.
        spacing_mm: Voxels of `patches`, as (x, y, z).
        layout: `patches` or `squeeze`.
        size: Voxels that the network sees at once, as (slices, rows, columns).
        margin_mm: Kept round the lungs.
    """

    windows: tuple[Window, ...] = (Window(),)
    spacing_mm: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = (1.0, 1.0, 1.5)
    layout: Literal["patches", "squeeze"] = "squeeze"
    size: tuple[PositiveInt, PositiveInt, PositiveInt] = (256, 256, 256)  # (D, H, W)
    box_fills: tuple[float, float] | None = Field(
        None, description="least and largest share of a window that a box fills, by finer or coarser voxels"
    )
    margin_mm: float = Field(10.0, ge=0)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if not fits_raseg(self.size):
            raise ValueError(f"size {self.size} must be {FITTING_SIZES}")
        if not self.windows:
            raise ValueError("windows must name at least one window")
        if self.box_fills is not None and not 0 <= self.box_fills[0] < self.box_fills[1] <= 1:
            raise ValueError(f"box_fills {self.box_fills} must be two growing shares of 0 to 1")
        if self.box_fills is not None and self.layout == "squeeze":
            raise ValueError("box_fills needs the layout patches")
        return self


@dataclass(frozen=True)
class NetworkInput:
    """A case on the network's grid, still in HU, with its masks, and the CT's box it was cut from."""

    ct: sitk.Image
    lungs: sitk.Image
    lesion: sitk.Image | None
    roi: Box


def to_network_grid(
    ct: sitk.Image,
    lungs: sitk.Image,
    lesion: sitk.Image | None,
    settings: Preprocessing,
    also: Sequence[Box] = (),
) -> NetworkInput:
    """Crop a case to its lungs (and lesions) and resample it to the network's grid.

    Args:
        ct: HU.
        lungs: Lung mask on the CT's grid.
        lesion: Lesion mask on the CT's grid, or None where no outline is known.
        settings: Spacing, margin and layout.
        also: Boxes of the CT that must be held too.

    Raises:
        CaseError: The lung mask is empty.
    """
    roi = lung_roi(lungs, lesion, settings.margin_mm, also)
    cropped = crop(ct, roi)
    if settings.layout == "squeeze":
        size = settings.size[::-1]
        extent = np.array(cropped.GetSize()) * np.array(cropped.GetSpacing())
        grid = grid_over(cropped, size, (extent / np.array(size)).tolist())
    else:
        grid = grid_with_spacing(cropped, settings.spacing_mm)
    return NetworkInput(
        ct=resample_ct(cropped, grid),
        lungs=resample_to(lungs, grid, outside=0, nearest=True),
        lesion=None if lesion is None else resample_to(lesion, grid, outside=0, nearest=True),
        roi=roi,
    )


def lung_roi(lungs: sitk.Image, lesion: sitk.Image | None, margin_mm: float, also: Sequence[Box] = ()) -> Box:
    """Return the box round the lungs, every lesion and other boxes, with a margin.

    Raises:
        CaseError: The lung mask is empty.
    """
    of_lungs = bounding_box(lungs, margin_mm)
    if of_lungs is None:
        raise CaseError("lungs.nii.gz", "is empty", "ingest the case again or give a lung mask")
    of_lesion = None if lesion is None else bounding_box(lesion, margin_mm)
    others = [widened(box, lungs, margin_mm) for box in also]
    return union([of_lungs, *([of_lesion] if of_lesion else []), *others])


def resample_ct(ct: sitk.Image, grid: sitk.Image) -> sitk.Image:
    """Resample a CT to another grid of the same directions, int16; smooth first where voxels grow much.

    It is done slab by slab along z, with the same values, so that a long CT is never held as float32.
    """
    old, new = np.array(ct.GetSpacing()), np.array(grid.GetSpacing())
    variance_mm2 = np.where(new > SMOOTH_FROM * old, (new**2 - old**2) / 12, 0.0)  # of a box filter
    width, height, depth = grid.GetSize()
    whole, values = writable_volume((width, height, depth), sitk.sitkInt16)
    whole.CopyInformation(grid)
    per_slice = ct.GetSize()[0] * ct.GetSize()[1]
    step = max(1, int(SLAB_VOXELS / per_slice * old[2] / new[2]))
    for first in range(0, depth, step):
        slab = crop(grid, Box((0, 0, first), (width, height, min(step, depth - first))))
        near = crop(ct, _slices_round(slab, ct, KERNEL if variance_mm2[2] else 1))
        smooth = sitk.Cast(near, sitk.sitkFloat32)
        if variance_mm2.any():
            smooth = sitk.DiscreteGaussian(smooth, variance_mm2.tolist(), maximumKernelWidth=KERNEL)
        moved = sitk.Round(resample_to(smooth, slab, outside=AIR_HU))
        values[first : first + step] = sitk.GetArrayViewFromImage(moved)
    return whole


def _slices_round(slab: sitk.Image, ct: sitk.Image, margin: int) -> Box:
    """Return the slices of a CT that a slab of another grid lies in, and `margin` more on both sides."""
    ends = [ct.TransformPhysicalPointToContinuousIndex(corner)[2] for corner in corners_mm(slab)]
    first = max(0, int(np.floor(min(ends))) - margin)
    last = min(ct.GetSize()[2] - 1, int(np.ceil(max(ends))) + margin)
    return Box((0, 0, first), (*ct.GetSize()[:2], last - first + 1))


def scale_windows(hu: npt.NDArray[np.int16] | FloatArray, windows: tuple[Window, ...]) -> FloatArray:
    """Clip an array in HU to each window and scale it to [0, 1]: one channel a window.

    Args:
        hu: Shape (D, H, W), HU.
        windows: One a channel.

    Returns:
        Shape (C, D, H, W), float32, no longer in HU.

    >>> scale_windows(np.array([[[-1000.0, 25.0, 3000.0]]], dtype=np.float32), (Window(),))
    array([[[[0. , 0.5, 1. ]]]], dtype=float32)
    """
    values = hu.astype(np.float32)
    channels = [np.clip((values - w.low_hu) / (w.high_hu - w.low_hu), 0.0, 1.0) for w in windows]
    return np.stack(channels).astype(np.float32)


def to_array(sample: NetworkInput, settings: Preprocessing) -> FloatArray:
    """Return the whole case as the network's array (C, D, H, W)."""
    return scale_windows(array_of(sample.ct), settings.windows)
