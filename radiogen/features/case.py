"""All features of one case: a row of numbers for each lesion, and for each perturbed copy of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from radiogen.engines.model_folder import Model
from radiogen.errors import CaseError
from radiogen.features.deep import deep_features, paper_features
from radiogen.features.perturb import draw_masks
from radiogen.features.radiomics import Radiomics
from radiogen.features.regions import Voxels, lung_outside, on_grid, ring, slabs
from radiogen.features.settings import FeatureOptions
from radiogen.features.signs import density, ring_density, signs
from radiogen.features.views import prior_of, tiles_of, view_of
from radiogen.io.cases import Case
from radiogen.io.nifti import read_grid, read_mask
from radiogen.preprocess.network_input import NetworkInput, to_network_grid
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
    """A case on the network's grid, with the voxels of each lesion mask and of lung far from all of them."""

    sample: NetworkInput
    lesions: Mapping[str, Voxels]  # "label/repeat" -> (D, H, W); repeat 0 is the outline itself
    any_lesion: Voxels  # of the outlines
    lungs: Voxels
    away: Voxels  # lung far from the lesions; may be empty


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
    masks = _masks(case, lesion, options)
    regions = _regions(to_network_grid(ct, lungs, lesion, model.config.preprocessing), masks)
    deep = _deep(regions, model, options)
    outside = _outside(regions, deep.pop(AWAY)) if AWAY in deep else {}
    found = CaseRows()
    for (label, repeat), mask in masks.items():
        of_lesion, of_patches = _apart(deep[f"{label}/{repeat}"])
        measured = {**signs(ct, mask, lungs), **of_lesion}
        if options.ring_mm:
            measured |= ring_density(ct, mask, lesion, lungs, options.ring_mm)
        if radiomics:
            numbers = radiomics.measure(ct, mask)
            measured |= numbers
            if not numbers and not repeat:
                found.decisions.append(f"lesion {label} is too small for PyRadiomics; its cells stay empty")
        keys = dict(zip(KEYS, (case.case_id, case.patient_id, label), strict=True))
        if not repeat:
            found.rows.append({**keys, **measured, **outside})
            share_ml = measured["shape_volume_ml"] / max(len(of_patches), 1)
            found.patches += [
                {**keys, "patch": number, "shape_volume_ml": share_ml, **pooled}
                for number, pooled in of_patches.items()
            ]
        if options.perturb:
            found.repeats.append({**keys, "repeat": repeat, **measured})
    return found


def _read_lesions(case: Case, path: Path) -> sitk.Image:
    if not path.is_file():
        raise CaseError(path, "is missing", "segment the case, or ingest it with its outline")
    lesion = read_mask(path)
    if not same_grid(lesion, read_grid(case.ct_path)):
        raise CaseError(path, "does not lie on the CT's grid", "segment this case again")
    if not sitk.GetArrayViewFromImage(lesion).any():
        raise CaseError(path, "holds no lesion", "draw a box round it: --prior box --box")
    return lesion


def _masks(case: Case, lesion: sitk.Image, options: FeatureOptions) -> dict[tuple[int, int], sitk.Image]:
    """(label, repeat) -> mask on the CT's grid; the perturbed ones depend on seed, case and label alone."""
    masks = {}
    for label in (int(each) for each in np.unique(array_of(lesion)) if each):
        drawn = draw_masks(lesion == label, options.perturb, (options.seed, *case.case_id.encode(), label))
        masks.update({(label, repeat): mask for repeat, mask in enumerate(drawn)})
    return masks


def _regions(sample: NetworkInput, masks: Mapping[tuple[int, int], sitk.Image]) -> Regions:
    lesions = {f"{label}/{repeat}": on_grid(mask, sample.ct) for (label, repeat), mask in masks.items()}
    whole = np.logical_or.reduce([each for key, each in lesions.items() if key.endswith("/0")])
    lungs: Voxels = array_of(sample.lungs) != 0
    return Regions(sample, lesions, whole, lungs, lung_outside(whole, lungs, sample.ct.GetSpacing()[::-1]))


def _deep(regions: Regions, model: Model, options: FeatureOptions) -> dict[str, dict[str, float]]:
    """The deep features of each "label/repeat", and under `AWAY` those of lung far from the lesions."""
    sample = regions.sample
    if options.paper:
        return dict.fromkeys(regions.lesions, paper_features(model, sample, regions.any_lesion))
    size = model.config.preprocessing.size
    views = []
    for key, lesion in regions.lesions.items():
        pooled = {"": lesion}
        if options.ring_mm:
            others, spacing = regions.any_lesion | lesion, sample.ct.GetSpacing()[::-1]
            pooled["ring"] = ring(lesion, others, regions.lungs, spacing, options.ring_mm)
        if options.patches and key.endswith("/0"):
            cut = slabs(lesion, sample.ct.GetSpacing()[::-1], options.patches)
            pooled |= {f"{PATCH}{number}": piece for number, piece in enumerate(cut, start=1)}
        views.append(view_of(key, pooled, prior_of(model, sample, lesion), size))
    if options.outside and regions.away.any():
        views.append(view_of(AWAY, {"": regions.away}, prior_of(model, sample, regions.away), size))
    if options.lungs:
        prior = prior_of(model, sample, regions.any_lesion)
        if "lungs" in model.config.priors:
            prior = regions.lungs.astype(np.float32)
        views += tiles_of(LUNGS, LUNGS, regions.lungs, prior, size)
    deep = deep_features(model, sample, views, options.levels, options.batch)
    of_lungs = deep.pop(LUNGS, {})
    return {key: own if key == AWAY else {**own, **of_lungs} for key, own in deep.items()}


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
