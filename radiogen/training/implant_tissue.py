"""What a made lesion in a patch of CT consists of: HU inside, and the scanner's noise measured round it."""

from dataclasses import dataclass

import numpy as np

from radiogen.phantoms.shapes import Space, blur, occupancy, smooth_noise
from radiogen.volume import FloatArray

TISSUE_HU = (-150.0, 170.0)
LUNG_HU = (-1000.0, -700.0)
LEAST_PAIRS = 150


@dataclass(frozen=True)
class Noise:
    """Noise of a patch: its standard deviation, and how far it is correlated along (z, y, x)."""

    hu: float
    sigma_voxels: tuple[float, float, float]


def measure_noise(hu: FloatArray) -> Noise:
    """Estimate noise from differences between neighbours in soft tissue, or in lung where there is none.

    Noise that is white noise under a Gaussian of sigma s has the correlation q^(k k) at k voxels, with
    q = exp(-1 / (4 s s)). So the variances of differences at one and two voxels give s and the strength.
    Medians, the axis with the least, and a tenth off, so that borders between organs count little: so it
    comes near the noise that a high-pass filter finds in muscle.
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
    return Noise(float(np.clip(0.9 * min(strengths), 0, 120)), (z, y, x))


def _neighbours(hu: FloatArray, axis: int, between: tuple[float, float]) -> FloatArray:
    """Triples of voxels in a row that all lie between two values: shape (3, pairs), thinned."""
    long = np.moveaxis(hu, axis, 0)[:, ::2, ::2]
    a, b, c = long[:-2:2], long[1:-1:2], long[2::2]
    low, high = between
    inside = (np.minimum(np.minimum(a, b), c) > low) & (np.maximum(np.maximum(a, b), c) < high)
    return np.stack([a[inside], b[inside], c[inside]])


def draw_noise(shape: tuple[int, ...], noise: Noise, generator: np.random.Generator) -> FloatArray:
    """Noise of this strength and grain."""
    field = generator.standard_normal(shape, dtype=np.float32)
    field = blur(field, noise.sigma_voxels)
    return np.asarray(field * np.float32(noise.hu / max(float(field.std()), 1e-6)), dtype=np.float32)


def solid_tissue(
    space: Space, distance: FloatArray, radius_mm: float, beside_hu: float, generator: np.random.Generator
) -> FloatArray:
    """HU of a solid lesion: faint texture; some have a dark core, a cavity, a bright rim or chalk.

    Args:
        space: The voxels.
        distance: Millimetres to the lesion's surface, negative inside.
        radius_mm: How large the lesion is.
        beside_hu: Soft tissue round it; half of all lesions are nearly as dense as that.
        generator: Where the chance comes from.
    """
    alike = generator.random() < 0.5
    base = generator.normal(beside_hu, 10) if alike else generator.uniform(-20, 110)
    value = np.full(space.shape, np.clip(base, -20, 110), dtype=np.float32)
    coarse, fine = 14 * generator.random() ** 2, 6 * generator.random() ** 2
    value += np.float32(1 + coarse) * smooth_noise(space, max(0.7 * radius_mm, 3), generator)
    if radius_mm > 5:
        value += np.float32(fine) * smooth_noise(space, 5, generator)
    np.clip(value, -60, 160, out=value)
    chance = generator.random(4)
    core = distance + np.float32(0.25 * radius_mm) * smooth_noise(space, 0.6 * radius_mm, generator)
    if radius_mm > 9 and chance[0] < 0.3:
        soft = occupancy(core + np.float32(generator.uniform(0.25, 0.55) * radius_mm), 4)
        value -= np.float32(generator.uniform(15, 50)) * soft
    if chance[1] < 0.12:
        width = generator.uniform(2, max(0.3 * radius_mm, 3))
        value += np.float32(generator.uniform(15, 60)) * occupancy(np.abs(distance + width) - width, 2)
    if radius_mm > 6 and chance[2] < 0.08:
        wall = generator.uniform(0.4, 0.85) * radius_mm
        hole = occupancy(core + np.float32(wall), 1.5 * space.edge_mm)
        value += hole * (np.float32(generator.uniform(-980, -800)) - value)
    if chance[3] < 0.1:
        chalk = smooth_noise(space, 4, generator) - np.float32(generator.uniform(1.8, 2.6))
        value += np.float32(generator.uniform(150, 450)) * np.clip(2 * chalk, 0, 1) * (distance < -2)
    return value


def glass_share(space: Space, around_hu: float, generator: np.random.Generator) -> FloatArray:
    """The share of the air that ground glass fills with tissue, so that vessels stay what they are."""
    target = max(generator.uniform(-750, -350), around_hu + 110)
    share = (target - around_hu) / max(30.0 - around_hu, 200.0)
    texture = 1 + np.float32(generator.uniform(0.05, 0.25)) * smooth_noise(space, 4, generator)
    return np.asarray(np.clip(np.float32(share) * texture, 0.08, 0.95), dtype=np.float32)
