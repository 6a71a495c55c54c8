"""Lay a made lesion into a patch of CT, because labelled scans are few."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from radiogen.phantoms.shapes import Shape, Space, blur, capsule, occupancy, smooth_noise
from radiogen.training.synthetic_shapes import (
    LesionForm,
    LungSurvey,
    blob_distance,
    draw_companion,
    draw_core,
    draw_form,
    draw_noise,
    draw_site,
    draw_strands,
    form_distance,
    glass_share,
    measure_noise,
    room_around,
    solid_tissue,
    survey,
)
from radiogen.volume import FloatArray

BoolArray = npt.NDArray[np.bool_]
BONE_HU = 200.0
AIRWAY_HU = -700.0  # outside the lungs: trachea and bronchi, and what lies outside the body
OUT_OF_REACH_MM = 50.0
KINDS = {"solid": 0.64, "part-solid": 0.18, "ground glass": 0.18}
MOST_GLASS_MM = 20.0  # radius; a larger cloud is not outlined as a tumour
ATTEMPTS = 5
LEAST_VOXELS = 6
AERATED_HU = -400.0
LEAST_AERATED = 0.4  # share of the lesion; a lesion that is all vessel or wall cannot be seen
LOOSE_OUTLINES = 0.1  # share; more of them teach a network to be loose always
MASS_MM = 15.0  # radius from which a lesion is a mass, that more often and further grows out of the lungs
LEAST_AERATED_MASS = 0.1


@dataclass(frozen=True)
class SyntheticLesion:
    """A patch with a lesion that was not there."""

    hu: FloatArray  # (D, H, W) float32, HU
    lesion: BoolArray  # (D, H, W)
    kind: str  # solid, part-solid or ground glass


@dataclass
class PaintRegion:
    """The part of a patch round a lesion while it is painted; arrays as (z, y, x)."""

    space: Space
    hu: FloatArray  # painted in place
    room: FloatArray  # millimetres to the lungs' surface, negative inside
    forbidden: BoolArray  # bone, and what other lesions have taken
    sigma_voxels: tuple[float, float, float]


def add_synthetic_lesion(
    hu: npt.NDArray[np.int16] | FloatArray,
    lungs: npt.NDArray[np.bool_] | npt.NDArray[np.uint8],
    spacing_mm: tuple[float, float, float],
    rng: np.random.Generator,
    sizes_mm: tuple[float, float] = (4.0, 90.0),
    taken: BoolArray | None = None,
    central: bool = False,
    outside: bool = True,
) -> SyntheticLesion | None:
    """Lay one made lesion into a patch of CT.

    Args:
        hu: The patch, shape (D, H, W), HU; it stays as it is.
        lungs: Lung mask of the patch.
        spacing_mm: Millimetres between voxel centres as (x, y, z).
        generator: Where the chance comes from; the same state gives the same lesion.
        sizes_mm: Diameters of the ball of the lesion's volume before lungs and patch cut it, log-uniform.
        taken: Voxels that stay as they are, such as another lesion; the new one does not touch them.
        central: Its centre lies in the inner half of the patch on each axis, where there is lung.
        outside: A large solid one may have its centre in mediastinum or chest wall.

    Returns:
        The patch with the lesion, or None where there is too little lung for one.
    """
    inside = np.asarray(lungs, dtype=bool)
    painted = np.array(hu, dtype=np.float32)
    ground = survey(painted, inside, spacing_mm, taken, central, outside)
    if ground is None:
        return None
    forbidden = ((painted > BONE_HU) | (painted < AIRWAY_HU)) & ~inside
    if taken is not None:
        forbidden |= np.asarray(taken, dtype=bool)
    drawn = _draw_outline(painted, ground, forbidden, sizes_mm, taken, rng)
    if drawn is None:
        return None
    where, part = drawn.where, painted[drawn.where].copy()
    noise = draw_noise(drawn.space.shape, measure_noise(painted), rng)
    spread = _draw_point_spread(drawn.space, drawn.radius_mm, rng)
    site = PaintRegion(drawn.space, part, drawn.room, forbidden[where], spread)
    lesion = np.zeros(painted.shape, dtype=bool)
    lesion[where] = _paint(site, drawn.form, drawn.outer, drawn.distance, drawn.kind, noise, rng)
    painted[where] = np.where(site.forbidden, painted[where], np.clip(site.hu, -1024, 3071))
    return SyntheticLesion(painted, lesion, drawn.kind)


@dataclass(frozen=True)
class LesionPlan:
    """A lesion before it is painted: what it is, where, and how far each voxel lies from its surface."""

    kind: str
    radius_mm: float
    form: LesionForm
    where: tuple[slice, slice, slice]  # the part of the patch round it
    space: Space
    room: FloatArray  # millimetres to the lungs' surface, negative inside
    distance: FloatArray  # millimetres to the surface of the whole form
    outer: FloatArray  # the same, cut at the lungs and at what is forbidden


def _draw_outline(
    painted: FloatArray,
    ground: LungSurvey,
    forbidden: BoolArray,
    sizes_mm: tuple[float, float],
    taken: BoolArray | None,
    rng: np.random.Generator,
) -> LesionPlan | None:
    """A lesion that can be seen and keeps away from others; None if several draws give none."""
    for _ in range(ATTEMPTS):
        radius = float(np.exp(rng.uniform(*np.log(sizes_mm)))) / 2
        kind = str(rng.choice(list(KINDS), p=list(KINDS.values()))) if radius < MOST_GLASS_MM else "solid"
        name, center = draw_site(ground, radius, kind == "solid", rng)
        is_mass = radius >= MASS_MM or name == "beyond"
        least_aerated = LEAST_AERATED_MASS if is_mass else LEAST_AERATED
        form = draw_form(center, radius, name, rng)
        low, high = form.reach_mm
        where, space = ground.space.around(low - 14, high + 14)
        room = room_around(ground, where)
        grows = _draw_growth(space, radius, name, rng) if kind == "solid" else 0
        distance = form_distance(space, form, rng)
        outer = np.maximum(distance, room - grows)
        outer[forbidden[where]] = OUT_OF_REACH_MM
        outer = _one_piece(outer, center, space)
        before = painted[where][outer < 0]
        seen = len(before) >= LEAST_VOXELS and np.mean(before < AERATED_HU) > least_aerated
        if seen and not (taken is not None and _touches(outer, taken[where])):
            return LesionPlan(kind, radius, form, where, space, room, distance, outer)
    return None


def _draw_growth(space: Space, radius_mm: float, site: str, rng: np.random.Generator) -> FloatArray:
    """How far the lesion may leave the lungs, in millimetres: mostly not at all, sometimes into the wall.

    A tumour whose middle lies beyond the lungs ends there where its form does, or as far out as it has grown.
    """
    if site == "beyond":
        furthest = radius_mm * rng.uniform(0.8, 3)
        return np.asarray(furthest * (1 + 0.3 * smooth_noise(space, 15, rng)), dtype=np.float32)
    is_mass = radius_mm >= MASS_MM
    furthest = max(12.0, radius_mm) if is_mass else 12.0
    invades = rng.random() < (0.55 if is_mass else 0.25)
    most = rng.uniform(3, furthest) if invades else rng.uniform(0.5, 3)
    most = min(most, max(0.8 * radius_mm, 1.0))
    return np.asarray(most * np.clip(0.6 + 0.5 * smooth_noise(space, 15, rng), 0, 1), dtype=np.float32)


def _draw_point_spread(
    space: Space, radius_mm: float, rng: np.random.Generator
) -> tuple[float, float, float]:
    """Sigma in voxels as (z, y, x), never so wide that a small nodule is washed away."""
    plane, slices = rng.uniform(0.4, 1.1), rng.uniform(0.4, 1.5)
    most = np.maximum(0.6 * radius_mm / space.step_mm, 0.3)
    return min(slices, most[2]), min(plane, most[1]), min(plane, most[0])


def _one_piece(outer: FloatArray, center: tuple[float, float, float], space: Space) -> FloatArray:
    """Keep the piece at the centre, or the largest; lungs' surfaces and bumps may have cut others off."""
    labels, count = ndimage.label(outer < 0)
    if count < 2:
        return outer
    sizes = np.bincount(labels.ravel())
    axes = (space.z.ravel(), space.y.ravel(), space.x.ravel())
    k, j, i = (int(np.argmin(np.abs(axis - c))) for axis, c in zip(axes, center[::-1], strict=True))
    keep = int(labels[k, j, i]) or int(np.argmax(sizes[1:])) + 1
    others = (labels != 0) & (labels != keep)
    outer[ndimage.binary_dilation(others, iterations=2) & (labels != keep)] = OUT_OF_REACH_MM
    return outer


