"""Extract the feature table: one row a lesion, with a JSON beside it that describes the columns."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from radiogen.cache import key_of, read_cached, write_cached
from radiogen.errors import CaseError, OutputError, RadiogenError
from radiogen.features.case import KEYS, CaseRows, Row, measure_case
from radiogen.features.perturb import STABLE_ICC, perturbed_path, stability_rows
from radiogen.features.radiomics import Radiomics
from radiogen.features.settings import FeatureOptions
from radiogen.io.cases import Case, cases_of_split
from radiogen.io.tables import read_text_table
from radiogen.model.folder import Model
from radiogen.optional import require
from radiogen.provenance import (
    RunRecord,
    is_done,
    record_path,
    short_hash,
    whole_file,
    write_csv,
    write_failures,
    write_json,
)
from radiogen.runtime import AnyPath, Progress, no_progress

SCHEMA_VERSION = 1
PARQUET = ".parquet"


@dataclass
class ExtractedFeatures:
    """Rows of the feature table, and the cases that have none."""

    path: Path
    rows: list[Row] = field(default_factory=list)
    repeats: list[Row] = field(default_factory=list)  # of perturbed masks
    patches: list[Row] = field(default_factory=list)
    failures: list[tuple[str, str, str]] = field(default_factory=list)  # case_id, reason, hint
    decisions: list[str] = field(default_factory=list)
    stable: int | None = None  # features with an ICC of STABLE_ICC or more; None without perturbation

    @property
    def columns(self) -> list[str]:
        """The features, in the order in which they first appear."""
        names = dict.fromkeys(name for row in self.rows for name in row)
        return [name for name in names if name not in KEYS]

    def add(self, case: Case, case_rows: CaseRows) -> None:
        """Add the rows of one case."""
        self.rows += case_rows.rows
        self.repeats += case_rows.repeats
        self.patches += case_rows.patches
        self.decisions += [f"{case.case_id}: {decision}" for decision in case_rows.decisions]


class _Extraction:
    """Model, options and folders that the measuring of all cases shares."""

    def __init__(self, model: Model, options: FeatureOptions, masks: Path | None, cache: Path) -> None:
        self.model = model
        self.options = options
        self.radiomics = Radiomics(options.radiomics_parameters) if options.radiomics else None
        self.masks = masks
        self.cache = cache

    @property
    def settings(self) -> dict[str, Any]:
        """All that decides a number of the table, beside the files of the cases."""
        about = self.radiomics.about() if self.radiomics else None
        return {**self.options.for_record(), "radiomics": about, "model": self.model.hash}

    def mask_of(self, case: Case) -> Path:
        return self.masks / case.case_id / "lesion.nii.gz" if self.masks else case.lesion_path

    def key_of(self, case: Case) -> str:
        """Return the key of a case in the cache: its files, the options, the model."""
        files = [path for path in (case.ct_path, case.lungs_path, self.mask_of(case)) if path.is_file()]
        return key_of(case.case_id, case.patient_id, self.settings, *files)

    def measure(self, case: Case, key: str) -> CaseRows:
        """Return the rows of a case from the cache, or measure it and keep its rows there."""
        path = self.cache / f"{case.case_id}.json"
        cached = read_cached(path, key)
        if cached is not None:
            return CaseRows(**cached)
        rows = measure_case(case, self.mask_of(case), self.model, self.options, self.radiomics)
        write_cached(path, key, asdict(rows))
        return rows


def extract_features(
    cases: AnyPath,
    out: AnyPath,
    model: Model,
    options: FeatureOptions | None = None,
    masks: AnyPath | None = None,
    progress: Progress = no_progress,
    cache: Path | None = None,
    only: Sequence[str] | None = None,
) -> ExtractedFeatures:
    """Write the deep, shape and intensity features of every lesion; with `perturb` their stability too.

    Beside the table come a JSON of its name that describes it, `<name>.failures.csv` if cases failed, and
    with `perturb` `<name>.perturbed.csv` (a row a repeat) and `<name>.stability.csv` (ICC a feature). With
    `patches`, `<name>.patches.csv` has a row a patch of a lesion: deep features alone, to be pooled. A run
    that was killed, or whose failed cases were mended, goes on: the rows of each case are cached in a hidden
    folder beside the table until no case fails.

    Args:
        cases: A case folder, or a folder of cases.
        out: CSV or Parquet file to write.
        model: The RA-Seg whose features are taken.
        options: Which features.
        masks: Output of `segment`; without it the outlines of the cases are the lesions.
        progress: Called with what is done and how much there is.
        cache: Folder of `cache_features`, where the rows of each case stay for good.
        only: Ids of the cases to extract, in the order of the rows; None takes all.

    Raises:
        RadiogenError: The only case failed.
        CaseError: No case has a lesion.
        OutputError: The table exists and `existing` is fail, or it is neither .csv nor .parquet.
    """
    cases, out, options = Path(cases), Path(out), options or FeatureOptions()
    masks = None if masks is None else Path(masks)
    _check_ending(out)
    extraction = _Extraction(model, options, masks, cache or out.with_name(f".{out.stem}.parts"))
    chosen = cases_of_split(cases, options.split)
    if only is not None:
        by_id = {case.case_id: case for case in chosen}
        chosen = [by_id[case_id] for case_id in only]
    keys = {}
    for number, case in enumerate(chosen, start=1):
        keys[case.case_id] = extraction.key_of(case)
        progress("see what is done", number, len(chosen))
    described = {**extraction.settings, "cases": short_hash("".join(keys.values()))}
    if options.existing == "fail" and (out.exists() or record_path(out).exists()):
        raise OutputError(out, "is there already", "take --existing skip or overwrite")
    if options.existing == "overwrite":
        shutil.rmtree(extraction.cache, ignore_errors=True)
    # cases that failed are tried again, as their files may have been mended
    has_failures = _failures_path(out).exists()
    if options.existing == "skip" and not has_failures and is_done(out, described, [], model.hash):
        return ExtractedFeatures(out, rows=[dict(row) for _, row in read_text_table(out).iterrows()])
    record = RunRecord("extract-features", described, options.seed, model_hash=model.hash)
    record.device = str(next(model.network.parameters()).device)
    table = ExtractedFeatures(out)
    for number, case in enumerate(chosen, start=1):
        try:
            table.add(case, extraction.measure(case, keys[case.case_id]))
        except RadiogenError as error:
            if len(chosen) == 1:
                raise
            table.failures.append((case.case_id, error.reason, error.hint))
        progress("features", number, len(chosen))
    if not table.rows:
        raise CaseError(cases, "holds no case with a lesion", "segment the cases and give --masks")
    record_path(out).unlink(missing_ok=True)  # an old record must not vouch for a half-written table
    scans: dict[str, list[str]] = {}
    for case in chosen:
        scans.setdefault(case.patient_id, []).append(case.scan)
    about = {"prompt": _prompt_of_all(chosen, extraction), "scans": scans}
    files = _write_tables(table, extraction, about)
    record.decisions += [*table.decisions, *(f"{case_id}: {reason}" for case_id, reason, _ in table.failures)]
    record.finish(out, files)
    if not table.failures and cache is None:
        shutil.rmtree(extraction.cache, ignore_errors=True)
    return table


def cache_features(
    case: Case, cache: Path, model: Model, options: FeatureOptions, masks: Path | None
) -> None:
    """Measure one case for a later `extract_features(..., cache=cache)`, unless its rows are there.

    Raises:
        CaseError: The case has no lesion.
    """
    extraction = _Extraction(model, options, masks, cache)
    extraction.measure(case, extraction.key_of(case))


def _check_ending(out: Path) -> None:
    if out.suffix not in (".csv", PARQUET):
        raise OutputError(out, "ends neither in .csv nor in .parquet", "choose one of them")
    if out.suffix == PARQUET:
        require("pyarrow", extra="parquet")


def _failures_path(out: Path) -> Path:
    return out.with_name(f"{out.stem}.failures.csv")


def _write_tables(table: ExtractedFeatures, extraction: _Extraction, about: dict[str, Any]) -> list[Path]:
    """Write the table and its companions; return the files written."""
    out, columns = table.path, table.columns
    _write_features(out, [*KEYS, *columns], table.rows)
    write_json(out.with_suffix(".json"), _describe_table(columns, extraction, about))
    write_failures(_failures_path(out), "extract-features", table.failures)
    written = [out, out.with_suffix(".json")]
    if extraction.options.patches:
        patches = out.with_name(f"{out.stem}.patches{out.suffix}")
        names = [name for name in table.patches[0] if name not in (*KEYS, "patch")]
        _write_features(patches, [*KEYS, "patch", *names], table.patches)
        write_json(patches.with_suffix(".json"), _describe_table(names, extraction, about))
        written += [patches, patches.with_suffix(".json")]
    if extraction.options.perturb:
        names = [name for name in columns if any(name in row for row in table.repeats[:1])]
        _write_features(perturbed_path(out), [*KEYS, "repeat", *names], table.repeats)
        stability = stability_rows(table.repeats, KEYS, names)
        table.stable = sum(float(row["icc"] or 0) >= STABLE_ICC for row in stability)
        path = out.with_name(f"{out.stem}.stability.csv")
        write_csv(path, ("feature", "icc", "lesions"), stability)
        written += [perturbed_path(out), path]
    return written


def _write_features(out: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows whole, as CSV or Parquet: floats with seven digits, an unknown number as an empty cell."""
    cells = [{name: _format_cell(row.get(name)) for name in columns} for row in rows]
    if out.suffix != PARQUET:
        write_csv(out, columns, cells)
        return
    table = pd.DataFrame(cells, columns=list(columns))
    for name in columns:
        values = [row.get(name) for row in rows]
        if all(value is None or isinstance(value, float) for value in values):
            # of the seven digits of the CSV, so that both formats hold the same numbers
            table[name] = pd.to_numeric(table[name]).astype(np.float64)
    with whole_file(out) as draft:
        table.to_parquet(draft, engine="pyarrow", index=False)


