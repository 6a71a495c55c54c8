"""Sites, forms and textures of synthetic lesions: what `synthetic_lesions` paints into a patch of CT."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from radiogen.phantoms.shapes import Point, Shape, Slices, Space, blur, capsule, occupancy, smooth_noise
from radiogen.volume import FloatArray

FORM_SHARES = {"round": 0.20, "lobulated": 0.21, "long": 0.14, "flat": 0.10, "irregular": 0.35}


@dataclass(frozen=True)
class LesionBlob:
    """One ellipsoid of a form: centre and radii in millimetres, and its own three axes."""

    center: Point
    radii: Point
    axes: npt.NDArray[np.float32]  # one a row, as (x, y, z)


@dataclass(frozen=True)
class LesionForm:
    """A union of blobs with a bumpy surface; radius_mm is that of the ball of its volume, roughly."""

    blobs: tuple[LesionBlob, ...]
    radius_mm: float
    bumps_mm: float
    roughness_mm: float

    @property
    def reach_mm(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Two corners (x, y, z) around the form."""
        extent = [np.sqrt(((b.axes * np.array(b.radii)[:, None]) ** 2).sum(axis=0)) for b in self.blobs]
        more = 1.5 * (self.bumps_mm + self.roughness_mm)
        low = np.min([np.array(b.center) - e for b, e in zip(self.blobs, extent, strict=True)], axis=0)
        high = np.max([np.array(b.center) + e for b, e in zip(self.blobs, extent, strict=True)], axis=0)
        return low - more, high + more


def draw_form(center: Point, radius_mm: float, site: str, rng: np.random.Generator) -> LesionForm:
    """Draw a form of about the volume of a ball of this radius: round, lobulated, long, flat or irregular."""
    name = "flat" if site == "fissure" else str(rng.choice(list(FORM_SHARES), p=list(FORM_SHARES.values())))
    bumps, rough = {
        "round": (0.05, 0.02),
        "lobulated": (rng.uniform(0.12, 0.3), 0.04),
        "long": (rng.uniform(0.04, 0.15), 0.04),
        "flat": (rng.uniform(0.02, 0.08), 0.03),
        "irregular": (rng.uniform(0.08, 0.25), rng.uniform(0.03, 0.1)),
    }[name]
    if name == "irregular":
        blobs = _draw_irregular(center, radius_mm, rng)
    else:
        stretch = {
            "long": (rng.uniform(1.5, 3.2), 1.0, rng.uniform(0.8, 1.2)),
            "flat": (1.0, rng.uniform(0.7, 1.2), rng.uniform(0.25, 0.45)),
        }.get(name, tuple(rng.uniform(0.85, 1.2, 3)))
        blobs = (_blob(center, radius_mm, stretch, rng),)
    return LesionForm(blobs, radius_mm, bumps * radius_mm, rough * radius_mm)


def _draw_irregular(center: Point, radius_mm: float, rng: np.random.Generator) -> tuple[LesionBlob, ...]:
    """Draw two to five overlapping ellipsoids, each against one that is there already."""
    count = int(rng.integers(2, 6))
    size = 1.2 * radius_mm / np.cbrt(count)
    blobs = [_blob(center, size, rng.uniform(0.7, 1.5, 3), rng)]
    for _ in range(count - 1):
        near = draw_blob(blobs, rng)
        towards = _draw_direction(rng)
        own = size * rng.uniform(0.5, 1.25)
        gap = rng.uniform(0.6, 1.0) * (own + np.cbrt(np.prod(near.radii)))
        place = np.array(near.center) + gap * towards
        blobs.append(_blob(place, own, rng.uniform(0.65, 1.5, 3), rng))
    return tuple(blobs)


def draw_blob(blobs: Sequence[LesionBlob], rng: np.random.Generator) -> LesionBlob:
    """Draw one of the blobs of a form."""
    return blobs[int(rng.integers(len(blobs)))]


def _draw_direction(rng: np.random.Generator) -> npt.NDArray[np.float64]:
    direction = rng.normal(size=3)
    return np.asarray(direction / np.linalg.norm(direction))


