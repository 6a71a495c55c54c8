"""Draw the organs between and below the lungs of a phantom: heart, vessels, windpipe, diaphragm, belly."""

from dataclasses import dataclass

import numpy as np

from radiogen.phantoms.shapes import (
    EVERYWHERE,
    Shape,
    Space,
    capsule,
    carve,
    column,
    ellipsoid,
    occupancy,
    paint,
    smooth_noise,
)
from radiogen.phantoms.thorax import FAT_HU, SPINE, spine_body
from radiogen.volume import FloatArray

# Millimetres of the reference chest: x to the left and y to the back of its middle, z from its lower end.
CARINA_Z = 118.0
AIRWAY_HU = -985.0
RIGHT_HILUM, LEFT_HILUM = (-40.0, 12.0, 100.0), (44.0, 12.0, 104.0)
HILA = {1: RIGHT_HILUM, 2: LEFT_HILUM}


@dataclass(frozen=True)
class Organ:
    """A solid and its attenuation."""

    shape: Shape
    hu: float


def great_vessels(space: Space, blood_hu: float) -> list[Organ]:
    """Return aorta, pulmonary arteries, vena cava and the vessels to the head."""
    tubes = [
        ((-12, -26, 82), (-14, -20, 128), 15.0),
        ((-14, -20, 128), (6, 6, 142), 13.5),
        ((6, 6, 142), (24, 36, 128), 13.0),
        ((24, 36, 128), (25, 44, 90), 12.0),
        ((25, 44, 90), (14, 42, 20), 11.5),
        ((14, 42, 20), (8, 40, -20), 11.0),
        ((8, -38, 86), (14, -12, 112), 13.0),
        ((14, -10, 112), (44, 8, 110), 9.0),
        ((12, -8, 108), (-40, 4, 104), 8.5),
        ((-28, -12, 84), (-26, -14, 160), 8.5),
        ((-26, -14, 160), (-34, -10, 200), 6.5),
        ((-26, -16, 160), (26, -14, 182), 6.0),
        ((-10, -6, 142), (-18, 4, 204), 5.5),
        ((4, 0, 146), (14, 2, 204), 4.5),
        ((16, 12, 142), (26, 10, 204), 4.8),
    ]
    return [Organ(capsule(space, start, end, radius), blood_hu) for start, end, radius in tubes]


def heart(space: Space, blood_hu: float, rng: np.random.Generator) -> list[Organ]:
    """Return the heart in its fat, with four chambers; its tip points to the left and down."""
    size = float(rng.uniform(0.94, 1.06))
    turn, tilt = -0.62, -0.30  # radians
    # Heart muscle takes up about a third of the contrast that blood does.
    muscle_hu = 45 + 0.35 * max(0.0, blood_hu - 45)

    def part(center: tuple[float, float, float], radii: tuple[float, float, float], hu: float) -> Organ:
        x, y, z = (r * size for r in radii)
        return Organ(ellipsoid(space, center, (x, y, z), turn, tilt), hu)

    return [
        part((20, -32, 58), (68, 50, 50), FAT_HU + 10),
        part((20, -31, 59), (62, 44, 45), muscle_hu),
        part((38, -30, 48), (30, 17, 24), blood_hu),
        part((12, -49, 52), (34, 14, 26), blood_hu * 0.95),
        part((-22, -24, 64), (17, 20, 27), blood_hu * 0.97),
        part((4, 0, 76), (24, 15, 21), blood_hu),
    ]