def _format_cell(value: Any) -> Any:
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return ""
    return f"{value:.7g}" if isinstance(value, float) else value


def _describe_table(columns: list[str], extraction: _Extraction, about: dict[str, Any]) -> dict[str, Any]:
    """Return the content of the JSON beside a table, by which `train_egfr` and `classify_egfr` check it."""
    config = extraction.model.config
    seen = config.patients_seen
    extractor = {"name": "RASeg", "preset": config.preset, **extraction.options.extractor()}
    if extraction.radiomics:
        extractor["radiomics"] = extraction.radiomics.about()
    return {
        "schema_version": SCHEMA_VERSION,
        "extractor": extractor,
        "columns": columns,
        "model_hash": extraction.model.hash,
        "patients_seen": None if seen is None else list(seen),
        "scans_seen": list(config.scans_seen),
        **about,
    }


def _prompt_of_all(cases: list[Case], extraction: _Extraction) -> str:
    """Return the prompt of the lesion masks, `oracle` for outlines, `mixed` where the cases differ."""
    if not extraction.masks:
        return "oracle"
    masks = [mask for mask in map(extraction.mask_of, cases) if mask.is_file()]
    prompts = {_prompt_of(mask) for mask in masks}
    return prompts.pop() if len(prompts) == 1 else "mixed"


def _prompt_of(mask: Path) -> str:
    try:
        record = json.loads(record_path(mask).read_text(encoding="utf-8"))
        return str(record["options"]["prompt"])
    except (OSError, ValueError, KeyError):
        return "unknown"
