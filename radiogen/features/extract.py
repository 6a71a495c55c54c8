"""The feature table: one row a lesion, with a JSON beside it that says what the columns are."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from radiogen.cache import key_of, read_cached, write_cached
from radiogen.errors import CaseError, OutputError, RadiogenError
from radiogen.features.case import KEYS, CaseRows, Row, measure_case
from radiogen.features.files import check_ending, perturbed_path, write_features
from radiogen.features.perturb import STABLE_ICC, stability_rows
from radiogen.features.radiomics import Radiomics
from radiogen.features.settings import FeatureOptions
from radiogen.io.cases import Case, cases_of_split
from radiogen.io.tables import read_text_table
from radiogen.model.folder import Model
from radiogen.provenance import (
    RunRecord,
    is_done,
    record_path,
    short_hash,
    write_csv,
    write_failures,
    write_json,
)
from radiogen.runtime import Progress, no_progress

SCHEMA_VERSION = 1


@dataclass
class FeatureTable:
    """Rows of the table, and the cases that have none."""

    path: Path
    rows: list[Row] = field(default_factory=list)
    repeats: list[Row] = field(default_factory=list)  # of perturbed masks
    patches: list[Row] = field(default_factory=list)
    failures: list[tuple[str, str, str]] = field(default_factory=list)  # case_id, reason, way out
    decisions: list[str] = field(default_factory=list)
    stable: int | None = None  # features with an ICC of STABLE_ICC or more; None without perturbation

    @property
    def columns(self) -> list[str]:
        """The features, in the order in which they first appear."""
        names = dict.fromkeys(name for row in self.rows for name in row)
        return [name for name in names if name not in KEYS]


@dataclass(frozen=True)
class _Work:
    """What the extraction of every case shares."""

    model: Model
    options: FeatureOptions
    radiomics: Radiomics | None
    masks: Path | None
    parts: Path

    @property
    def how(self) -> dict[str, Any]:
        about = self.radiomics.about() if self.radiomics else None
        return {**self.options.described(), "radiomics": about, "model": self.model.hash}

    def mask_of(self, case: Case) -> Path:
        return self.masks / case.case_id / "lesion.nii.gz" if self.masks else case.lesion_path

    def key_of(self, case: Case) -> str:
        """Return the key of what decides the rows of a case: its files, the options, the model."""
        paths = (case.ct_path, case.lungs_path, self.mask_of(case))
        files = [path for path in paths if path.is_file()]
        return key_of(*files, self.how, case.case_id, case.patient_id)


def extract_features(
    cases: Path,
    out: Path,
    model: Model,
    options: FeatureOptions,
    masks: Path | None = None,
    progress: Progress = no_progress,
    kept: Path | None = None,
    only: Sequence[str] | None = None,
) -> FeatureTable:
    """Deep, shape and intensity features of every lesion; with `perturb` how stable each of them is.

    Beside the table come a JSON of its name that says what made it, `<name>.failures.csv` if cases failed,
    and with `perturb` `<name>.perturbed.csv` (a row a repeat) and `<name>.stability.csv` (ICC a feature).
    With `patches` `<name>.patches.csv` has a row a piece of a lesion: deep features alone, to be pooled.
    A run that was killed, or whose failed cases were mended, goes on: what was measured is kept in a
    hidden folder beside the table until no case fails.

    Args:
        cases: A case folder, or a folder of cases.
        out: CSV or Parquet file to write.
        model: The RA-Seg whose features are taken.
        options: Which features.
        masks: Output of `segment`; else the outlines of the cases are the lesions.
        progress: Called with what is done and how much there is.
        kept: Folder of `keep_features`, where what is measured of each case stays for good.
        only: Ids of the cases that are taken, in the order of the rows; else all.

    Raises:
        RadiogenError: The only case failed.
        CaseError: No case has a lesion.
        OutputError: The table is there and `existing` is fail, or its name has another ending.
    """
    check_ending(out)
    work = _work(model, options, masks, kept or out.with_name(f".{out.stem}.parts"))
    found = _chosen(cases_of_split(cases, options.split), only)
    keys = {}
    for number, case in enumerate(found, start=1):
        keys[case.case_id] = work.key_of(case)
        progress("see what is done", number, len(found))
    described = {**work.how, "cases": short_hash("".join(keys.values()))}
    if options.existing == "fail" and (out.exists() or record_path(out).exists()):
        raise OutputError(out, "is there already", "take --existing skip or overwrite")
    if options.existing == "overwrite":
        shutil.rmtree(work.parts, ignore_errors=True)
    if options.existing == "skip" and not _failures(out).exists() and is_done(out, described, [], model.hash):
        return FeatureTable(out, rows=[dict(row) for _, row in read_text_table(out).iterrows()])
    record = RunRecord("extract-features", described, options.seed, model_hash=model.hash)
    record.device = str(next(model.network.parameters()).device)
    table = FeatureTable(out)
    for number, case in enumerate(found, start=1):
        try:
            _add(table, case, _measure(case, keys[case.case_id], work))
        except RadiogenError as error:
            if len(found) == 1:
                raise
            table.failures.append((case.case_id, error.reason, error.hint))
        progress("features", number, len(found))
    if not table.rows:
        raise CaseError(cases, "holds no case with a lesion", "segment the cases and give --masks")
    record_path(out).unlink(missing_ok=True)
    outputs = _write(table, work, _prompt(found, work))
    record.decisions += [*table.decisions, *(f"{case_id}: {reason}" for case_id, reason, _ in table.failures)]
    record.finish(out, outputs)
    if not table.failures and kept is None:
        shutil.rmtree(work.parts, ignore_errors=True)
    return table


def keep_features(case: Case, kept: Path, model: Model, options: FeatureOptions, masks: Path | None) -> None:
    """Measure one case and keep its rows for `extract_features(..., kept=kept)`; what is there stays.

    Raises:
        CaseError: The case has no lesion.
    """
    work = _work(model, options, masks, kept)
    _measure(case, work.key_of(case), work)


def _work(model: Model, options: FeatureOptions, masks: Path | None, parts: Path) -> _Work:
    radiomics = Radiomics(options.radiomics_parameters) if options.radiomics else None
    return _Work(model, options, radiomics, masks, parts)


def _chosen(cases: list[Case], only: Sequence[str] | None) -> list[Case]:
    by_id = {case.case_id: case for case in cases}
    return cases if only is None else [by_id[case_id] for case_id in only]


def _failures(out: Path) -> Path:
    return out.with_name(f"{out.stem}.failures.csv")


def _measure(case: Case, key: str, work: _Work) -> CaseRows:
    place = work.parts / f"{case.case_id}.json"
    kept = read_cached(place, key)
    if kept is not None:
        return CaseRows(**kept)
    rows = measure_case(case, work.mask_of(case), work.model, work.options, work.radiomics)
    write_cached(place, key, asdict(rows))
    return rows


def _add(table: FeatureTable, case: Case, found: CaseRows) -> None:
    table.rows += found.rows
    table.repeats += found.repeats
    table.patches += found.patches
    table.decisions += [f"{case.case_id}: {each}" for each in found.decisions]


def _write(table: FeatureTable, work: _Work, prompt: str) -> list[Path]:
    """Write the table and its companions; the files written."""
    out, columns = table.path, table.columns
    write_features(out, [*KEYS, *columns], table.rows)
    write_json(out.with_suffix(".json"), _schema(columns, work, prompt))
    write_failures(_failures(out), "extract-features", table.failures)
    written = [out, out.with_suffix(".json")]
    if work.options.patches:
        pieces = out.with_name(f"{out.stem}.patches{out.suffix}")
        names = [name for name in table.patches[0] if name not in (*KEYS, "patch")]
        write_features(pieces, [*KEYS, "patch", *names], table.patches)
        write_json(pieces.with_suffix(".json"), _schema(names, work, prompt))
        written += [pieces, pieces.with_suffix(".json")]
    if work.options.perturb:
        names = [name for name in columns if any(name in row for row in table.repeats[:1])]
        write_features(perturbed_path(out), [*KEYS, "repeat", *names], table.repeats)
        stability = out.with_name(f"{out.stem}.stability.csv")
        found = stability_rows(table.repeats, KEYS, names)
        table.stable = sum(float(each["icc"] or 0) >= STABLE_ICC for each in found)
        write_csv(stability, ("feature", "icc", "lesions"), found)
        written += [perturbed_path(out), stability]
    return written


def _schema(columns: list[str], work: _Work, prompt: str) -> dict[str, Any]:
    config = work.model.config
    seen = config.patients_seen
    extractor = {"name": "RASeg", "preset": config.preset, **work.options.extractor()}
    if work.radiomics:
        extractor["radiomics"] = work.radiomics.about()
    return {
        "schema_version": SCHEMA_VERSION,
        "extractor": extractor,
        "columns": columns,
        "model_hash": work.model.hash,
        "patients_seen": None if seen is None else list(seen),
        "prompt": prompt,
    }


def _prompt(cases: list[Case], work: _Work) -> str:
    """Who said where the lesions are, in all cases alike; `mixed` where they differ."""
    if not work.masks:
        return "oracle"
    said = {_prompt_of(work.mask_of(case)) for case in cases if work.mask_of(case).is_file()}
    return said.pop() if len(said) == 1 else "mixed"


def _prompt_of(mask: Path) -> str:
    try:
        record = json.loads(record_path(mask).read_text(encoding="utf-8"))
        return str(record["options"]["prompt"])
    except (OSError, ValueError, KeyError):
        return "unknown"
