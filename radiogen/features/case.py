"""Measure all features of one case: a row of numbers for each lesion, and for each perturbed mask of it."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from radiogen.errors import CaseError
from radiogen.features.deep import (
    FeatureWindow,
    deep_features,
    make_prior,
    paper_features,
    tile_region,
    window_round,
)
from radiogen.features.perturb import draw_masks
from radiogen.features.radiomics import Radiomics
from radiogen.features.regions import Voxels, cut_patches, lung_outside, on_grid, ring
from radiogen.features.settings import FeatureOptions
from radiogen.features.signs import density, ring_density, signs
from radiogen.io.cases import Case
from radiogen.io.nifti import read_grid, read_mask
from radiogen.model.folder import Model
from radiogen.model.network_input import NetworkInput, to_network_grid
from radiogen.volume import array_of, same_grid, volume_like

KEYS = ("case_id", "patient_id", "lesion")
OUTSIDE = "outside_"  # columns of the negative control
AWAY, LUNGS = "away", "lungs"  # keys of the windows that show no lesion
PATCH = "patch"
Row = dict[str, Any]


@dataclass
class CaseRows:
    """Rows of one case for the three tables, and decisions for the run record."""

    rows: list[Row] = field(default_factory=list)  # one a lesion
    repeats: list[Row] = field(default_factory=list)  # one a perturbed mask
    patches: list[Row] = field(default_factory=list)  # one a patch of a lesion
    decisions: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class CaseMasks:
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
        path: Lesion mask, labels 1..n.
        model: The network whose features are taken.
        options: Which features.
        radiomics: PyRadiomics, or None.

    Raises:
        CaseError: The mask is missing, empty, or lies on another grid; the lungs are empty.
    """
    lesion = _read_lesions(case, path)
    ct, lungs = case.ct(), case.lungs()
    sample = to_network_grid(ct, lungs, lesion, model.config.preprocessing)
    regions = _find_regions(sample, lesion, case.is_crop)
    case_rows = CaseRows()
    windows = _windows_without_lesion(regions, model, options)
    measured: dict[str, Row] = {}
    for key, mask in _masks(case, lesion, options):
        # The lung mask of a crop is no lung: it tells neither a distance to the pleura nor emphysema.
        row: Row = dict(signs(ct, mask, None if case.is_crop else lungs))
        if options.ring_mm:
            row |= ring_density(ct, mask, lesion, lungs, options.ring_mm)
        if radiomics:
            numbers = radiomics.measure(ct, mask)
            row |= numbers
            if not numbers:
                case_rows.decisions.append(f"lesion {key}: too small for PyRadiomics, its cells stay empty")
        if not options.paper:
            on_network = on_grid(mask, regions.sample.ct)
            windows.append(_lesion_window(key, on_network, regions, model, options))
        measured[key] = row
    if options.paper:
        deep = dict.fromkeys(measured, paper_features(model, regions.sample, regions.lesions))
    else:
        deep = deep_features(model, regions.sample, windows, options.levels, options.batch)
    outside = _outside_columns(regions, deep.pop(AWAY)) if AWAY in deep else {}
    of_lungs = deep.pop(LUNGS, {})
    by_key = {key: {**own, **of_lungs} for key, own in deep.items()}
    _add_rows(case_rows, case, measured, by_key, outside, options)
    return case_rows


