"""Simple shapes with soft edges: distances to surfaces in millimetres, painted by partial volume."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from radiogen.volume import FloatArray

Distance = npt.NDArray[np.floating[Any]]
Point = tuple[float, float, float]
Slices = tuple[slice, slice, slice]
EVERYWHERE: Slices = (slice(None), slice(None), slice(None))


@dataclass(frozen=True)
class Space:
    """Where the voxel centres lie: three axes that broadcast to (z, y, x), in millimetres."""

    x: FloatArray  # (1, 1, X)
    y: FloatArray  # (1, Y, 1)
    z: FloatArray  # (Z, 1, 1)

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.z.shape[0], self.y.shape[1], self.x.shape[2]

    @property
    def step_mm(self) -> npt.NDArray[np.float64]:
        """Millimetres between voxel centres as (x, y, z)."""
        axes = (self.x.ravel(), self.y.ravel(), self.z.ravel())
        return np.array([float(axis[1] - axis[0]) for axis in axes])

    @property
    def edge_mm(self) -> float:
        """How wide an edge is blurred by the size of the voxels."""
        return float(np.cbrt(np.prod(self.step_mm)))

    def around(self, low: npt.ArrayLike, high: npt.ArrayLike) -> tuple[Slices, "Space"]:
        """Return the part of the space between two corners (x, y, z), and where it lies."""
        found = []
        for axis, a, b in zip((self.x, self.y, self.z), np.asarray(low), np.asarray(high), strict=True):
            found.append(slice(*np.searchsorted(axis.ravel(), (a, b)).tolist()))
        part = Space(self.x[:, :, found[0]], self.y[:, found[1]], self.z[found[2]])
        return (found[2], found[1], found[0]), part


@dataclass(frozen=True)
class Shape:
    """A solid: the distance to its surface in millimetres, negative inside, over a part of the space."""

    where: Slices
    distance: Distance


def ellipsoid(space: Space, center: Point, radii: Point, turn: float = 0.0, tilt: float = 0.0) -> Shape:
    """Return an ellipsoid, its first axis turned about z and then tilted up (radians)."""
    reach = max(radii) + 2 * space.edge_mm
    where, near = space.around([c - reach for c in center], [c + reach for c in center])
    x, y, z = near.x - center[0], near.y - center[1], near.z - center[2]
    x, y = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    x, z = x * np.cos(tilt) + z * np.sin(tilt), z * np.cos(tilt) - x * np.sin(tilt)
    # Scaled so that the surface is at 1: exact for a sphere, near enough to the distance for an ellipsoid.
    size = np.sqrt((x / radii[0]) ** 2 + (y / radii[1]) ** 2 + (z / radii[2]) ** 2) + 1e-6
    return Shape(where, (np.sqrt(x * x + y * y + z * z) * (1 - 1 / size)).astype(np.float32))


def column(
    space: Space, center: tuple[float, float], radii: tuple[float, float], span: tuple[float, float]
) -> Shape:
    """Return an upright elliptical column between two heights."""
    edge = 2 * space.edge_mm
    low = (center[0] - radii[0] - edge, center[1] - radii[1] - edge, span[0] - edge)
    high = (center[0] + radii[0] + edge, center[1] + radii[1] + edge, span[1] + edge)
    where, near = space.around(low, high)
    x, y = near.x - center[0], near.y - center[1]
    size = np.sqrt((x / radii[0]) ** 2 + (y / radii[1]) ** 2) + 1e-6
    side = np.sqrt(x * x + y * y) * (1 - 1 / size)
    ends = np.maximum(span[0] - near.z, near.z - span[1])
    return Shape(where, np.maximum(side, ends).astype(np.float32))


def capsule(space: Space, start: npt.ArrayLike, end: npt.ArrayLike, radius: float) -> Shape:
    """Return a tube with round ends."""
    a, b = np.asarray(start, dtype=np.float32), np.asarray(end, dtype=np.float32)
    reach = radius + 2 * space.edge_mm
    where, near = space.around(np.minimum(a, b) - reach, np.maximum(a, b) + reach)
    along = b - a
    x, y, z = near.x - a[0], near.y - a[1], near.z - a[2]
    share = (x * along[0] + y * along[1] + z * along[2]) / max(float(along @ along), 1e-6)
    share = np.clip(share, 0, 1)
    gap = (x - share * along[0]) ** 2 + (y - share * along[1]) ** 2 + (z - share * along[2]) ** 2
    return Shape(where, (np.sqrt(gap) - radius).astype(np.float32))


def occupancy(distance: Distance, edge_mm: float) -> FloatArray:
    """Return the share of each voxel that lies inside a surface, 0 to 1."""
    # A plane through a voxel's centre leaves half of it inside; the share falls linearly over one voxel.
    share: FloatArray = np.clip(0.5 - distance / np.float32(edge_mm), 0, 1)
    return share


def paint(hu: FloatArray, shape: Shape, value: float | FloatArray, edge_mm: float) -> None:
    """Fill a shape with HU, in place; voxels on its edge are mixed."""
    part = hu[shape.where]
    part += occupancy(shape.distance, edge_mm) * (value - part)


def carve(union: FloatArray, shape: Shape) -> None:
    """Add a shape to the distance of a union of shapes, in place."""
    part = union[shape.where]
    np.minimum(part, shape.distance, out=part)


def smooth_noise(space: Space, blob_mm: float, rng: np.random.Generator) -> FloatArray:
    """Return a smooth random field over a space, mean 0 and standard deviation about 1.

    Args:
        space: The voxels.
        blob_mm: How wide one blob is; never less than a voxel.
        rng: Random generator.
    """
    scales = np.maximum(blob_mm / space.step_mm[::-1], 1)
    coarse = [int(np.ceil(n / scale)) + 3 for n, scale in zip(space.shape, scales, strict=True)]
    field: npt.NDArray[Any] = rng.standard_normal(coarse, dtype=np.float32)
    # Smoothstep between random numbers on a coarse grid, axis by axis: far faster than filtering white noise.
    for axis, (length, scale) in enumerate(zip(space.shape, scales, strict=True)):
        place = np.arange(length) / scale + 0.5
        left = place.astype(int)
        share = (place - left).astype(np.float32)
        share = share * share * (3 - 2 * share)
        fit = [-1 if a == axis else 1 for a in range(3)]
        low, high = np.take(field, left, axis), np.take(field, left + 1, axis)
        field = low + (high - low) * share.reshape(fit)
    # Interpolating averages neighbours: 1.75 brings the standard deviation back to about 1.
    return np.asarray(field * np.float32(1.75), dtype=np.float32)


def blur(array: FloatArray, sigma_voxels: Sequence[float]) -> FloatArray:
    """Smooth with a Gaussian, sigma as (z, y, x)."""
    return np.asarray(ndimage.gaussian_filter(array, sigma_voxels, truncate=2.5), dtype=np.float32)
