"""Synthetic lesions, added to patches of real CT, because outlined scans are few and real lungs are not.

Nothing in MONAI does it. The patch stays as the scanner made it; only the lesion is new. What a network must
learn is where a tumour ends against tissue of nearly the same HU, so most sites touch the lungs' surface. Not
simulated: mass effect, collapse, effusion, enlarged nodes. Sizes and HU are drawn from ranges and describe no
population.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from radiogen.phantoms.shapes import Shape, Space, blur, capsule, occupancy, smooth_noise
from radiogen.training.synthetic_shapes import (
    LesionForm,
    LungSurvey,
    blob_distance,
    draw_blob,
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
    survey_lungs,
)
from radiogen.volume import FloatArray

BoolArray = npt.NDArray[np.bool_]
BONE_HU = 200.0
AIRWAY_HU = -700.0  # outside the lungs: trachea and bronchi, and what lies outside the body
MARGIN_MM = 14.0  # around the form: room for growth and for strands
OUT_OF_REACH_MM = 50.0  # a distance that is surely outside the lesion
KIND_SHARES = {"solid": 0.64, "part-solid": 0.18, "ground glass": 0.18}
LARGEST_GLASS_MM = 20.0  # radius; a larger cloud is not outlined as a tumour
ATTEMPTS = 5
LEAST_VOXELS = 6
AERATED_HU = -400.0
LEAST_AERATED = 0.4  # share of the lesion; a lesion that is all vessel or wall cannot be seen
LOOSE_OUTLINES = 0.1  # share; with a third a network drew every nodule a voxel too large
MASS_MM = 15.0  # radius from which a lesion grows out of the lungs more often and further
LEAST_AERATED_MASS = 0.1


@dataclass(frozen=True)
class AddedLesion:
    """A patch to which a lesion was added."""

    hu: FloatArray  # (D, H, W) float32, HU
    lesion: BoolArray  # (D, H, W)
    kind: str  # solid, part-solid, ground glass, or crop for a true lesion out of a crop


@dataclass
class PaintedRegion:
    """The part of a patch around a lesion while it is painted; arrays as (z, y, x)."""

    kind: str
    radius_mm: float
    form: LesionForm
    box: tuple[slice, slice, slice]  # where in the patch the region lies
    space: Space
    hu: FloatArray  # painted in place
    room: FloatArray  # millimetres to the lungs' surface, negative inside
    forbidden: BoolArray  # bone, and what other lesions have taken
    distance: FloatArray  # millimetres to the surface of the whole form
    outer: FloatArray  # the same, cut at the lungs and at what is forbidden
    noise: FloatArray  # HU, like that of the patch
    sigma_voxels: tuple[float, float, float]  # of the point spread


def add_synthetic_lesion(
    hu: npt.NDArray[np.int16] | FloatArray,
    lungs: npt.NDArray[np.bool_] | npt.NDArray[np.uint8],
    spacing_mm: tuple[float, float, float],
    rng: np.random.Generator,
    sizes_mm: tuple[float, float] = (4.0, 90.0),
    taken: BoolArray | None = None,
    central: bool = False,
    outside: bool = True,
) -> AddedLesion | None:
    """Add one synthetic lesion to a patch of CT.

    Args:
        hu: The patch, shape (D, H, W), HU; it stays as it is.
        lungs: Lung mask of the patch.
        spacing_mm: Of the voxels, (x, y, z).
        rng: Decides alone what is drawn.
        sizes_mm: Diameters of the ball of the lesion's volume before lungs and patch cut it, log-uniform.
        taken: Voxels that stay as they are, such as another lesion; the new one does not touch them.
        central: Its centre lies in the inner half of the patch on each axis, where there is lung.
        outside: A large solid one may have its centre in mediastinum or chest wall.

    Returns:
        The patch with the lesion, or None where there is too little lung for one.
    """
    inside = np.asarray(lungs, dtype=bool)
    painted = np.array(hu, dtype=np.float32)
    survey = survey_lungs(painted, inside, spacing_mm, taken, central, outside)
    if survey is None:
        return None
    forbidden = ((painted > BONE_HU) | (painted < AIRWAY_HU)) & ~inside
    if taken is not None:
        forbidden |= np.asarray(taken, dtype=bool)
    region = _draw_lesion(painted, survey, forbidden, sizes_mm, taken, rng)
    if region is None:
        return None
    lesion = np.zeros(painted.shape, dtype=bool)
    lesion[region.box] = _paint(region, rng)
    around = painted[region.box]
    painted[region.box] = np.where(region.forbidden, around, np.clip(region.hu, -1024, 3071))
    return AddedLesion(painted, lesion, region.kind)


def _draw_lesion(
    painted: FloatArray,
    survey: LungSurvey,
    forbidden: BoolArray,
    sizes_mm: tuple[float, float],
    taken: BoolArray | None,
    rng: np.random.Generator,
) -> PaintedRegion | None:
    """Draw a lesion that can be seen and touches no other; None if several draws give none.

    A lesion whose place was mostly vessel or wall before is drawn again: nobody could outline it.
    """
    for _ in range(ATTEMPTS):
        radius = float(np.exp(rng.uniform(*np.log(sizes_mm)))) / 2
        kind = "solid"
        if radius < LARGEST_GLASS_MM:
            kind = str(rng.choice(list(KIND_SHARES), p=list(KIND_SHARES.values())))
        site, center = draw_site(survey, radius, kind == "solid", rng)
        is_mass = radius >= MASS_MM or site == "beyond"
        least_aerated = LEAST_AERATED_MASS if is_mass else LEAST_AERATED
        form = draw_form(center, radius, site, rng)
        low, high = form.reach_mm
        box, space = survey.space.around(low - MARGIN_MM, high + MARGIN_MM)
        room = room_around(survey, box)
        growth = _draw_growth(space, radius, site, rng) if kind == "solid" else 0
        distance = form_distance(space, form, rng)
        outer = np.maximum(distance, room - growth)
        outer[forbidden[box]] = OUT_OF_REACH_MM
        outer = _one_component(outer, center, space)
        before = painted[box][outer < 0]
        is_seen = len(before) >= LEAST_VOXELS and np.mean(before < AERATED_HU) > least_aerated
        if not is_seen or (taken is not None and _touches(outer, taken[box])):
            continue
        # A lesion smoother than its surroundings would be found by its smoothness, which no patient shows.
        noise = draw_noise(space.shape, measure_noise(painted), rng)
        return PaintedRegion(
            kind,
            radius,
            form,
            box,
            space,
            hu=painted[box].copy(),
            room=room,
            forbidden=forbidden[box],
            distance=distance,
            outer=outer,
            noise=noise,
            sigma_voxels=_draw_point_spread(space, radius, rng),
        )
    return None


def _draw_growth(space: Space, radius_mm: float, site: str, rng: np.random.Generator) -> FloatArray:
    """Draw how far the lesion grows out of the lungs, in mm: mostly not at all, sometimes into the wall.

    A tumour centred outside the lungs ends where its form ends, or as far out as it has grown.
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
    """Draw sigma in voxels as (z, y, x), never so wide that a small nodule is blurred away."""
    plane, slices = rng.uniform(0.4, 1.1), rng.uniform(0.4, 1.5)
    most = np.maximum(0.6 * radius_mm / space.step_mm, 0.3)
    return min(slices, most[2]), min(plane, most[1]), min(plane, most[0])


