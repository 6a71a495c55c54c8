"""The feature table: one row a lesion, with a JSON beside it that says what the columns are."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from radiogen.config import Settings
from radiogen.engines.model_folder import Model
from radiogen.errors import CaseError, RadiogenError
from radiogen.features.deep import LEVELS, deep_features, paper_features
from radiogen.features.signs import signs
from radiogen.io.cases import Case, cases_of_split
from radiogen.io.nifti import read_grid, read_mask
from radiogen.preprocess.network_input import NetworkInput, to_network_grid
from radiogen.provenance import RunRecord, record_path, write_csv, write_failures, write_json
from radiogen.runtime import Tick, no_tick
from radiogen.volume import array_of, same_grid, volume_like

SCHEMA_VERSION = 1
KEYS = ("case_id", "patient_id", "lesion")


class FeatureOptions(Settings):
    """Which features are computed."""

    levels: tuple[str, ...] = LEVELS
    paper: bool = False
    split: str | None = None  # only the cases of this split


@dataclass
class FeatureTable:
    """Rows of the table, and the cases that have none."""

    path: Path
    rows: list[dict[str, Any]] = field(default_factory=list)
    failures: list[tuple[str, str, str]] = field(default_factory=list)  # case_id, reason, way out


def extract_features(
    cases: Path,
    out: Path,
    model: Model,
    options: FeatureOptions,
    masks: Path | None = None,
    tick: Tick = no_tick,
) -> FeatureTable:
    """Deep, shape and intensity features of every lesion.

    Args:
        cases: A case folder, or a folder of cases.
        out: CSV to write; a JSON of the same name says what made it.
        model: The RA-Seg whose features are taken.
        options: Levels, or the published features.
        masks: Output of `segment`; else the outlines of the cases are the lesions.
        tick: Told of progress.

    Raises:
        RadiogenError: The only case failed.
        CaseError: No case has a lesion.
    """
    record = RunRecord("extract-features", options.model_dump(mode="json"), model_hash=model.hash)
    table, prompts = FeatureTable(out), set()
    found = cases_of_split(cases, options.split)
    for number, case in enumerate(found, start=1):
        try:
            path = masks / case.case_id / "lesion.nii.gz" if masks else case.lesion_path
            table.rows += _rows(case, path, model, options)
            prompts.add(_prompt(path) if masks else "oracle")
        except RadiogenError as error:
            if len(found) == 1:
                raise
            table.failures.append((case.case_id, error.reason, error.way_out))
        tick("features", number, len(found))
    if not table.rows:
        raise CaseError(cases, "holds no case with a lesion", "segment the cases and give --masks")
    _write(table, out)
    write_json(out.with_suffix(".json"), _schema(table, model, options, prompts))
    record.decisions += [f"{case_id}: {reason}" for case_id, reason, _ in table.failures]
    record.device = str(next(model.network.parameters()).device)
    record.finish(out, [out, out.with_suffix(".json")])
    return table


def _rows(case: Case, path: Path, model: Model, options: FeatureOptions) -> Iterator[dict[str, Any]]:
    if not path.is_file():
        raise CaseError(path, "is missing", "segment the case, or ingest it with its outline")
    lesion = read_mask(path)
    if not same_grid(lesion, read_grid(case.ct_path)):
        raise CaseError(path, "does not lie on the CT's grid", "segment this case again")
    labels = [int(label) for label in np.unique(array_of(lesion)) if label]
    if not labels:
        raise CaseError(path, "holds no lesion", "draw a box round it: --prior box --box")
    ct, lungs = case.ct(), case.lungs()
    sample = keep_labels(to_network_grid(ct, lungs, lesion, model.config.preprocessing), lesion, labels)
    published = paper_features(model, sample) if options.paper else None
    for label in labels:
        deep = deep_features(model, sample, label, options.levels) if published is None else published
        yield {
            **dict(zip(KEYS, (case.case_id, case.patient_id, label), strict=True)),
            **signs(ct, lesion == label, lungs),
            **deep,
        }


def keep_labels(sample: NetworkInput, lesion: sitk.Image, labels: list[int]) -> NetworkInput:
    """Put a lesion that fell between the voxels of the network's grid back as the voxel at its centre."""
    if sample.lesion is None:
        return sample
    array = array_of(sample.lesion)
    lost = [label for label in labels if not (array == label).any()]
    if not lost:
        return sample
    shapes = sitk.LabelShapeStatisticsImageFilter()
    shapes.Execute(lesion)
    for label in lost:
        x, y, z = sample.lesion.TransformPhysicalPointToIndex(shapes.GetCentroid(label))
        array[z, y, x] = label
    return replace(sample, lesion=volume_like(array, sample.lesion))


def _prompt(mask: Path) -> str:
    try:
        record = json.loads(record_path(mask).read_text(encoding="utf-8"))
        return str(record["options"]["prompt"])
    except (OSError, ValueError, KeyError):
        return "unknown"


def _schema(table: FeatureTable, model: Model, options: FeatureOptions, prompts: set[str]) -> dict[str, Any]:
    seen = model.config.patients_seen
    taken = {"levels": [*options.levels], "paper": options.paper}
    return {
        "schema_version": SCHEMA_VERSION,
        "extractor": {"name": "RASeg", "preset": model.config.preset, **taken},
        "columns": [name for name in table.rows[0] if name not in KEYS],
        "model_hash": model.hash,
        "patients_seen": None if seen is None else list(seen),
        "prompt": prompts.pop() if len(prompts) == 1 else "mixed",
    }


def _write(table: FeatureTable, out: Path) -> None:
    rows = ({name: _written(value) for name, value in row.items()} for row in table.rows)
    write_csv(out, list(table.rows[0]), rows)
    write_failures(out.with_name(f"{out.stem}.failures.csv"), "extract-features", table.failures)


def _written(value: Any) -> Any:
    """Floats with seven digits; a number that is not there is an empty field."""
    if isinstance(value, float):
        return "" if np.isnan(value) else f"{value:.7g}"
    return value
