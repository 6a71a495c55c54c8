"""Perturb a lesion mask by millimetres, as another reader might draw it, and find the stable features."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from radiogen.volume import array_of, bounding_box, crop, volume_like

SHIFT_MM = 1.0  # standard deviation of the shift along each axis
GROW_MM = 1.0  # the surface moves by up to so much, inwards or outwards
MARGIN_MM = 6.0  # more than two shifts and a growth
STABLE_ICC = 0.75  # a feature is called stable from here on ("good": Koo and Li, J Chiropr Med 15:155, 2016)

Values = npt.NDArray[np.float64]


def perturbed_path(table: Path) -> Path:
    """Return the path of the table with the features under perturbed masks.

    >>> perturbed_path(Path("features.csv")).name
    'features.perturbed.csv'
    """
    return table.with_name(f"{table.stem}.perturbed{table.suffix}")


def perturb_mask(lesion: sitk.Image, rng: np.random.Generator) -> sitk.Image:
    """Return the mask of one lesion, shifted and eroded or dilated by a random amount; never empty.

    The distance to the surface is resampled, so that steps below a voxel count too.

    Args:
        lesion: All that is not 0, at least one voxel.
        rng: Draws a shift of `SHIFT_MM` an axis and a growth of up to `GROW_MM`.

    Raises:
        ValueError: The mask is empty.
    """
    shift_mm = rng.normal(0.0, SHIFT_MM, 3).clip(-2 * SHIFT_MM, 2 * SHIFT_MM)
    grow_mm = float(rng.uniform(-GROW_MM, GROW_MM))
    box = bounding_box(lesion, MARGIN_MM + max(lesion.GetSpacing()))
    if box is None:
        raise ValueError("the lesion mask is empty")
    near = crop(lesion, box) != 0
    # measured from both sides, since the map is 0 on the outermost voxels, not on the surface between them
    inner, outer = (
        sitk.SignedMaurerDistanceMap(side, squaredDistance=False, useImageSpacing=True)
        for side in (near, sitk.Not(near))
    )
    away = (inner - outer) / 2
    outside = float(array_of(away).max())
    moved = sitk.Resample(
        away, away, sitk.TranslationTransform(3, (-shift_mm).tolist()), sitk.sitkLinear, outside
    )
    distance = array_of(moved)
    # the deepest voxel always stays, so that erosion never deletes a small lesion
    limit_mm = max(grow_mm, float(distance.min()))
    inside = np.asarray(distance <= limit_mm)
    whole = np.zeros(lesion.GetSize()[::-1], np.uint8)
    whole[box.array_slices()] = inside
    return volume_like(whole, lesion)


def icc(measured: Values) -> Values:
    """Return the intraclass correlation of each feature, one-way random, single measurement: ICC(1,1).

    It is the share of the variance that lies between lesions (Shrout and Fleiss, Psychol Bull 86:420, 1979);
    near 1 a feature hardly depends on who drew the outline. NaN where a feature is the same everywhere.

    Args:
        measured: (lesions, repeats, features); a lesion with a missing value is left out for that feature.

    >>> icc(np.array([[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9],
    ...               [6, 2, 4, 7]], dtype=float)[:, :, None]).round(2)  # Shrout and Fleiss, table 4
    array([0.17])
    """
    is_complete = np.asarray(~np.isnan(measured).any(axis=1))  # (lesions, features)
    repeats, lesions = measured.shape[1], is_complete.sum(axis=0)
    kept = np.where(is_complete[:, None, :], measured, np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        means = np.where(is_complete, np.nan_to_num(kept).mean(axis=1), 0.0)  # (lesions, features)
        grand = means.sum(axis=0) / lesions
        between = repeats * (np.where(is_complete, means - grand, 0.0) ** 2).sum(axis=0) / (lesions - 1)
        within = (np.nan_to_num(kept - means[:, None, :]) ** 2).sum(axis=(0, 1)) / (lesions * (repeats - 1))
        coefficients: Values = (between - within) / (between + (repeats - 1) * within)
    return np.where(lesions > 1, coefficients, np.nan)


def stability_rows(
    rows: Sequence[Mapping[str, object]], keys: Sequence[str], names: Sequence[str]
) -> list[dict[str, Any]]:
    """Return one row a feature with its ICC, from the rows of several repeats of each lesion."""
    grouped: dict[tuple[object, ...], list[list[float]]] = {}
    for row in rows:
        values = [float(str(row.get(name, "nan") or "nan")) for name in names]
        grouped.setdefault(tuple(row[key] for key in keys), []).append(values)
    measured = np.array(list(grouped.values()))
    return [
        {"feature": name, "icc": f"{value:.4f}" if np.isfinite(value) else "", "lesions": len(grouped)}
        for name, value in zip(names, icc(measured), strict=True)
    ]


def draw_masks(lesion: sitk.Image, count: int, seed: Sequence[int]) -> Iterator[sitk.Image]:
    """Yield the mask itself, then `count` perturbed ones; each depends on the seed and its number alone."""
    yield lesion
    for repeat in range(1, count + 1):
        yield perturb_mask(lesion, np.random.default_rng([*seed, repeat]))