def _one_component(outer: FloatArray, center: tuple[float, float, float], space: Space) -> FloatArray:
    """Keep the component at the centre, or the largest; the lungs' surface may have cut others off."""
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


def _paint(region: PaintedRegion, rng: np.random.Generator) -> BoolArray:
    """Paint a lesion and what lies against it, in place; return the lesion mask."""
    radius, edge = region.radius_mm, region.space.edge_mm
    lung = region.hu[(region.room < 0) & (region.hu > -1000) & (region.hu < -600)]
    around_hu = float(np.median(lung)) if len(lung) else -850.0
    tissue = region.hu[(region.room > 0) & (region.hu > -30) & (region.hu < 150)]
    beside_hu = float(np.median(tissue)) if len(tissue) else 40.0
    _paint_surroundings(region, rng)
    if region.kind != "solid":
        # Ground glass replaces a share of the air: a vessel, which holds none, keeps its HU.
        soft = edge * rng.uniform(1.0, 3.0) if radius > 4 else edge
        share = blur(occupancy(region.outer, soft), region.sigma_voxels)
        share *= glass_share(region.space, around_hu, rng)
        region.hu += share * np.maximum(np.float32(30) - region.hu, 0)
    core = region.outer
    if region.kind == "part-solid":
        core = np.maximum(region.outer, blob_distance(region.space, draw_core(region.form, rng)))
    if region.kind != "ground glass":
        value = solid_tissue(region.space, core, radius, beside_hu, rng)
        if region.kind == "solid":
            _close_seam(region, value)
        soft = edge * (rng.uniform(1.5, 3) if rng.random() < 0.25 and radius > 4 else 1.0)
        share = blur(occupancy(core, soft), region.sigma_voxels)
        region.hu += share * (value - region.hu) + _noise_of(share) * region.noise
    return _outline(region, rng)


