"""Where a made lesion may sit in a patch of CT: free, on a vessel, at the wall or hilum, beyond the lungs."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from radiogen.phantoms.shapes import Point, Slices, Space
from radiogen.volume import FloatArray

Lungs = npt.NDArray[np.bool_]
LEAST_LUNG_ML = 3.0
VESSEL_HU = -450.0  # mean over 2 x 2 x 2 voxels inside a lung: a vessel or the hilum
SITES = {"free": 0.26, "vessel": 0.14, "wall": 0.36, "fissure": 0.06, "hilum": 0.18}
SOFT_TISSUE_HU = (-150.0, 250.0)
BEYOND = 0.4  # share of the tumours that are large enough whose middle lies in mediastinum or chest wall
BEYOND_LEAST_MM = 10.0  # radius of such a tumour
BEYOND_MOST_MM = 20.0  # how far its middle may lie outside the lungs


@dataclass(frozen=True)
class Ground:
    """A patch on half its grid: how deep its voxels lie in the lungs, and how dense they are."""

    room_mm: FloatArray  # distance to the lungs' surface, negative inside
    hu: FloatArray
    free: Lungs  # lung where a lesion may have its centre
    beyond: Lungs | None  # soft tissue near the lungs where a tumour may have it
    space: Space  # of the patch, millimetres


def survey(
    hu: FloatArray,
    lungs: Lungs,
    spacing_mm: tuple[float, float, float],
    taken: Lungs | None,
    central: bool = False,
    outside: bool = True,
) -> Ground | None:
    """Measure a patch; None where it holds too little lung. `central`: centres in its inner half, if any."""
    allowed = lungs if taken is None else lungs & ~taken
    if np.count_nonzero(allowed) * np.prod(spacing_mm) / 1000 < LEAST_LUNG_ML or min(hu.shape) < 4:
        return None
    inside = _halve(lungs.astype(np.float32)) > 0.5
    free = _halve(allowed.astype(np.float32)) > 0.75
    if not free.any():
        return None
    step = 2 * np.array(spacing_mm[::-1])
    room = -np.asarray(ndimage.distance_transform_edt(inside, step), dtype=np.float32)
    if not inside.all():
        room += np.asarray(ndimage.distance_transform_edt(~inside, step), dtype=np.float32)
        room += np.where(inside, 0.5, -0.5).astype(np.float32) * np.float32(np.cbrt(np.prod(step)))
    else:
        room = np.full_like(room, -1000)
    (x, y, z), (d, h, w) = spacing_mm, hu.shape
    space = Space(
        (np.arange(w, dtype=np.float32) * x)[None, None],
        (np.arange(h, dtype=np.float32) * y)[None, :, None],
        (np.arange(d, dtype=np.float32) * z)[:, None, None],
    )
    half_hu, (least, most) = _halve(hu), SOFT_TISSUE_HU
    beyond = (room > 0) & (room < BEYOND_MOST_MM) & (half_hu > least) & (half_hu < most)
    if central:
        half = tuple(slice(n // 4, n - n // 4) for n in free.shape)
        middle = np.zeros_like(free)
        middle[half] = True
        free, beyond = free & middle if (free & middle).any() else free, beyond & middle
    return Ground(room, half_hu, free, beyond if outside else None, space)


def room_around(ground: Ground, where: Slices) -> FloatArray:
    """Distance to the lungs' surface in millimetres, negative inside, on the patch's own grid."""
    field: npt.NDArray[Any] = ground.room_mm
    for axis, part in enumerate(where):
        place = (np.arange(part.start, part.stop, dtype=np.float32) - 0.5) / 2
        place = np.clip(place, 0, field.shape[axis] - 1)
        low = np.minimum(place.astype(int), max(field.shape[axis] - 2, 0))
        share = (place - low).reshape([-1 if a == axis else 1 for a in range(3)])
        left = np.take(field, low, axis)
        right = np.take(field, np.minimum(low + 1, field.shape[axis] - 1), axis)
        field = left + share * (right - left)
    return np.asarray(field, dtype=np.float32)


def draw_site(
    ground: Ground, radius_mm: float, solid: bool, generator: np.random.Generator
) -> tuple[str, Point]:
    """A site and the centre of the lesion there, as (x, y, z) in the patch's millimetres."""
    site = str(generator.choice(list(SITES), p=list(SITES.values())))
    large = solid and radius_mm >= BEYOND_LEAST_MM
    if large and ground.beyond is not None and generator.random() < BEYOND:
        found = np.flatnonzero(ground.beyond & (ground.room_mm < 0.7 * radius_mm))
        if len(found):
            return "beyond", _point(ground, found, generator)
    depth = -ground.room_mm
    dense = ground.hu > VESSEL_HU
    wanted = {
        "free": depth > 1.15 * radius_mm,
        "fissure": depth > 0.6 * radius_mm,
        "vessel": dense & (depth > 4),
        "wall": depth < generator.uniform(0.3, 1.0) * radius_mm,
        "hilum": dense & (depth < 10),
    }[site]
    found = np.flatnonzero(wanted & ground.free)
    if len(found) == 0:
        site, found = "wall", np.flatnonzero(ground.free & (depth < max(radius_mm, 5)))
    if len(found) == 0:
        site, found = "free", np.flatnonzero(ground.free)
    return site, _point(ground, found, generator)


def _point(ground: Ground, found: npt.NDArray[np.int64], generator: np.random.Generator) -> Point:
    place = np.array(np.unravel_index(int(generator.choice(found)), ground.room_mm.shape))
    z, y, x = (2 * place + generator.uniform(0, 1, 3)) * ground.space.step_mm[::-1]
    return float(x), float(y), float(z)


def _halve(array: FloatArray) -> FloatArray:
    d, h, w = (n // 2 for n in array.shape)
    even = array[: 2 * d, : 2 * h, : 2 * w]
    pairs = even[::2] + even[1::2]
    pairs = pairs[:, ::2] + pairs[:, 1::2]
    return np.asarray((pairs[:, :, ::2] + pairs[:, :, 1::2]) / np.float32(8), dtype=np.float32)
