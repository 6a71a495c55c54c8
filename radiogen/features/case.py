"""All features of one case: a row of numbers for each lesion, and for each perturbed copy of it."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from radiogen.errors import CaseError
from radiogen.features.deep import View, deep_features, paper_features, prior_of, tiles_of, view_of
from radiogen.features.perturb import draw_masks
from radiogen.features.radiomics import Radiomics
from radiogen.features.regions import Voxels, lung_outside, on_grid, ring, slabs
from radiogen.features.settings import FeatureOptions
from radiogen.features.signs import density, ring_density, signs
from radiogen.io.cases import Case
from radiogen.io.nifti import read_grid, read_mask
from radiogen.model.folder import Model
from radiogen.model.network_input import NetworkInput, to_network_grid
from radiogen.volume import array_of, same_grid, volume_like

KEYS = ("case_id", "patient_id", "lesion")
OUTSIDE = "outside_"  # columns of the negative control
AWAY, LUNGS = "away", "lungs"  # keys of what is no lesion
PATCH = "patch"
Row = dict[str, Any]


@dataclass
class CaseRows:
    """What one case gives: a row a lesion, a perturbed copy (`repeat`), a `patch`, and what was decided."""

    rows: list[Row] = field(default_factory=list)
    repeats: list[Row] = field(default_factory=list)
    patches: list[Row] = field(default_factory=list)
    decisions: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Regions:
    """A case on the network's grid, with its lesions, its lungs, and lung far from the lesions."""

    sample: NetworkInput
    lesions: Voxels  # (D, H, W)
    lungs: Voxels
    away: Voxels  # may be empty

    @property
    def spacing_mm(self) -> tuple[float, ...]:
        """In the order of the arrays, (z, y, x)."""
        spacing: tuple[float, ...] = self.sample.ct.GetSpacing()[::-1]
        return spacing


def measure_case(
    case: Case, path: Path, model: Model, options: FeatureOptions, radiomics: Radiomics | None
) -> CaseRows:
    """Measure every lesion of a case.

    Args:
        case: CT and lungs.
        path: Lesion mask, 1..n.
        model: The network whose features are taken.
        options: Which features.
        radiomics: PyRadiomics, or None.

    Raises:
        CaseError: The mask is missing, empty, or lies on another grid; the lungs are empty.
    """
    lesion = _read_lesions(case, path)
    ct, lungs = case.ct(), case.lungs()
    regions = _regions(to_network_grid(ct, lungs, lesion, model.config.preprocessing), lesion)
    found, views = CaseRows(), _other_views(regions, model, options)
    measured: dict[str, Row] = {}
    for key, mask in _masks(case, lesion, options):
        row: Row = dict(signs(ct, mask, lungs))
        if options.ring_mm:
            row |= ring_density(ct, mask, lesion, lungs, options.ring_mm)
        if radiomics:
            numbers = radiomics.measure(ct, mask)
            row |= numbers
            if not numbers:
                found.decisions.append(f"lesion {key}: too small for PyRadiomics, its cells stay empty")
        if not options.paper:
            views.append(_view(key, on_grid(mask, regions.sample.ct), regions, model, options))
        measured[key] = row
    if options.paper:
        deep = dict.fromkeys(measured, paper_features(model, regions.sample, regions.lesions))
    else:
        deep = deep_features(model, regions.sample, views, options.levels, options.batch)
    outside = _outside(regions, deep.pop(AWAY)) if AWAY in deep else {}
    of_lungs = deep.pop(LUNGS, {})
    _add_rows(
        found, case, measured, {key: {**own, **of_lungs} for key, own in deep.items()}, outside, options
    )
    return found


def _add_rows(
    found: CaseRows,
    case: Case,
    measured: dict[str, Row],
    deep: dict[str, dict[str, float]],
    outside: Row,
    options: FeatureOptions,
) -> None:
    for key, row in measured.items():
        label, repeat = (int(part) for part in key.split("/"))
        of_lesion, of_patches = _apart(deep[key])
        keys = dict(zip(KEYS, (case.case_id, case.patient_id, label), strict=True))
        if options.perturb:
            found.repeats.append({**keys, "repeat": repeat, **row, **of_lesion})
        if repeat:
            continue
        found.rows.append({**keys, **row, **of_lesion, **outside})
        share_ml = row["shape_volume_ml"] / max(len(of_patches), 1)
        found.patches += [
            {**keys, "patch": number, "shape_volume_ml": share_ml, **pooled}
            for number, pooled in of_patches.items()
        ]


