"""The shapes of made lesions in a patch of CT: round, lobulated, long, flat, or grown together from blobs."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from radiogen.phantoms.shapes import Point, Shape, Space, capsule, smooth_noise
from radiogen.volume import FloatArray

FORMS = {"round": 0.20, "lobulated": 0.21, "long": 0.14, "flat": 0.10, "irregular": 0.35}


@dataclass(frozen=True)
class Blob:
    """One ellipsoid: its centre, its radii in millimetres, and its own three axes."""

    center: Point
    radii: Point
    axes: npt.NDArray[np.float32]  # one a row, as (x, y, z)


@dataclass(frozen=True)
class Form:
    """A union of blobs with a bumpy surface; radius_mm is that of the ball of its volume, roughly."""

    blobs: tuple[Blob, ...]
    radius_mm: float
    bumps_mm: float
    roughness_mm: float

    @property
    def reach_mm(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Two corners (x, y, z) that hold the form."""
        extent = [np.sqrt(((b.axes * np.array(b.radii)[:, None]) ** 2).sum(axis=0)) for b in self.blobs]
        more = 1.5 * (self.bumps_mm + self.roughness_mm)
        low = np.min([np.array(b.center) - e for b, e in zip(self.blobs, extent, strict=True)], axis=0)
        high = np.max([np.array(b.center) + e for b, e in zip(self.blobs, extent, strict=True)], axis=0)
        return low - more, high + more


def draw_form(center: Point, radius_mm: float, site: str, generator: np.random.Generator) -> Form:
    """One form of about the volume of a ball of this radius."""
    name = "flat" if site == "fissure" else str(generator.choice(list(FORMS), p=list(FORMS.values())))
    bumps, rough = {
        "round": (0.05, 0.02),
        "lobulated": (generator.uniform(0.12, 0.3), 0.04),
        "long": (generator.uniform(0.04, 0.15), 0.04),
        "flat": (generator.uniform(0.02, 0.08), 0.03),
        "irregular": (generator.uniform(0.08, 0.25), generator.uniform(0.03, 0.1)),
    }[name]
    if name == "irregular":
        blobs = _grow_together(center, radius_mm, generator)
    else:
        stretch = {
            "long": (generator.uniform(1.5, 3.2), 1.0, generator.uniform(0.8, 1.2)),
            "flat": (1.0, generator.uniform(0.7, 1.2), generator.uniform(0.25, 0.45)),
        }.get(name, tuple(generator.uniform(0.85, 1.2, 3)))
        blobs = (_blob(center, radius_mm, stretch, generator),)
    return Form(blobs, radius_mm, bumps * radius_mm, rough * radius_mm)


def _grow_together(center: Point, radius_mm: float, generator: np.random.Generator) -> tuple[Blob, ...]:
    count = int(generator.integers(2, 6))
    size = 1.2 * radius_mm / np.cbrt(count)
    blobs = [_blob(center, size, generator.uniform(0.7, 1.5, 3), generator)]
    for _ in range(count - 1):
        near = blobs[int(generator.integers(len(blobs)))]
        towards = generator.normal(size=3)
        towards /= np.linalg.norm(towards)
        own = size * generator.uniform(0.5, 1.25)
        gap = generator.uniform(0.6, 1.0) * (own + np.cbrt(np.prod(near.radii)))
        place = np.array(near.center) + gap * towards
        blobs.append(
            _blob(
                (float(place[0]), float(place[1]), float(place[2])),
                own,
                generator.uniform(0.65, 1.5, 3),
                generator,
            )
        )
    return tuple(blobs)


def _blob(center: Point, radius_mm: float, stretch: npt.ArrayLike, generator: np.random.Generator) -> Blob:
    ratio = np.asarray(stretch, dtype=float)
    x, y, z = (radius_mm * ratio / np.cbrt(np.prod(ratio))).tolist()
    axes = np.linalg.qr(generator.normal(size=(3, 3)))[0].astype(np.float32)
    return Blob(center, (x, y, z), axes)


def form_distance(space: Space, form: Form, generator: np.random.Generator) -> FloatArray:
    """Distance to the surface of a form in millimetres, negative inside, about true near it."""
    union = blob_distance(space, form.blobs[0])
    for blob in form.blobs[1:]:
        np.minimum(union, blob_distance(space, blob), out=union)
    union += np.float32(form.bumps_mm) * smooth_noise(space, 0.9 * form.radius_mm, generator)
    if form.radius_mm > 4:
        union += np.float32(form.roughness_mm) * smooth_noise(space, 0.35 * form.radius_mm, generator)
    return union


def blob_distance(space: Space, blob: Blob) -> FloatArray:
    """Distance to the surface of an ellipsoid, to first order."""
    x, y, z = (axis - np.float32(c) for axis, c in zip((space.x, space.y, space.z), blob.center, strict=True))
    size = np.full(space.shape, 1e-6, dtype=np.float32)
    for (a, b, c), radius in zip(blob.axes, blob.radii, strict=True):
        along = (a * x + b * y) / np.float32(radius) + (c / np.float32(radius)) * z
        along *= along
        size += along
    np.sqrt(size, out=size)
    length = np.sqrt(x * x + y * y + z * z)
    return np.asarray(length * (1 - 1 / size), dtype=np.float32)


def draw_strands(space: Space, form: Form, generator: np.random.Generator) -> list[Shape]:
    """Spicules: thin strands from the surface outwards; too thin to belong to the mask."""
    strands = []
    for _ in range(int(generator.integers(4, 25))):
        blob = form.blobs[int(generator.integers(len(form.blobs)))]
        along = generator.normal(size=3)
        along /= np.linalg.norm(along)
        surface = (along * np.array(blob.radii)) @ blob.axes
        start = np.array(blob.center) + 0.75 * surface
        end = np.array(blob.center) + surface * (1 + generator.uniform(2, 12) / np.linalg.norm(surface))
        strands.append(capsule(space, start, end, float(generator.uniform(0.4, 1.0))))
    return strands


def draw_core(form: Form, generator: np.random.Generator) -> Blob:
    """The solid core of a part-solid lesion."""
    blob = form.blobs[0]
    shift = 0.35 * form.radius_mm * generator.uniform(-1, 1, 3)
    x, y, z = (np.array(blob.center) + shift).tolist()
    return _blob(
        (x, y, z), form.radius_mm * generator.uniform(0.3, 0.7), generator.uniform(0.7, 1.4, 3), generator
    )


def draw_companion(space: Space, form: Form, generator: np.random.Generator) -> FloatArray:
    """Distance to something dense against the lesion: a thick vessel, or collapsed lung."""
    blob = form.blobs[int(generator.integers(len(form.blobs)))]
    along = generator.normal(size=3)
    along /= np.linalg.norm(along)
    surface = (along * np.array(blob.radii)) @ blob.axes
    x, y, z = (np.array(blob.center) + generator.uniform(0.8, 1.1) * surface).tolist()
    if generator.random() < 0.6:
        thick = generator.uniform(1.5, 4.5)
        vessel = Blob(
            (x, y, z),
            (thick, thick, generator.uniform(8, 14)),
            _blob((x, y, z), 1, (1, 1, 1), generator).axes,
        )
        return blob_distance(space, vessel)
    size = generator.uniform(0.5, 1.1) * form.radius_mm
    lobe = _blob((x, y, z), size, (1.4, 1.0, generator.uniform(0.3, 0.8)), generator)
    return blob_distance(space, lobe) + np.float32(0.2 * size) * smooth_noise(space, size, generator)
