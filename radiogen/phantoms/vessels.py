"""Grow vessels and bronchi from the hilum until they reach every part of a lung, and draw them."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from radiogen.phantoms.shapes import Point, Shape, Space, capsule, occupancy
from radiogen.volume import FloatArray

Floats = npt.NDArray[np.float64]
STEP_MM = 9.0
DETOUR = 0.45  # what a millimetre along the tree costs beside one through the air
MURRAY = 2.7  # exponent of Murray's law; 3 for laminar flow, less in lungs


@dataclass(frozen=True)
class VesselTree:
    """A tree of tubes: where the nodes lie (LPS order x, y, z), each one's parent, and the tube to it."""

    nodes: Floats  # (N, 3)
    parents: npt.NDArray[np.int64]  # (N,), -1 for the root
    radii_mm: Floats  # (N,)


def grow_tree(root: Point, targets: Floats, tip_mm: float) -> VesselTree:
    """Connect targets one by one, the nearest to the root first, along the cheapest path.

    A path costs its length and a share of the length from the root to where it leaves the tree. Radii follow
    Murray's law: the powers of the children's add up to that of the parent.

    Args:
        root: Where the tree enters, (x, y, z) in millimetres.
        targets: Points to reach, shape (T, 3).
        tip_mm: Radius of the last twigs.
    """
    order = np.argsort(np.linalg.norm(targets - root, axis=1))
    room = int(len(targets) * 40 + 1)
    nodes, length = np.zeros((room, 3)), np.zeros(room)
    parents = np.full(room, -1, dtype=np.int64)
    nodes[0] = root
    count = 1
    for target in targets[order]:
        gap = np.linalg.norm(nodes[:count] - target, axis=1)
        # 0 would give the shortest tree with long detours, 1 a straight vessel to every target.
        leave = int(np.argmin(gap + DETOUR * length[:count]))
        steps = int(np.clip(np.ceil(gap[leave] / STEP_MM), 1, 40))
        start, parent = nodes[leave].copy(), leave
        for step in range(1, steps + 1):
            nodes[count] = start + (target - start) * step / steps
            parents[count] = parent
            length[count] = length[leave] + gap[leave] * step / steps
            parent = count
            count += 1
    return VesselTree(nodes[:count], parents[:count], _radii(parents[:count], tip_mm))


def _radii(parents: npt.NDArray[np.int64], tip_mm: float) -> Floats:
    """Return radii by Murray's law, from the twigs to the root; a parent always precedes its children."""
    power = np.zeros(len(parents))
    for node in range(len(parents) - 1, 0, -1):
        power[node] = max(power[node], tip_mm**MURRAY)
        power[parents[node]] += power[node]
    radii: Floats = power ** (1 / MURRAY)
    return radii


def vessel_share(space: Space, trees: list[VesselTree]) -> FloatArray:
    """Return the share of each voxel that is vessel; thin ones are spread by their true volume."""
    share = np.zeros(space.shape, dtype=np.float32)
    thin = float(space.edge_mm) * 0.6
    for tree in trees:
        inner = tree.parents >= 0
        starts, ends, radii = tree.nodes[tree.parents[inner]], tree.nodes[inner], tree.radii_mm[inner]
        is_thin = radii < thin
        # Thinner than a voxel: drawn as shapes they would vanish or grow, depending on where they lie.
        _splat(share, space, starts[is_thin], ends[is_thin], radii[is_thin])
        for start, end, radius in zip(starts[~is_thin], ends[~is_thin], radii[~is_thin], strict=True):
            shape = capsule(space, start, end, float(radius))
            part = share[shape.where]
            np.maximum(part, occupancy(shape.distance, space.edge_mm), out=part)
    return np.minimum(share, 1)


def _splat(share: FloatArray, space: Space, starts: Floats, ends: Floats, radii: Floats) -> None:
    """Add thin tubes as points of volume, shared between the eight voxels around each."""
    count = 8  # points a tube: a twig between two nodes is about three voxels long
    along = (np.arange(count) + 0.5) / count
    points = (starts[:, None] + (ends - starts)[:, None] * along[:, None]).reshape(-1, 3)
    volume = np.pi * radii**2 * np.linalg.norm(ends - starts, axis=1) / count / np.prod(space.step_mm)
    weight = np.repeat(volume, count)
    first = np.array([space.x.ravel()[0], space.y.ravel()[0], space.z.ravel()[0]])
    place = (points - first) / space.step_mm
    low = np.floor(place).astype(np.int64)
    size = np.array(space.shape[::-1])
    inside = ((low >= 0) & (low < size - 1)).all(axis=1)
    place, low, weight = place[inside], low[inside], weight[inside]
    part = place - low
    for corner in np.ndindex(2, 2, 2):
        spread = np.prod(np.where(corner, part, 1 - part), axis=1) * weight
        x, y, z = (low + corner).T
        flat = np.ravel_multi_index((z, y, x), space.shape)
        share += np.bincount(flat, spread, share.size).reshape(space.shape).astype(np.float32)


def draw_bronchi(hu: FloatArray, space: Space, tree: VesselTree) -> None:
    """Paint a tree of airways: soft walls first, then the air in them."""
    inner = np.flatnonzero(tree.parents >= 0)
    for is_wall in (True, False):
        for node in inner:
            start, end, radius = tree.nodes[tree.parents[node]], tree.nodes[node], float(tree.radii_mm[node])
            if radius < 0.25 * space.edge_mm:
                continue
            tube = capsule(space, start, end, radius + 0.25 * radius + 0.4 if is_wall else radius)
            # A tube thinner than a voxel fills the square of its share of the cross section.
            faint = min(1.0, (2 * radius / space.edge_mm) ** 2)
            _blend(hu, tube, -80.0 if is_wall else -980.0, space.edge_mm, faint)


def _blend(hu: FloatArray, shape: Shape, value: float, edge_mm: float, faint: float) -> None:
    part = hu[shape.where]
    part += np.float32(faint) * occupancy(shape.distance, edge_mm) * (np.float32(value) - part)