def _add_rows(
    case_rows: CaseRows,
    case: Case,
    measured: dict[str, Row],
    deep: dict[str, dict[str, float]],
    outside: Row,
    options: FeatureOptions,
) -> None:
    for key, row in measured.items():
        label, repeat = (int(part) for part in key.split("/"))
        of_lesion, of_patches = _split_patches(deep[key])
        keys = dict(zip(KEYS, (case.case_id, case.patient_id, label), strict=True))
        # repeat 0, the mask as drawn, stands among the repeats too: the ICC compares all of them
        if options.perturb:
            case_rows.repeats.append({**keys, "repeat": repeat, **row, **of_lesion})
        if repeat:
            continue
        case_rows.rows.append({**keys, **row, **of_lesion, **outside})
        patch_ml = row["shape_volume_ml"] / max(len(of_patches), 1)  # patches have equal size
        case_rows.patches += [
            {**keys, "patch": number, "shape_volume_ml": patch_ml, **pooled}
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
    """Yield a key "label/repeat" and a mask on the CT's grid; repeat 0 is the mask as it was drawn.

    The perturbed masks depend on seed, case, label and repeat alone, not on the other cases.
    """
    for label in (int(value) for value in np.unique(array_of(lesion)) if value):
        seed = (options.seed, *case.case_id.encode(), label)
        for repeat, mask in enumerate(draw_masks(lesion == label, options.perturb, seed)):
            yield f"{label}/{repeat}", mask


def _find_regions(sample: NetworkInput, lesion: sitk.Image, is_crop: bool) -> CaseMasks:
    lesions = on_grid(lesion, sample.ct)
    lungs = np.asarray(array_of(sample.lungs) != 0)
    # A crop shows no lung far from its lesion, and a control beside the tumour would be none.
    known_lungs = np.zeros_like(lungs) if is_crop else lungs
    return CaseMasks(sample, lesions, lungs, lung_outside(lesions, known_lungs, sample.ct.GetSpacing()[::-1]))


def _lesion_window(
    key: str, lesion: Voxels, regions: CaseMasks, model: Model, options: FeatureOptions
) -> FeatureWindow:
    """Return the window of one lesion mask, with its ring and its patches."""
    # one window serves all regions round a lesion, so the network runs once
    pooled = {"": lesion}
    if options.ring_mm:
        others = regions.lesions | lesion
        pooled["ring"] = ring(lesion, others, regions.lungs, regions.spacing_mm, options.ring_mm)
    if options.patches and key.endswith("/0"):
        patches = cut_patches(lesion, regions.spacing_mm, options.patches)
        pooled |= {f"{PATCH}{number}": patch for number, patch in enumerate(patches, start=1)}
    prior = make_prior(model, regions.sample, lesion)
    return window_round(key, pooled, prior, model.config.preprocessing.size)


def _windows_without_lesion(regions: CaseMasks, model: Model, options: FeatureOptions) -> list[FeatureWindow]:
    """Return the window of lung far from the lesions, and tiles of both lungs, as the options want."""
    size = model.config.preprocessing.size
    windows = []
    if options.outside and not options.paper and regions.away.any():
        prior = make_prior(model, regions.sample, regions.away)
        windows.append(window_round(AWAY, {"": regions.away}, prior, size))
    if options.lungs:
        prior = make_prior(model, regions.sample, regions.lesions)
        if "lungs" in model.config.priors:
            prior = regions.lungs.astype(np.float32)
        windows += tile_region(LUNGS, LUNGS, regions.lungs, prior, size)
    return windows


def _split_patches(deep: dict[str, float]) -> tuple[dict[str, float], dict[int, dict[str, float]]]:
    """Return the deep features of a lesion, and those of its patches by number, under the same names."""
    lesion: dict[str, float] = {}
    patches: dict[int, dict[str, float]] = {}
    for name, value in deep.items():
        _, region, rest = name.split("_", 2)
        if region.startswith(PATCH):
            patches.setdefault(int(region.removeprefix(PATCH)), {})[f"deep_{rest}"] = value
        else:
            lesion[name] = value
    return lesion, patches


def _outside_columns(regions: CaseMasks, deep: dict[str, float]) -> Row:
    """Return the columns of the negative control: density and deep features of lung far from every lesion."""
    mask = volume_like(regions.away.astype(np.uint8), regions.sample.ct)
    return {f"{OUTSIDE}{name}": value for name, value in {**density(regions.sample.ct, mask), **deep}.items()}