def _touches(outer: FloatArray, taken: BoolArray) -> bool:
    return bool(taken.any() and (ndimage.binary_dilation(outer < 0, iterations=2) & taken).any())


def _paint(
    site: PaintRegion,
    form: LesionForm,
    outer: FloatArray,
    distance: FloatArray,
    kind: str,
    noise: FloatArray,
    rng: np.random.Generator,
) -> BoolArray:
    """Paint a lesion and what lies at it; returns the lesion mask."""
    radius, edge = form.radius_mm, site.space.edge_mm
    lung = site.hu[(site.room < 0) & (site.hu > -1000) & (site.hu < -600)]
    around = float(np.median(lung)) if len(lung) else -850.0
    tissue = site.hu[(site.room > 0) & (site.hu > -30) & (site.hu < 150)]
    beside = float(np.median(tissue)) if len(tissue) else 40.0
    if kind != "ground glass" and rng.random() < 0.22:
        _blend(site, draw_companion(site.space, form, rng), rng.uniform(-10, 90), noise)
    if rng.random() < (0.1 if kind == "ground glass" else 0.35):
        for strand in draw_strands(site.space, form, rng):
            _add_strand(site, strand, rng.uniform(0.4, 0.9))
    if rng.random() < 0.2:
        for _ in range(int(rng.integers(1, 4))):
            _add_tag(site, form, outer, rng)
    if kind != "solid":
        soft = edge * rng.uniform(1.0, 3.0) if radius > 4 else edge
        share = blur(occupancy(outer, soft), site.sigma_voxels)
        share *= glass_share(site.space, around, rng)
        site.hu += share * np.maximum(np.float32(30) - site.hu, 0)
    core = outer
    if kind == "part-solid":
        core = np.maximum(outer, blob_distance(site.space, draw_core(form, rng)))
    if kind != "ground glass":
        value = solid_tissue(site.space, core, radius, beside, rng)
        if kind == "solid":
            _close_seam(site, distance, value)
        soft = edge * (rng.uniform(1.5, 3) if rng.random() < 0.25 and radius > 4 else 1.0)
        share = blur(occupancy(core, soft), site.sigma_voxels)
        site.hu += share * (value - site.hu) + np.sqrt(share * (2 - share)) * noise
    return _outline(site, outer, rng)


