"""Draw the lesions of a phantom chest.

They are lobulated and spiculated, sometimes against the wall, sometimes part ground glass.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from radiogen.phantoms.shapes import Shape, Space, capsule, occupancy, smooth_noise
from radiogen.phantoms.traits import Traits
from radiogen.volume import FloatArray

# Within T1 and T2 of lung tumours (up to 50 mm); drawn log-normal about 24 mm.
DIAMETERS_MM = (12.0, 45.0)
LEAST_RADIUS_VOXELS = 1.25  # of the longest edge: a lesion has about ten voxels on any grid


@dataclass(frozen=True)
class LesionPlan:
    """The position, form and attenuation of a lesion, in true millimetres."""

    center: tuple[float, float, float]
    radii: tuple[float, float, float]
    lobes: float
    spicules: int
    ground_glass: float
    ground_glass_hu: float
    texture_hu: float
    solid_hu: float


def plan_lesions(
    space: Space, lungs: FloatArray, traits: Traits, rng: np.random.Generator
) -> list[LesionPlan]:
    """Plan one lesion, in one of six patients two, where the lungs have room.

    Args:
        space: The voxels, in true millimetres.
        lungs: Distance to the lungs' surface, negative inside.
        traits: Traits of the patient.
        rng: Random generator.
    """
    plans: list[LesionPlan] = []
    for number in range(2 if rng.random() < 1 / 6 else 1):
        radius = _draw_radius(space, lungs, 0.7 if number else 1.0, rng)
        touches = rng.random() < 0.35  # the wall: its centre lies less than a radius deep
        center = _place(space, lungs, radius * (0.55 if touches else 1.15), plans, radius, rng)
        stretch = rng.uniform(0.82, 1.22, 3)
        # Divided by the geometric mean: stretching changes the shape, not the volume.
        x, y, z = (radius * stretch / np.cbrt(np.prod(stretch))).tolist()
        plans.append(
            LesionPlan(
                center=center,
                radii=(x, y, z),
                lobes=float(rng.uniform(0.10, 0.24)),
                spicules=int(rng.integers(0, 15)),
                ground_glass=traits.ground_glass if traits.ground_glass > 0.1 else 0.0,
                ground_glass_hu=float(rng.uniform(-620, -430)),
                texture_hu=traits.texture_hu,
                solid_hu=traits.solid_hu,
            )
        )
    return plans


def _draw_radius(space: Space, lungs: FloatArray, share: float, rng: np.random.Generator) -> float:
    diameter = np.clip(np.exp(rng.normal(np.log(24), 0.38)), *DIAMETERS_MM)
    least = LEAST_RADIUS_VOXELS * space.step_mm.max()
    return float(np.clip(share * diameter / 2, least, max(-0.95 * lungs.min(), least)))


def _place(
    space: Space,
    lungs: FloatArray,
    depth_mm: float,
    others: list[LesionPlan],
    radius: float,
    rng: np.random.Generator,
) -> tuple[float, float, float]:
    """Draw a voxel about `depth_mm` deep in a lung and clear of the other lesions; else the deepest one."""
    depth = -lungs
    band = (depth > depth_mm) & (depth < depth_mm + (0.45 * radius if depth_mm < radius else np.inf))
    for other in others:
        x, y, z = other.center
        gap = np.sqrt((space.x - x) ** 2 + (space.y - y) ** 2 + (space.z - z) ** 2)
        band &= gap > 1.4 * max(other.radii) + 1.4 * radius
    candidates = np.flatnonzero(band)
    pick = int(candidates[rng.integers(len(candidates))]) if len(candidates) else int(np.argmax(depth))
    k, j, i = np.unravel_index(pick, lungs.shape)
    shift = rng.uniform(-0.5, 0.5, 3) * space.step_mm * (1 if len(candidates) else 0)
    return (
        float(space.x.ravel()[i] + shift[0]),
        float(space.y.ravel()[j] + shift[1]),
        float(space.z.ravel()[k] + shift[2]),
    )


def draw_lesion(
    hu: FloatArray, space: Space, lungs: FloatArray, plan: LesionPlan, rng: np.random.Generator
) -> npt.NDArray[np.bool_]:
    """Paint one lesion into the lungs, in place.

    Returns:
        The voxels of which it holds at least half, cut at the lungs' surface.
    """
    reach = 1.6 * max(plan.radii) + 2 * space.edge_mm
    where, near = space.around([c - reach for c in plan.center], [c + reach for c in plan.center])
    part, room = hu[where], lungs[where]
    edge = near.edge_mm
    distance = lobed_distance(near, plan, rng)
    outer = np.maximum(distance, room)
    inner = np.maximum(distance + plan.ground_glass * min(plan.radii), room)
    fine = smooth_noise(near, 5, rng)
    glass = plan.ground_glass_hu + 0.8 * plan.texture_hu * fine
    solid = plan.solid_hu + plan.texture_hu * smooth_noise(near, 6, rng)
    for spicule in spicules(near, plan, rng):
        spot = part[spicule.where]
        faint = 0.55 * occupancy(np.maximum(spicule.distance, room[spicule.where]), edge)
        spot += faint * (np.float32(-150) - spot)
    part += occupancy(outer, edge) * (np.maximum(glass, part) - part)
    part += occupancy(inner, edge) * (solid - part)
    mask = np.zeros(hu.shape, dtype=bool)
    mask[where] = outer < 0
    return mask


def lobed_distance(space: Space, plan: LesionPlan, rng: np.random.Generator) -> FloatArray:
    """Return the distance to the surface of a bumpy ellipsoid: seven waves over its directions."""
    x, y, z = space.x - plan.center[0], space.y - plan.center[1], space.z - plan.center[2]
    length = np.sqrt(x * x + y * y + z * z) + 1e-6
    stretch = np.sqrt((x / plan.radii[0]) ** 2 + (y / plan.radii[1]) ** 2 + (z / plan.radii[2]) ** 2) + 1e-6
    bumps = np.zeros(space.shape)
    for _ in range(7):
        axis = rng.normal(size=3)
        wave = rng.uniform(2.0, 4.5) / np.linalg.norm(axis)
        towards = (x * axis[0] + y * axis[1] + z * axis[2]) / length
        bumps += np.sin(wave * towards + rng.uniform(0, 2 * np.pi))
    surface = 1 + plan.lobes * bumps / 2
    return np.asarray(length * (1 - surface / stretch), dtype=np.float32)


def spicules(space: Space, plan: LesionPlan, rng: np.random.Generator) -> list[Shape]:
    """Draw thin strands from the surface outwards; too thin to belong to the mask."""
    strands = []
    for _ in range(plan.spicules):
        axis = rng.normal(size=3)
        axis /= np.linalg.norm(axis)
        start = np.array(plan.center) + 0.8 * np.array(plan.radii) * axis
        end = np.array(plan.center) + rng.uniform(1.25, 1.55) * np.array(plan.radii) * axis
        strands.append(capsule(space, start.tolist(), end.tolist(), 0.6))
    return strands
