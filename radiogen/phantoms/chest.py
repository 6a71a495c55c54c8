"""Draw a phantom: a CT in HU with its lesions and lungs, drawn from a seed on a grid that is not cubic."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from radiogen.errors import ConfigError
from radiogen.phantoms.lesions import LesionPlan, draw_lesion, plan_lesions
from radiogen.phantoms.mediastinum import (
    HILA,
    center_organs,
    diaphragm_distance,
    draw_belly,
    draw_center,
    draw_windpipe,
    solid_distance,
)
from radiogen.phantoms.shapes import Space, blur, occupancy, smooth_noise
from radiogen.phantoms.thorax import body_distance, cage_distance, draw_build, draw_spine, draw_wall
from radiogen.phantoms.traits import Traits, rng_for
from radiogen.phantoms.vessels import draw_bronchi, grow_tree, vessel_share
from radiogen.volume import FloatArray

# All anatomy is drawn in this box (x, y, z) and scaled to the grid, so that coarse grids show it whole.
REFERENCE_MM = (336.0, 288.0, 200.0)
MIN_VOXELS = (20, 16, 8)


@dataclass(frozen=True)
class ChestSize:
    """The grid of a phantom, in the volume's order (x, y, z).

    The chest is scaled to fill the grid, so few large voxels show a whole chest too; lesions keep their
    millimetres as long as the lungs have room.
    """

    voxels: tuple[int, int, int] = (112, 96, 40)
    spacing_mm: tuple[float, float, float] = (3.0, 3.0, 5.0)
    variation: float = 0.05  # how much size and spacing differ from patient to patient

    def __post_init__(self) -> None:
        if any(n < least for n, least in zip(self.voxels, MIN_VOXELS, strict=True)):
            raise ConfigError(f"chest of {self.voxels} voxels", "is too small", f"take at least {MIN_VOXELS}")
        if min(self.spacing_mm) <= 0 or not 0 <= self.variation < 0.5:
            raise ConfigError(self, "has a spacing or variation that cannot be", "take a spacing above 0 mm")

    @classmethod
    def of_spacing(cls, spacing_mm: tuple[float, float, float]) -> "ChestSize":
        """Return the grid of the usual extent, 336 x 288 x 200 mm, with voxels of another size."""
        usual = cls()
        extent = [n * mm for n, mm in zip(usual.voxels, usual.spacing_mm, strict=True)]
        if min(spacing_mm) <= 0:
            raise ConfigError(f"spacing {spacing_mm}", "is not above 0 mm", "give x,y,z in millimetres")
        x, y, z = (round(whole / mm) for whole, mm in zip(extent, spacing_mm, strict=True))
        return cls((x, y, z), spacing_mm)

    def vary(self, rng: np.random.Generator) -> "ChestSize":
        """Return a grid a little different from this one: even counts of voxels, spacing to a thousandth."""
        share = 1 + self.variation * rng.uniform(-1, 1, 5)
        x, y, z = (
            max(int(round(n * s / 2) * 2), m)
            for n, s, m in zip(self.voxels, share[:3], MIN_VOXELS, strict=True)
        )
        plane, slices = float(share[3]), float(share[4])
        a, b, c = self.spacing_mm
        return ChestSize((x, y, z), (round(a * plane, 3), round(b * plane, 3), round(c * slices, 3)), 0.0)


@dataclass(frozen=True)
class Chest:
    """A phantom: the CT, int16 HU; the lesions, uint8 1..n; the lungs, uint8 1 right and 2 left."""

    volume: sitk.Image
    lesion: sitk.Image
    lungs: sitk.Image
    plans: tuple[LesionPlan, ...]


def make_chest(traits: Traits, seed: int, size: ChestSize | None = None) -> Chest:
    """Draw the chest of one patient; the same traits, seed and size give the same voxels.

    The lesion mask is the lesion's true extent (ground glass included) inside the lungs; the lung mask is the
    lung with its vessels, bronchi and lesions, without the main bronchi.

    Raises:
        ConfigError: The grid is too small for a chest.
    """
    rng = rng_for(seed, traits.number, "chest")
    grid = (size or ChestSize()).vary(rng)
    space, true_space = _spaces(grid)
    build = draw_build(traits.sex, rng)
    # 42 HU is blood without contrast medium, 130 to 230 HU with it.
    blood_hu = 42.0 if rng.random() < 0.4 else float(rng.uniform(130, 230))
    cage = cage_distance(space, build)
    organs = center_organs(space, blood_hu, rng)
    diaphragm = diaphragm_distance(space, rng)
    # The factors turn level sets into distances in millimetres near the surface, which soft edges need.
    apex = 0.7 * (space.z - 190 + 26 * (((np.abs(space.x) - 46) / 44) ** 2 + ((space.y - 4) / 58) ** 2))
    lungs = np.maximum(np.maximum(cage, apex), np.maximum(-diaphragm, -solid_distance(space, organs)))
    hu = draw_wall(space, build, body_distance(space, build), cage, rng)
    inside = np.maximum(cage + 1.5, diaphragm)
    fill = occupancy(cage + 1.5, space.edge_mm)
    hu += fill * (np.float32(-60) - hu)
    draw_belly(hu, space, inside, rng)
    draw_center(hu, organs, space.edge_mm)
    draw_spine(hu, space)
    _draw_lungs(hu, space, lungs, traits, blood_hu, rng)
    draw_windpipe(hu, space)
    true_lungs = lungs * np.float32(true_space.edge_mm / space.edge_mm)
    # The lesion draws from a generator of its own: the chest of a patient stays the same when lesions change.
    lesion_rng = rng_for(seed, traits.number, "lesion")
    lesions, plans = _draw_lesions(hu, true_space, true_lungs, traits, lesion_rng)
    return Chest(
        volume=_image(_scan(hu, rng), grid),
        lesion=_image(lesions, grid),
        lungs=_image(_lung_labels(space, lungs), grid),
        plans=tuple(plans),
    )


def _spaces(grid: ChestSize) -> tuple[Space, Space]:
    """Return the voxel centres in millimetres of the reference chest, and in true millimetres."""
    true, reference = [], []
    for n, step, extent, axis in zip(grid.voxels, grid.spacing_mm, REFERENCE_MM, range(3), strict=True):
        place = (np.arange(n) - (n - 1) / 2) * step
        fit = [1, 1, 1]
        fit[2 - axis] = n
        true.append(place.reshape(fit).astype(np.float32))
        scaled = place * extent / (n * step) + (extent / 2 if axis == 2 else 0)
        reference.append(scaled.reshape(fit).astype(np.float32))
    return Space(*reference), Space(*true)


def _draw_lungs(
    hu: FloatArray, space: Space, lungs: FloatArray, traits: Traits, blood_hu: float, rng: np.random.Generator
) -> None:
    """Draw lung tissue, denser towards the back, with emphysema in smokers, vessels and bronchi."""
    # Lungs of a lying patient are denser at the back, where blood pools: about 50 HU over 110 mm here.
    air = float(rng.normal(-868, 14)) + 0.45 * space.y
    tissue = air + 14 * smooth_noise(space, 26, rng)
    if traits.smoking != "never":
        holes = smooth_noise(space, 10, rng)
        amount = min(traits.pack_years, 80) / 80 * np.clip(space.z / 160, 0.2, 1)
        tissue = tissue - 70 * amount * np.clip(holes - 0.7, 0, 1.2)
    right = space.x < 0  # LPS: x grows to the patient's left
    trees, airways = [], []
    for side, hilum in HILA.items():
        deep = np.flatnonzero((lungs < -2.5) & (right if side == 1 else ~right))
        if len(deep) < 50:
            continue
        for twigs, shift in ((150, 4.0), (120, -9.0)):
            root = (hilum[0], hilum[1] - 6.0, hilum[2] + shift)
            trees.append(grow_tree(root, _points(space, lungs, deep, twigs, rng), 1.05))
        airways.append(grow_tree((hilum[0], 19.0, hilum[2] - 4), _points(space, lungs, deep, 12, rng), 1.5))
    share = vessel_share(space, trees)
    tissue = tissue + share * (np.float32(blood_hu) - tissue)
    hu += occupancy(lungs, space.edge_mm) * (tissue - hu)
    for airway in airways:
        draw_bronchi(hu, space, airway)


def _points(
    space: Space, lungs: FloatArray, where: npt.NDArray[np.int64], count: int, rng: np.random.Generator
) -> npt.NDArray[np.float64]:
    """Draw random voxel centres (x, y, z), shape (count, 3)."""
    k, j, i = np.unravel_index(rng.choice(where, count), lungs.shape)
    points = np.stack([space.x.ravel()[i], space.y.ravel()[j], space.z.ravel()[k]], axis=1)
    return np.asarray(points + rng.uniform(-0.5, 0.5, points.shape) * space.step_mm, dtype=np.float64)


def _draw_lesions(
    hu: FloatArray, space: Space, lungs: FloatArray, traits: Traits, rng: np.random.Generator
) -> tuple[npt.NDArray[np.uint8], list[LesionPlan]]:
    plans = plan_lesions(space, lungs, traits, rng)
    labels = np.zeros(hu.shape, dtype=np.uint8)
    for number, plan in enumerate(plans, start=1):
        mask = draw_lesion(hu, space, lungs, plan, rng)
        labels[mask & (labels == 0)] = number
    return labels, plans


def _scan(hu: FloatArray, rng: np.random.Generator) -> npt.NDArray[np.int16]:
    """Imitate a scanner: a little blur and noise that neighbours share."""
    strength = float(rng.uniform(11, 20))
    noise = rng.standard_normal(hu.shape, dtype=np.float32)
    # Noise of a CT is correlated within a slice by the kernel; the factor restores what the blur takes.
    noise = blur(noise, (0, 0.55, 0.55)) * np.float32(1.9 * strength)
    scanned = blur(hu, (0.25, 0.4, 0.4)) + noise
    return np.asarray(np.clip(np.rint(scanned), -1024, 3071), dtype=np.int16)


def _lung_labels(space: Space, lungs: FloatArray) -> npt.NDArray[np.uint8]:
    side = np.where(space.x < 0, 1, 2)
    return np.asarray(np.where(lungs < 0, side, 0), dtype=np.uint8)


def _image(array: npt.NDArray[np.int16] | npt.NDArray[np.uint8], grid: ChestSize) -> sitk.Image:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(grid.spacing_mm)
    image.SetOrigin([-(n - 1) / 2 * step for n, step in zip(grid.voxels, grid.spacing_mm, strict=True)])
    return image