def _outline(site: PaintRegion, outer: FloatArray, rng: np.random.Generator) -> BoolArray:
    """The voxels the lesion holds at least half of; sometimes smooth and loose, as people draw."""
    drawn = outer
    if rng.random() < LOOSE_OUTLINES:
        near = np.clip(outer, -8, 8)
        drawn = blur(near, (0.6, 0.6, 0.6)) - np.float32(rng.uniform(0, 1) * site.space.edge_mm)
    return np.asarray(((drawn < 0) | (outer < 0)) & ~site.forbidden, dtype=bool)


def _blend(site: PaintRegion, distance: FloatArray, value_hu: float, noise: FloatArray) -> None:
    """Lay dense tissue that is no lesion into the lungs."""
    share = blur(occupancy(np.maximum(distance, site.room), site.space.edge_mm), site.sigma_voxels)
    site.hu += share * np.maximum(value_hu - site.hu, 0)
    site.hu += np.sqrt(share * (2 - share)) * noise


def _add_strand(site: PaintRegion, strand: Shape, faint: float) -> None:
    """A thin strand inside the lungs, lighter than tissue since it fills its voxels in part only."""
    if 0 in site.hu[strand.where].shape:
        return
    spot = site.hu[strand.where]
    edge = site.space.edge_mm
    share = faint * occupancy(np.maximum(strand.distance, site.room[strand.where]), edge)
    spot += share * np.maximum(np.float32(0) - spot, 0)


def _add_tag(site: PaintRegion, form: LesionForm, outer: FloatArray, rng: np.random.Generator) -> None:
    """A strand from the lesion to the pleura near by, where there is one."""
    wall = np.flatnonzero((np.abs(site.room) < site.space.edge_mm) & (outer < 12) & (outer > 1))
    if len(wall) == 0:
        return
    k, j, i = np.unravel_index(int(rng.choice(wall)), site.room.shape)
    end = (site.space.x.ravel()[i], site.space.y.ravel()[j], site.space.z.ravel()[k])
    start = form.blobs[int(rng.integers(len(form.blobs)))].center
    strand = capsule(site.space, start, end, float(rng.uniform(0.4, 1.2)))
    _add_strand(site, strand, rng.uniform(0.5, 1.0))


def _close_seam(site: PaintRegion, distance: FloatArray, value: FloatArray) -> None:
    """Fill the half-empty voxels between lesion and wall, since the lesion leaves no lung there."""
    share = occupancy(np.maximum(distance, site.room - 4), site.space.edge_mm)
    share *= np.clip((-120 - site.hu) / 100, 0, 1) * (site.room > -2)
    site.hu += share * (value - site.hu)
