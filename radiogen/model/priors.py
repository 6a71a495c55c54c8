"""Attention priors: one channel in [0, 1] that says where RA-Seg should look."""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from radiogen.errors import ConfigError
from radiogen.volume import Box, FloatArray, array_of, bounding_box, crop

PriorName = Literal["box", "lungs", "mask", "none"]
PRIORS: tuple[str, ...] = get_args(PriorName)
Look = PriorName | Literal["auto"]  # auto: the lungs first, then a box round each lesion that was found
AUTO_PRIORS: tuple[PriorName, ...] = ("lungs", "box")  # what it takes
# Who says where to look, unless a person drew it (`human`): the truth, the program, or nobody.
PROMPT_OF: dict[Look, str] = {
    "auto": "auto",
    "box": "oracle",
    "mask": "oracle",
    "lungs": "auto",
    "none": "none",
}


@dataclass(frozen=True)
class BoxMm:
    """A box in space: two opposite corners, LPS millimetres, `low` below `high` on each axis."""

    low: tuple[float, float, float]
    high: tuple[float, float, float]


def parse_box(text: str) -> BoxMm:
    """A box from `x0,y0,z0,x1,y1,z1` in LPS millimetres; the corners may come in any order.

    Raises:
        ConfigError: These are not six numbers, or the box is flat.

    >>> parse_box("10,0,5,-10,20,15")
    BoxMm(low=(-10.0, 0.0, 5.0), high=(10.0, 20.0, 15.0))
    """
    try:
        numbers = np.array([float(part) for part in text.split(",")]).reshape(2, 3)
    except ValueError as error:
        raise ConfigError(f"--box {text}", "is not six numbers", "write x0,y0,z0,x1,y1,z1 in mm") from error
    low, high = numbers.min(axis=0), numbers.max(axis=0)
    if not np.isfinite(numbers).all() or (low >= high).any():
        raise ConfigError(f"--box {text}", "is flat or not finite", "give two opposite corners in mm")
    return BoxMm(_triple(low), _triple(high))


def box_round(mask: sitk.Image, label: int) -> BoxMm:
    """The box round one lesion of a mask, to the outer edges of its voxels.

    Raises:
        ConfigError: The mask has no such label.
    """
    z, y, x = np.nonzero(array_of(mask) == label)
    if x.size == 0:
        raise ConfigError(f"lesion {label}", "is not in the mask", "name a lesion that is there")
    low = np.array([x.min(), y.min(), z.min()]) - 0.5
    high = np.array([x.max(), y.max(), z.max()]) + 0.5
    corners = [
        mask.TransformContinuousIndexToPhysicalPoint((float(i), float(j), float(k)))
        for i in (low[0], high[0])
        for j in (low[1], high[1])
        for k in (low[2], high[2])
    ]
    return BoxMm(_triple(np.min(corners, axis=0)), _triple(np.max(corners, axis=0)))


def box_voxels(box: BoxMm, grid: sitk.Image, margin_mm: float = 0.0) -> npt.NDArray[np.bool_]:
    """Which voxels of a grid have their centre in a box; shape (D, H, W), any direction."""
    size = grid.GetSize()
    step = np.array(grid.GetDirection()).reshape(3, 3) * np.array(grid.GetSpacing())
    inside = np.ones(size[::-1], dtype=bool)
    for axis in range(3):
        x, y, z = (step[axis, i] * np.arange(size[i]) for i in range(3))
        mm = grid.GetOrigin()[axis] + z[:, None, None] + y[None, :, None] + x[None, None, :]
        inside &= (mm >= box.low[axis] - margin_mm) & (mm <= box.high[axis] + margin_mm)
    return inside


def grown(box: BoxMm, margin_mm: float) -> BoxMm:
    """A box with a margin on all sides."""
    return BoxMm(_triple(np.array(box.low) - margin_mm), _triple(np.array(box.high) + margin_mm))


def box_region(box: BoxMm, grid: sitk.Image, margin_mm: float = 0.0) -> Box | None:
    """The smallest part of a grid that holds every voxel with its centre in a box; None if there is none."""
    low, high = np.array(box.low) - margin_mm, np.array(box.high) + margin_mm
    corners = [(x, y, z) for x in (low[0], high[0]) for y in (low[1], high[1]) for z in (low[2], high[2])]
    indices = np.array([grid.TransformPhysicalPointToContinuousIndex(corner) for corner in corners])
    first = np.clip(np.floor(indices.min(axis=0)), 0, np.array(grid.GetSize()) - 1).astype(int)
    last = np.clip(np.ceil(indices.max(axis=0)), 0, np.array(grid.GetSize()) - 1).astype(int)
    near = Box(_whole(first), _whole(last - first + 1))
    voxels = box_voxels(box, crop(grid, near), margin_mm)
    found = bounding_box(sitk.GetImageFromArray(voxels.astype(np.uint8)))
    return None if found is None else Box(_whole(np.add(found.start, first)), found.size)


def box_prior(box: BoxMm, grid: sitk.Image) -> FloatArray:
    """1 inside a box, 0 outside; shape (D, H, W).

    Raises:
        ConfigError: The box holds no voxel of the grid.
    """
    inside = box_voxels(box, grid)
    if not inside.any():
        raise ConfigError(
            f"box {box.low} to {box.high} mm", "holds no voxel of the lungs' box", "give LPS millimetres"
        )
    return inside.astype(np.float32)


def mask_prior(mask: sitk.Image) -> FloatArray:
    """1 where a mask is not 0; shape (D, H, W)."""
    prior: FloatArray = (array_of(mask) != 0).astype(np.float32)
    return prior


def _whole(values: npt.NDArray[np.int64]) -> tuple[int, int, int]:
    x, y, z = (int(value) for value in values)
    return x, y, z


def _triple(values: npt.NDArray[np.float64]) -> tuple[float, float, float]:
    x, y, z = (float(value) for value in values)
    return x, y, z