def _read_lesions(case: Case, path: Path) -> sitk.Image:
    if not path.is_file():
        raise CaseError(path, "is missing", "segment the case, or ingest it with its outline")
    lesion = read_mask(path)
    if not same_grid(lesion, read_grid(case.ct_path)):
        raise CaseError(path, "does not lie on the CT's grid", "segment this case again")
    if not sitk.GetArrayViewFromImage(lesion).any():
        raise CaseError(path, "holds no lesion", "draw a box round it: --prior box --box")
    return lesion


def _masks(case: Case, lesion: sitk.Image, options: FeatureOptions) -> Iterator[tuple[str, sitk.Image]]:
    """ "label/repeat" and a mask on the CT's grid; repeat 0 is the outline itself.

    The perturbed ones depend on seed, case, label and repeat alone.
    """
    for label in (int(each) for each in np.unique(array_of(lesion)) if each):
        drawn = draw_masks(lesion == label, options.perturb, (options.seed, *case.case_id.encode(), label))
        for repeat, mask in enumerate(drawn):
            yield f"{label}/{repeat}", mask


def _regions(sample: NetworkInput, lesion: sitk.Image) -> Regions:
    lesions, lungs = on_grid(lesion, sample.ct), np.asarray(array_of(sample.lungs) != 0)
    return Regions(sample, lesions, lungs, lung_outside(lesions, lungs, sample.ct.GetSpacing()[::-1]))


def _view(key: str, lesion: Voxels, regions: Regions, model: Model, options: FeatureOptions) -> View:
    """The window of one lesion mask, with its ring and its patches."""
    pooled = {"": lesion}
    if options.ring_mm:
        others = regions.lesions | lesion
        pooled["ring"] = ring(lesion, others, regions.lungs, regions.spacing_mm, options.ring_mm)
    if options.patches and key.endswith("/0"):
        cut = slabs(lesion, regions.spacing_mm, options.patches)
        pooled |= {f"{PATCH}{number}": piece for number, piece in enumerate(cut, start=1)}
    prior = prior_of(model, regions.sample, lesion)
    return view_of(key, pooled, prior, model.config.preprocessing.size)


def _other_views(regions: Regions, model: Model, options: FeatureOptions) -> list[View]:
    """The window of lung far from the lesions, and the tiles of both lungs, as far as they are asked for."""
    size, views = model.config.preprocessing.size, []
    if options.outside and not options.paper and regions.away.any():
        prior = prior_of(model, regions.sample, regions.away)
        views.append(view_of(AWAY, {"": regions.away}, prior, size))
    if options.lungs:
        prior = prior_of(model, regions.sample, regions.lesions)
        if "lungs" in model.config.priors:
            prior = regions.lungs.astype(np.float32)
        views += tiles_of(LUNGS, LUNGS, regions.lungs, prior, size)
    return views


def _apart(deep: dict[str, float]) -> tuple[dict[str, float], dict[int, dict[str, float]]]:
    """The deep features of a lesion, and those of its patches by number, under the same names."""
    lesion: dict[str, float] = {}
    patches: dict[int, dict[str, float]] = {}
    for name, value in deep.items():
        _, region, rest = name.split("_", 2)
        if region.startswith(PATCH):
            patches.setdefault(int(region.removeprefix(PATCH)), {})[f"deep_{rest}"] = value
        else:
            lesion[name] = value
    return lesion, patches


def _outside(regions: Regions, deep: dict[str, float]) -> Row:
    """Columns of the negative control: intensities and deep features of lung far from every lesion."""
    mask = volume_like(regions.away.astype(np.uint8), regions.sample.ct)
    return {f"{OUTSIDE}{name}": value for name, value in {**density(regions.sample.ct, mask), **deep}.items()}
