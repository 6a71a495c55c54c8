"""Draw the wall of a phantom: body, skin, fat, muscle, ribs, spine, table; and the cage the lungs hang in."""

from dataclasses import dataclass

import numpy as np

from radiogen.phantoms.shapes import (
    EVERYWHERE,
    Distance,
    Shape,
    Space,
    capsule,
    column,
    ellipsoid,
    occupancy,
    paint,
    smooth_noise,
)
from radiogen.volume import AIR_HU, FloatArray

SPINE = (0.0, 69.0)
SKIN_HU, FAT_HU, MUSCLE_HU = 20.0, -102.0, 52.0
CORTEX_HU, MARROW_HU, CARTILAGE_HU = 620.0, 190.0, 95.0
RIB_PITCH_MM = 31.0


@dataclass(frozen=True)
class BodyBuild:
    """The build of a synthetic patient, in millimetres of the reference chest (336 x 288 x 200)."""

    cage: tuple[float, float]  # half width and half depth inside the ribs
    fat_mm: float
    breast_mm: float
    rib_shift_mm: float
    table_y: float


def draw_build(sex: str, rng: np.random.Generator) -> BodyBuild:
    """Return a build that fits the sex."""
    female = sex == "female"
    cage = (rng.normal(116 if female else 123, 2.5), rng.normal(86 if female else 92, 2.5))
    return BodyBuild(
        cage=(float(np.clip(cage[0], 108, 128)), float(np.clip(cage[1], 80, 97))),
        fat_mm=float(rng.uniform(7, 15)),
        breast_mm=float(rng.uniform(14, 22)) if female else 0.0,
        rib_shift_mm=float(rng.uniform(0, RIB_PITCH_MM)),
        table_y=119.0,
    )


def oval(
    space: Space, half: tuple[Distance, Distance], center_y: Distance | float, power: float
) -> FloatArray:
    """Return the distance to a squarish oval in each slice; half axes and centre are given by height."""
    x, y = np.abs(space.x), np.abs(space.y - center_y)
    size = ((x / half[0]) ** power + (y / half[1]) ** power) ** (1 / power) + 1e-6
    return np.asarray(np.sqrt(x * x + y * y) * (1 - 1 / size), dtype=np.float32)


def cage_distance(space: Space, build: BodyBuild) -> FloatArray:
    """Return the distance to the inside of the ribs, negative inside; the cage narrows to the apex."""
    above = np.clip((space.z - 84) / 112, 0, 0.999)
    taper = np.sqrt(1 - above**3) * (1 - 0.05 * np.clip((84 - space.z) / 84, 0, 1) ** 2)
    return oval(space, (build.cage[0] * taper, build.cage[1] * taper), -4 + 14 * above**2, 2.35)


def body_distance(space: Space, build: BodyBuild) -> FloatArray:
    """Return the distance to the skin, negative inside."""
    shoulder = np.clip((space.z - 120) / 80, 0, 1) ** 2
    half = (
        np.minimum(build.cage[0] + 20 + build.fat_mm + 6 * shoulder, 158),
        (build.cage[1] + 17 + 0.6 * build.fat_mm) * (1 - 0.13 * shoulder),
    )
    back = build.table_y - 2
    distance = oval(space, half, back - half[1], 2.5)
    if build.breast_mm:
        front = float(back - 2 * (build.cage[1] + 17 + 0.6 * build.fat_mm))
        for side in (-1, 1):
            breast = ellipsoid(space, (side * 62.0, front + 22, 84), (46, 22 + build.breast_mm, 42))
            part = distance[breast.where]
            np.minimum(part, breast.distance, out=part)
    return distance


def draw_wall(
    space: Space, build: BodyBuild, body: FloatArray, cage: FloatArray, rng: np.random.Generator
) -> FloatArray:
    """Draw everything outside the lungs and the mediastinum, in HU: table, skin, fat, muscle, bone."""
    edge = space.edge_mm
    hu = np.full(space.shape, AIR_HU, dtype=np.float32)
    draw_table(hu, space, build)
    paint(hu, Shape(EVERYWHERE, body), SKIN_HU, edge)
    paint(hu, Shape(EVERYWHERE, body + 2.2), FAT_HU, edge)
    marbling = smooth_noise(space, 22, rng)
    bulk = 19 + 24 * np.clip((space.z - 120) / 80, 0, 1) ** 1.5
    muscle = np.maximum(cage - bulk + 5 * marbling, body + 0.55 * build.fat_mm + 2)
    fascia = np.abs(cage - 12 - 3 * marbling) - 1.0
    paint(hu, Shape(EVERYWHERE, muscle), MUSCLE_HU, edge)
    hu -= occupancy(np.maximum(fascia, muscle + 2), edge) * 90
    draw_ribs(hu, space, build, cage)
    draw_shoulders(hu, space)
    return hu