def _noise_of(share: FloatArray) -> FloatArray:
    """Return the factor of new noise that keeps the variance where 1 - share of the old noise is left."""
    return np.asarray(np.sqrt(share * (2 - share)), dtype=np.float32)


def _paint_surroundings(region: PaintedRegion, rng: np.random.Generator) -> None:
    """Paint what may lie against a lesion and is none: dense tissue, spicules, pleural tags."""
    is_glass = region.kind == "ground glass"
    if not is_glass and rng.random() < 0.22:
        _blend(region, draw_companion(region.space, region.form, rng), rng.uniform(-10, 90))
    if rng.random() < (0.1 if is_glass else 0.35):
        for strand in draw_strands(region.space, region.form, rng):
            _add_strand(region, strand, rng.uniform(0.4, 0.9))
    if rng.random() < 0.2:
        for _ in range(int(rng.integers(1, 4))):
            _add_tag(region, rng)


def _outline(region: PaintedRegion, rng: np.random.Generator) -> BoolArray:
    """Return the voxels at least half inside; sometimes smooth and loose, as people draw."""
    drawn = outer = region.outer
    if rng.random() < LOOSE_OUTLINES:
        near = np.clip(outer, -8, 8)
        drawn = blur(near, (0.6, 0.6, 0.6)) - np.float32(rng.uniform(0, 1) * region.space.edge_mm)
    return np.asarray(((drawn < 0) | (outer < 0)) & ~region.forbidden, dtype=bool)


def _blend(region: PaintedRegion, distance: FloatArray, value_hu: float) -> None:
    """Add dense tissue that is no lesion to the lungs."""
    share = blur(occupancy(np.maximum(distance, region.room), region.space.edge_mm), region.sigma_voxels)
    region.hu += share * np.maximum(value_hu - region.hu, 0)
    region.hu += _noise_of(share) * region.noise


def _add_strand(region: PaintedRegion, strand: Shape, faint: float) -> None:
    """Add a thin strand inside the lungs, fainter than tissue since it fills its voxels in part only."""
    spot = region.hu[strand.where]
    distance = np.maximum(strand.distance, region.room[strand.where])
    spot += faint * occupancy(distance, region.space.edge_mm) * np.maximum(np.float32(0) - spot, 0)


def _add_tag(region: PaintedRegion, rng: np.random.Generator) -> None:
    """Add a strand from the lesion to the pleura near by, where there is one."""
    near = (region.outer < 12) & (region.outer > 1)
    wall = np.flatnonzero((np.abs(region.room) < region.space.edge_mm) & near)
    if len(wall) == 0:
        return
    k, j, i = np.unravel_index(int(rng.choice(wall)), region.room.shape)
    end = (region.space.x.ravel()[i], region.space.y.ravel()[j], region.space.z.ravel()[k])
    start = draw_blob(region.form.blobs, rng).center
    strand = capsule(region.space, start, end, float(rng.uniform(0.4, 1.2)))
    _add_strand(region, strand, rng.uniform(0.5, 1.0))


def _close_seam(region: PaintedRegion, value: FloatArray) -> None:
    """Fill the half-empty voxels between lesion and wall: a dark seam would give the border away."""
    share = occupancy(np.maximum(region.distance, region.room - 4), region.space.edge_mm)
    share *= np.clip((-120 - region.hu) / 100, 0, 1) * (region.room > -2)
    region.hu += share * (value - region.hu)