def center_organs(space: Space, blood_hu: float, rng: np.random.Generator) -> list[Organ]:
    """Return all solids between the lungs, in the order in which they are painted."""
    middle = [
        Organ(column(space, (0, 2), (27, 50), (-30, 150)), FAT_HU + 14),
        Organ(column(space, (0, 8), (21, 40), (140, 240)), FAT_HU + 14),
        Organ(column(space, (0, -60), (4.5, 30), (-30, 240)), FAT_HU + 14),
        Organ(Shape(spine_body(space).where, spine_body(space).distance - 3), 40.0),
        Organ(column(space, (SPINE[0], SPINE[1] + 16), (24, 16), (-40, 240)), 45.0),
        Organ(ellipsoid(space, RIGHT_HILUM, (10, 12, 13)), -30.0),
        Organ(ellipsoid(space, LEFT_HILUM, (9, 12, 13)), -30.0),
    ]
    esophagus = [Organ(capsule(space, (4, 30, 200), (8, 32, 40), 6.5), 38.0)]
    nodes = [
        Organ(ellipsoid(space, tuple(rng.normal((0, -6, 128), (16, 12, 12))), (5, 4, 5)), 40.0)
        for _ in range(5)
    ]
    return [*middle, *heart(space, blood_hu, rng), *great_vessels(space, blood_hu), *nodes, *esophagus]


def diaphragm_distance(space: Space, rng: np.random.Generator) -> FloatArray:
    """Return the distance to the upper face of the diaphragm, negative below; the right dome is higher."""
    lift = float(rng.normal(0, 4))
    right, left = (
        top + lift - 46 * (0.55 * ((space.x - x) / 62) ** 2 + ((space.y + 22) / 82) ** 2)
        for x, top in ((-58, 56), (58, 46))
    )
    surface_z = np.where(space.x < 0, right, left)
    distance: FloatArray = ((space.z - surface_z) * np.float32(0.75)).astype(np.float32)
    return distance


def draw_belly(hu: FloatArray, space: Space, inside: FloatArray, rng: np.random.Generator) -> None:
    """Draw liver, spleen and stomach under the diaphragm, where `inside` (a distance) is negative."""
    edge = space.edge_mm
    below = occupancy(inside, edge)
    belly = np.full(space.shape, FAT_HU, dtype=np.float32)
    liver_hu = float(rng.uniform(58, 112))
    bumps = 4 * smooth_noise(space, 40, rng)
    liver = np.maximum(space.x - 30 + 0.35 * space.z + 0.2 * space.y, inside + 3) + bumps
    paint(belly, Shape(EVERYWHERE, liver.astype(np.float32)), liver_hu, edge)
    paint(belly, ellipsoid(space, (72, 42, 10), (36, 30, 40)), liver_hu + 12, edge)
    paint(belly, ellipsoid(space, (58, -22, 6), (34, 30, 34)), 35.0, edge)
    paint(belly, ellipsoid(space, (56, -38, 12), (24, 14, 24)), -960.0, edge)
    rim = occupancy(inside + 3.5, edge)
    belly = np.float32(48) + rim * (belly - np.float32(48))
    hu += below * (belly - hu)


def draw_center(hu: FloatArray, organs: list[Organ], edge_mm: float) -> None:
    """Paint the organs one after the other."""
    for organ in organs:
        paint(hu, organ.shape, organ.hu, edge_mm)


def solid_distance(space: Space, organs: list[Organ]) -> FloatArray:
    """Return the distance to the union of the organs, negative inside."""
    union = np.full(space.shape, 60.0, dtype=np.float32)
    for organ in organs:
        carve(union, organ.shape)
    return union


def draw_windpipe(hu: FloatArray, space: Space) -> None:
    """Draw trachea and main bronchi: soft wall, air inside."""
    fork = (-2.0, 12.0, CARINA_Z)
    tubes = [
        ((-2.0, 4.0, 210.0), fork, 8.6),
        (fork, (-22.0, 14.0, 107.0), 6.8),
        ((-22.0, 14.0, 107.0), (-42.0, 19.0, 97.0), 4.6),
        (fork, (22.0, 15.0, 108.0), 6.2),
        ((22.0, 15.0, 108.0), (46.0, 19.0, 100.0), 4.2),
    ]
    # Walls of all tubes before the air of any, so that no wall closes a fork.
    for wall, value in ((1.8, 30.0), (0.0, AIRWAY_HU)):
        for start, end, radius in tubes:
            paint(hu, capsule(space, start, end, radius + wall), value, space.edge_mm)