def draw_table(hu: FloatArray, space: Space, build: BodyBuild) -> None:
    """Draw a hollow carbon table under the back."""
    sag = 9 * (space.x / 150) ** 2
    middle = np.abs(space.y - (build.table_y + 9 - sag)) + 0 * space.z
    ends = np.abs(space.x) - 148
    for half, value in ((8.0, -250.0), (5.0, -940.0)):  # shell of carbon fibre, foam inside
        paint(hu, Shape(EVERYWHERE, np.maximum(middle - half, ends - half)), value, space.edge_mm)


def draw_ribs(hu: FloatArray, space: Space, build: BodyBuild, cage: FloatArray) -> None:
    """Draw ribs round the cage, falling from the spine to the front, and the sternum with its cartilage."""
    front = np.clip((80 - space.y) / 170, 0, 1.1)
    # Ribs fall by about 96 mm from the spine to the front.
    height = space.z + 96 * front + build.rib_shift_mm
    beside = (height + RIB_PITCH_MM / 2) % RIB_PITCH_MM - RIB_PITCH_MM / 2
    tube = np.sqrt((cage - 7.5) ** 2 + (beside * 0.72) ** 2)
    gap = 22 + 0.28 * np.clip(110 - space.z, 0, 110)
    is_cartilage = (space.y < -30) & (np.abs(space.x) < gap)
    near_sternum = (space.y < -30) & (np.abs(space.x) < 12)
    behind = (space.y > SPINE[1]) & (np.abs(space.x) < 16)
    tube = np.where(near_sternum | behind, np.float32(99), tube)
    edge = space.edge_mm
    shell, marrow = np.where(is_cartilage, CARTILAGE_HU, CORTEX_HU), np.where(is_cartilage, 60.0, MARROW_HU)
    paint(hu, Shape(EVERYWHERE, tube - 4.6), shell.astype(np.float32), edge)
    paint(hu, Shape(EVERYWHERE, tube - 2.6), marrow.astype(np.float32), edge)
    sternum = np.maximum(np.abs(space.x) - 13, np.abs(cage - 8) - 5)
    sternum = np.maximum(sternum, np.maximum(space.y + 20, 62 - space.z))
    paint(hu, Shape(EVERYWHERE, sternum), 420.0, edge)
    paint(hu, Shape(EVERYWHERE, sternum + 3), 130.0, edge)


def spine_body(space: Space) -> Shape:
    """Return the column of the vertebral bodies."""
    return column(space, SPINE, (18.0, 15.0), (-40.0, 240.0))


def draw_spine(hu: FloatArray, space: Space) -> None:
    """Draw vertebral bodies and discs, the canal, and the arches with their processes."""
    edge = space.edge_mm
    x, y = SPINE
    for side in (-1, 1):
        paint(hu, column(space, (x + side * 21, y + 31), (17, 12), (-40, 240)), MUSCLE_HU + 4, edge)
    spine = spine_body(space)
    bodies = Shape(spine.where, spine.distance + 3)
    paint(hu, spine, 480.0, edge)
    paint(hu, bodies, 170.0, edge)
    for middle in np.arange(-8.0, 220.0, 24.0):
        paint(hu, column(space, SPINE, (17.0, 14.0), (middle - 2.5, middle + 2.5)), 75.0, edge)
        low, high = middle + 6, middle + 18
        paint(hu, column(space, (x, y + 22), (14, 11), (low, high)), 480.0, edge)
        paint(hu, capsule(space, (x, y + 30, high), (x, y + 40, low - 4), 3.6), 430.0, edge)
        for side in (-1, 1):
            tip = (x + side * 33, y + 25, high)
            paint(hu, capsule(space, (x + side * 12, y + 19, high), tip, 4.2), 400.0, edge)
    paint(hu, column(space, (x, y + 22), (9.5, 7.5), (-40, 240)), -30.0, edge)
    paint(hu, column(space, (x, y + 22), (6.0, 5.0), (-40, 240)), 35.0, edge)


def draw_shoulders(hu: FloatArray, space: Space) -> None:
    """Draw shoulder blades and collar bones."""
    edge = space.edge_mm
    for side in (-1.0, 1.0):
        for share in np.linspace(0, 1, 12):
            top, low = (
                (side * (62 + 58 * share), 90 - 58 * share, 196.0),
                (side * (72 + 22 * share), 96 - 24 * share, 120.0),
            )
            paint(hu, capsule(space, top, low, 3.4), 330.0, edge)
        paint(hu, capsule(space, (side * 16, -74, 176), (side * 70, -62, 194), 5.5), 520.0, edge)
        paint(hu, capsule(space, (side * 70, -62, 194), (side * 120, -22, 200), 5.5), 520.0, edge)