def _draw_surface(
    form: LesionForm, rng: np.random.Generator
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Draw a point on the surface of a form: the centre of its blob, and the way from there, in mm."""
    blob = draw_blob(form.blobs, rng)
    return np.array(blob.center), (_draw_direction(rng) * np.array(blob.radii)) @ blob.axes


def _blob(
    center: npt.ArrayLike, radius_mm: float, stretch: npt.ArrayLike, rng: np.random.Generator
) -> LesionBlob:
    """Return a randomly turned ellipsoid of the volume of a ball of this radius."""
    ratio = np.asarray(stretch, dtype=float)
    axes = np.linalg.qr(rng.normal(size=(3, 3)))[0].astype(np.float32)
    return LesionBlob(_point(center), _point(radius_mm * ratio / np.cbrt(np.prod(ratio))), axes)


def _point(values: npt.ArrayLike) -> Point:
    x, y, z = np.asarray(values, dtype=float).tolist()
    return x, y, z


def form_distance(space: Space, form: LesionForm, rng: np.random.Generator) -> FloatArray:
    """Return the distance to the surface of a form in mm, negative inside, about true near it."""
    union = blob_distance(space, form.blobs[0])
    for blob in form.blobs[1:]:
        np.minimum(union, blob_distance(space, blob), out=union)
    union += np.float32(form.bumps_mm) * smooth_noise(space, 0.9 * form.radius_mm, rng)
    if form.radius_mm > 4:
        union += np.float32(form.roughness_mm) * smooth_noise(space, 0.35 * form.radius_mm, rng)
    return union


def blob_distance(space: Space, blob: LesionBlob) -> FloatArray:
    """Return the distance to the surface of an ellipsoid in mm, to first order."""
    x, y, z = (axis - np.float32(c) for axis, c in zip((space.x, space.y, space.z), blob.center, strict=True))
    size = np.full(space.shape, 1e-6, dtype=np.float32)
    for (a, b, c), radius in zip(blob.axes, blob.radii, strict=True):
        along = (a * x + b * y) / np.float32(radius) + (c / np.float32(radius)) * z
        along *= along
        size += along
    np.sqrt(size, out=size)
    length = np.sqrt(x * x + y * y + z * z)
    return np.asarray(length * (1 - 1 / size), dtype=np.float32)


def draw_strands(space: Space, form: LesionForm, rng: np.random.Generator) -> list[Shape]:
    """Draw spicules: strands from the surface outwards, too thin to belong to the mask."""
    strands = []
    for _ in range(int(rng.integers(4, 25))):
        center, surface = _draw_surface(form, rng)
        end = center + surface * (1 + rng.uniform(2, 12) / np.linalg.norm(surface))
        strands.append(capsule(space, center + 0.75 * surface, end, float(rng.uniform(0.4, 1.0))))
    return strands


def draw_core(form: LesionForm, rng: np.random.Generator) -> LesionBlob:
    """Draw the solid core of a part-solid lesion."""
    blob = form.blobs[0]
    shift = 0.35 * form.radius_mm * rng.uniform(-1, 1, 3)
    place = np.array(blob.center) + shift
    return _blob(place, form.radius_mm * rng.uniform(0.3, 0.7), rng.uniform(0.7, 1.4, 3), rng)


def draw_companion(space: Space, form: LesionForm, rng: np.random.Generator) -> FloatArray:
    """Return the distance to something dense against the lesion: a thick vessel, or collapsed lung."""
    center, surface = _draw_surface(form, rng)
    place = _point(center + rng.uniform(0.8, 1.1) * surface)
    if rng.random() < 0.6:
        thick = rng.uniform(1.5, 4.5)
        radii = (thick, thick, rng.uniform(8, 14))
        return blob_distance(space, LesionBlob(place, radii, _blob(place, 1, (1, 1, 1), rng).axes))
    size = rng.uniform(0.5, 1.1) * form.radius_mm
    lobe = _blob(place, size, (1.4, 1.0, rng.uniform(0.3, 0.8)), rng)
    return blob_distance(space, lobe) + np.float32(0.2 * size) * smooth_noise(space, size, rng)


TISSUE_HU = (-150.0, 170.0)
LUNG_HU = (-1000.0, -700.0)
LEAST_PAIRS = 150


@dataclass(frozen=True)
class NoiseModel:
    """Noise of a patch: standard deviation, and the sigma (z, y, x) of the Gaussian that correlates it."""

    hu: float
    sigma_voxels: tuple[float, float, float]


def measure_noise(hu: FloatArray) -> NoiseModel:
    """Estimate noise from differences between neighbours in soft tissue, or in lung where there is none.

    White noise smoothed by a Gaussian of sigma s has the correlation q^(k k) at k voxels, with
    q = exp(-1 / (4 s s)), so the variances of differences at one and two voxels give s and the strength.
    Borders between organs count little: medians, the axis with the least, and a tenth off, which comes near
    the noise that a high-pass filter finds in muscle.
    """
    strengths, sigmas = [], []
    for axis in range(3):
        pairs = _neighbours(hu, axis, TISSUE_HU)
        if pairs.shape[1] < LEAST_PAIRS:
            pairs = _neighbours(hu, axis, LUNG_HU)
        if pairs.shape[1] < LEAST_PAIRS:
            strengths.append(15.0)
            sigmas.append(0.6)
            continue
        first, second = pairs[1] - pairs[0], pairs[2] - pairs[0]
        near = (1.4826 * float(np.median(np.abs(first)))) ** 2 + 1e-3
        ratio = (1.4826 * float(np.median(np.abs(second)))) ** 2 / near  # 1 + q + q^2 + q^3
        grid = np.linspace(0.01, 0.7, 40)
        q = float(np.interp(ratio, 1 + grid + grid**2 + grid**3, grid))
        strengths.append(float(np.sqrt(near / (2 * (1 - q)))))
        sigmas.append(float(np.sqrt(-1 / (4 * np.log(q)))))
    z, y, x = sigmas
    return NoiseModel(float(np.clip(0.9 * min(strengths), 0, 120)), (z, y, x))


def _neighbours(hu: FloatArray, axis: int, between: tuple[float, float]) -> FloatArray:
    """Return triples of voxels in a row that all lie between two HU: shape (3, pairs), thinned."""
    long = np.moveaxis(hu, axis, 0)[:, ::2, ::2]
    a, b, c = long[:-2:2], long[1:-1:2], long[2::2]
    low, high = between
    inside = (np.minimum(np.minimum(a, b), c) > low) & (np.maximum(np.maximum(a, b), c) < high)
    return np.stack([a[inside], b[inside], c[inside]])


def draw_noise(shape: tuple[int, ...], noise: NoiseModel, rng: np.random.Generator) -> FloatArray:
    """Draw noise of this strength and correlation."""
    field = rng.standard_normal(shape, dtype=np.float32)
    field = blur(field, noise.sigma_voxels)
    return np.asarray(field * np.float32(noise.hu / max(float(field.std()), 1e-6)), dtype=np.float32)


def solid_tissue(
    space: Space, distance: FloatArray, radius_mm: float, beside_hu: float, rng: np.random.Generator
) -> FloatArray:
    """Draw the HU of a solid lesion: faint texture; some have a dark core, cavity, bright rim or calcium.

    `distance` is in millimetres to the lesion's surface, negative inside. Half of all lesions are nearly as
    dense as the soft tissue around them (`beside_hu`): the border to such tissue is what has to be learned.
    """
    is_alike = rng.random() < 0.5
    base = rng.normal(beside_hu, 10) if is_alike else rng.uniform(-20, 110)
    value = np.full(space.shape, np.clip(base, -20, 110), dtype=np.float32)
    coarse, fine = 14 * rng.random() ** 2, 6 * rng.random() ** 2
    value += np.float32(1 + coarse) * smooth_noise(space, max(0.7 * radius_mm, 3), rng)
    if radius_mm > 5:
        value += np.float32(fine) * smooth_noise(space, 5, rng)
    np.clip(value, -60, 160, out=value)
    draws = rng.random(4)
    core = distance + np.float32(0.25 * radius_mm) * smooth_noise(space, 0.6 * radius_mm, rng)
    if radius_mm > 9 and draws[0] < 0.3:
        soft = occupancy(core + np.float32(rng.uniform(0.25, 0.55) * radius_mm), 4)
        value -= np.float32(rng.uniform(15, 50)) * soft
    if draws[1] < 0.12:
        width = rng.uniform(2, max(0.3 * radius_mm, 3))
        value += np.float32(rng.uniform(15, 60)) * occupancy(np.abs(distance + width) - width, 2)
    if radius_mm > 6 and draws[2] < 0.08:
        wall = rng.uniform(0.4, 0.85) * radius_mm
        hole = occupancy(core + np.float32(wall), 1.5 * space.edge_mm)
        value += hole * (np.float32(rng.uniform(-980, -800)) - value)
    if draws[3] < 0.1:
        calcium = smooth_noise(space, 4, rng) - np.float32(rng.uniform(1.8, 2.6))
        value += np.float32(rng.uniform(150, 450)) * np.clip(2 * calcium, 0, 1) * (distance < -2)
    return value


def glass_share(space: Space, around_hu: float, rng: np.random.Generator) -> FloatArray:
    """Return the share of the air that ground glass fills with tissue."""
    target = max(rng.uniform(-750, -350), around_hu + 110)
    share = (target - around_hu) / max(30.0 - around_hu, 200.0)
    texture = 1 + np.float32(rng.uniform(0.05, 0.25)) * smooth_noise(space, 4, rng)
    return np.asarray(np.clip(np.float32(share) * texture, 0.08, 0.95), dtype=np.float32)


Mask = npt.NDArray[np.bool_]
LEAST_LUNG_ML = 3.0
VESSEL_HU = -450.0  # mean over 2 x 2 x 2 voxels inside a lung: a vessel or the hilum
SITE_SHARES = {"free": 0.26, "vessel": 0.14, "wall": 0.36, "fissure": 0.06, "hilum": 0.18}
SOFT_TISSUE_HU = (-150.0, 250.0)
# A network that had met no tumour centred outside the lungs stopped a few mm beyond them, whatever the box.
BEYOND_SHARE = 0.4  # of the tumours that are large enough
BEYOND_LEAST_MM = 10.0  # radius of such a tumour
BEYOND_MOST_MM = 20.0  # how far its centre may lie outside the lungs


@dataclass(frozen=True)
class LungSurvey:
    """A patch on half its grid: depth in the lungs, HU, and where a lesion may have its centre."""

    room_mm: FloatArray  # distance to the lungs' surface, negative inside
    hu: FloatArray
    free: Mask  # lung where a lesion may have its centre
    beyond: Mask | None  # soft tissue near the lungs where a tumour may have its centre
    space: Space  # of the patch, millimetres


def survey_lungs(
    hu: FloatArray,
    lungs: Mask,
    spacing_mm: tuple[float, float, float],
    taken: Mask | None,
    central: bool = False,
    outside: bool = True,
) -> LungSurvey | None:
    """Measure a patch; None where it holds too little lung. `central`: only centres in its inner half."""
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
    axes = [
        np.arange(n, dtype=np.float32) * np.float32(s)
        for n, s in zip(hu.shape[::-1], spacing_mm, strict=True)
    ]
    space = Space(axes[0][None, None], axes[1][None, :, None], axes[2][:, None, None])
    half_hu, (least, most) = _halve(hu), SOFT_TISSUE_HU
    beyond = (room > 0) & (room < BEYOND_MOST_MM) & (half_hu > least) & (half_hu < most)
    if central:
        half = tuple(slice(n // 4, n - n // 4) for n in free.shape)
        middle = np.zeros_like(free)
        middle[half] = True
        free, beyond = free & middle if (free & middle).any() else free, beyond & middle
    return LungSurvey(room, half_hu, free, beyond if outside else None, space)


def room_around(survey: LungSurvey, where: Slices) -> FloatArray:
    """Return the distance to the lungs' surface in mm, negative inside, on the patch's own grid."""
    field: npt.NDArray[Any] = survey.room_mm
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
    survey: LungSurvey, radius_mm: float, solid: bool, rng: np.random.Generator
) -> tuple[str, Point]:
    """Draw a site and the centre of the lesion there, as (x, y, z) in the patch's millimetres.

    Over half of the sites touch the lungs' surface: the border to tissue is what has to be learned. Where a
    patch has no such site, the centre lies at the wall, or else anywhere in lung.
    """
    site = str(rng.choice(list(SITE_SHARES), p=list(SITE_SHARES.values())))
    is_large = solid and radius_mm >= BEYOND_LEAST_MM
    if is_large and survey.beyond is not None and rng.random() < BEYOND_SHARE:
        found = np.flatnonzero(survey.beyond & (survey.room_mm < 0.7 * radius_mm))
        if len(found):
            return "beyond", _draw_point(survey, found, rng)
    depth = -survey.room_mm
    dense = survey.hu > VESSEL_HU
    allowed = {
        "free": depth > 1.15 * radius_mm,
        "fissure": depth > 0.6 * radius_mm,
        "vessel": dense & (depth > 4),
        "wall": depth < rng.uniform(0.3, 1.0) * radius_mm,
        "hilum": dense & (depth < 10),
    }[site]
    found = np.flatnonzero(allowed & survey.free)
    if len(found) == 0:
        site, found = "wall", np.flatnonzero(survey.free & (depth < max(radius_mm, 5)))
    if len(found) == 0:
        site, found = "free", np.flatnonzero(survey.free)
    return site, _draw_point(survey, found, rng)


def _draw_point(survey: LungSurvey, found: npt.NDArray[np.int64], rng: np.random.Generator) -> Point:
    place = np.array(np.unravel_index(int(rng.choice(found)), survey.room_mm.shape))
    z, y, x = (2 * place + rng.uniform(0, 1, 3)) * survey.space.step_mm[::-1]
    return float(x), float(y), float(z)


def _halve(array: FloatArray) -> FloatArray:
    d, h, w = (n // 2 for n in array.shape)
    even = array[: 2 * d, : 2 * h, : 2 * w]
    pairs = even[::2] + even[1::2]
    pairs = pairs[:, ::2] + pairs[:, 1::2]
    return np.asarray((pairs[:, :, ::2] + pairs[:, :, 1::2]) / np.float32(8), dtype=np.float32)
