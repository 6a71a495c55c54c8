"""Turn prompts into the attention prior of RA-Seg, one channel in [0, 1].

The box that a user gives becomes a prior in `box_voxels`; the lungs and a mask are priors as they are; for
the prior `none` it is 1 everywhere. Other boxes are made where they are needed, on the network's grid:

- of an automatic candidate: `_infer_box` in `segmentation.volume`;
- in training, shifted and loosened as a person would draw it: `draw_box` in `training.augmentation`; a patch
  without a lesion gets lungs or nothing in place of a box (`training.patches`);
- of the true lesion, exact: `training.validation`;
- of the region that is measured: `make_prior` in `features.deep`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from radiogen.errors import ConfigError
from radiogen.volume import Box, array_of, bounding_box, crop

PriorName = Literal["box", "points", "lungs", "mask", "none"]
# auto: the lungs first, then a box round each candidate that was found
PriorChoice = PriorName | Literal["auto"]
AUTO_PRIORS: tuple[PriorName, ...] = ("lungs", "box")  # which a model needs for auto
POINT_VOXELS = 2.0  # radius of the ball that stands for a click
# The source of the prompt, unless a person drew it (`human`): the true outline, the program, or none.
PROMPT_OF: dict[PriorChoice, str] = {
    "auto": "auto",
    "box": "oracle",
    "points": "oracle",
    "mask": "oracle",
    "lungs": "auto",
    "none": "none",
}


PointMm = tuple[float, float, float]  # LPS millimetres
POINT_HINT = "write x,y,z in LPS mm, as radiogen view shows it"


@dataclass(frozen=True)
class BoxMm:
    """A box in space: two opposite corners, LPS millimetres, `low` below `high` on each axis."""

    low: tuple[float, float, float]
    high: tuple[float, float, float]


def parse_box(text: str) -> BoxMm:
    """Parse a box from `x0,y0,z0,x1,y1,z1` in LPS millimetres; the corners may come in any order.

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


def parse_point(text: str) -> PointMm:
    """Parse a point from `x,y,z` in LPS millimetres.

    Raises:
        ConfigError: These are not three finite numbers.

    >>> parse_point("-62.5,10,-120")
    (-62.5, 10.0, -120.0)
    """
    try:
        point = _triple(np.array([float(part) for part in text.split(",")]).reshape(3))
    except ValueError as error:
        raise ConfigError(f"--point {text}", "is not three numbers", POINT_HINT) from error
    if not np.isfinite(point).all():
        raise ConfigError(f"--point {text}", "is not finite", POINT_HINT)
    return point


def point_within(mask: sitk.Image, label: int) -> PointMm:
    """Return the point of a lesion that lies deepest in it, LPS millimetres.

    Raises:
        ConfigError: The mask has no such label.
    """
    lesion = mask == label
    box = bounding_box(lesion)
    if box is None:
        raise ConfigError(f"lesion {label}", "is not in the mask", "name a lesion that is there")
    # One voxel of background all round, or a lesion at the edge of its mask would have no depth there.
    padded = sitk.ConstantPad(crop(lesion, box), [1, 1, 1], [1, 1, 1], 0)
    depth = sitk.SignedMaurerDistanceMap(padded, insideIsPositive=True, squaredDistance=False)
    z, y, x = np.unravel_index(int(np.argmax(array_of(depth))), depth.GetSize()[::-1])
    return _triple(np.array(padded.TransformIndexToPhysicalPoint((int(x), int(y), int(z)))))


def box_round(mask: sitk.Image, label: int) -> BoxMm:
    """Return the box round one lesion of a mask, to the outer edges of its voxels.

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
    """Turn a box into a prior: True for voxels of a grid whose centre lies in it; shape (D, H, W).

    Works for any direction of the grid; `margin_mm` widens the box on all sides.
    """
    size = grid.GetSize()
    step = np.array(grid.GetDirection()).reshape(3, 3) * np.array(grid.GetSpacing())
    inside = np.ones(size[::-1], dtype=bool)
    for axis in range(3):
        x, y, z = (step[axis, i] * np.arange(size[i]) for i in range(3))
        mm = grid.GetOrigin()[axis] + z[:, None, None] + y[None, :, None] + x[None, None, :]
        inside &= (mm >= box.low[axis] - margin_mm) & (mm <= box.high[axis] + margin_mm)
    return inside


def voxels_within(part: sitk.Image, grid: sitk.Image) -> npt.NDArray[np.bool_]:
    """Return the voxels of a grid (D, H, W) whose centre lies in another grid of the same directions."""
    first = part.TransformPhysicalPointToContinuousIndex(grid.GetOrigin())
    ratio = np.array(grid.GetSpacing()) / np.array(part.GetSpacing())
    x, y, z = (
        np.abs(start + step * np.arange(count) - (length - 1) / 2) <= length / 2
        for start, step, count, length in zip(first, ratio, grid.GetSize(), part.GetSize(), strict=True)
    )
    return np.asarray(z[:, None, None] & y[None, :, None] & x[None, None, :])


def point_prior(
    shape: Sequence[int], voxel: Sequence[float], radius: float = POINT_VOXELS
) -> npt.NDArray[np.float32]:
    """Return the prior of a click at a voxel (z, y, x) of an array: 1 in a ball round it, 0 elsewhere.

    The ball is counted in voxels, whatever their size: a network knows it by its looks.
    """
    axes = np.meshgrid(*(np.arange(n) for n in shape), indexing="ij", sparse=True)
    distance2 = sum((axis - at) ** 2 for axis, at in zip(axes, voxel, strict=True))
    return np.asarray(distance2 <= radius**2, dtype=np.float32)


def grown(box: BoxMm, margin_mm: float) -> BoxMm:
    """Widen a box by a margin on all sides."""
    return BoxMm(_triple(np.array(box.low) - margin_mm), _triple(np.array(box.high) + margin_mm))


def box_region(box: BoxMm, grid: sitk.Image, margin_mm: float = 0.0) -> Box | None:
    """Return the smallest part of a grid that holds every voxel with its centre in a box, if there is one.

    Only the neighbourhood of the box is tested, since a grid of doubles of a whole CT would take gigabytes.
    """
    low, high = np.array(box.low) - margin_mm, np.array(box.high) + margin_mm
    corners = [(x, y, z) for x in (low[0], high[0]) for y in (low[1], high[1]) for z in (low[2], high[2])]
    indices = np.array([grid.TransformPhysicalPointToContinuousIndex(corner) for corner in corners])
    first = np.clip(np.floor(indices.min(axis=0)), 0, np.array(grid.GetSize()) - 1).astype(int)
    last = np.clip(np.ceil(indices.max(axis=0)), 0, np.array(grid.GetSize()) - 1).astype(int)
    near = Box(_whole(first), _whole(last - first + 1))
    voxels = box_voxels(box, crop(grid, near), margin_mm)
    found = bounding_box(sitk.GetImageFromArray(voxels.astype(np.uint8)))
    return None if found is None else Box(_whole(np.add(found.start, first)), found.size)


def _whole(values: npt.NDArray[np.int64]) -> tuple[int, int, int]:
    x, y, z = (int(value) for value in values)
    return x, y, z


def _triple(values: npt.NDArray[np.float64]) -> tuple[float, float, float]:
    x, y, z = (float(value) for value in values)
    return x, y, z
