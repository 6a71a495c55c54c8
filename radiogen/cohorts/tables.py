"""Write what covers all cases of a run: manifest, tables, failures, probabilities, the page."""

import csv
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from radiogen.cache import read_cached, write_cached
from radiogen.cohorts.ledger import HOME, LedgerEntry, stamp
from radiogen.cohorts.one_case import (
    CASES,
    FEATURES,
    SEGMENTED,
    CaseTask,
    files_of,
    masks_of,
    network_of_features,
)
from radiogen.cohorts.settings import CohortSettings
from radiogen.egfr.classify import classify_egfr
from radiogen.egfr.persistence import load_model as load_egfr
from radiogen.features.extract import extract_features
from radiogen.ingestion.ingest import list_cases
from radiogen.ingestion.plans import Clinical
from radiogen.io.cases import MANIFEST, Case, cases_of_split
from radiogen.io.clinical import read_clinical
from radiogen.provenance import (
    FAILURE_COLUMNS,
    record_path,
    short_hash,
    write_csv,
    write_failures,
    write_json,
)
from radiogen.report.page import ReportOptions, report
from radiogen.runtime import Progress
from radiogen.segmentation.lesion_map import write_lesions_csv

Row = dict[str, Any]
PATIENT_COLUMNS = ("patient_id", "cohort", "split", "egfr")
CASE_COLUMNS = ("case_id", *PATIENT_COLUMNS)
EGFR_COLUMNS = ("probability", "low", "high", "class", "in_distribution", "note")
LESION_DECISION = re.compile(r"lesion \d+: .*, score [\d.]+")
PATIENT_SUMS = ("cases", "lesions", "volume_ml", "longest_diameter_mm")
LESIONS_TABLE, PATIENTS_TABLE = "cohort.csv", "patients.csv"


def write_tables(run: Path, cases: Sequence[Case], failures: Sequence[Mapping[str, str]]) -> None:
    """Write cohort.csv (a row a lesion; a case without one has a row too) and patients.csv.

    Args:
        run: The run; what its folders hold is joined by case and patient.
        cases: The cases that are done, in the order of the rows.
        failures: Rows of failures.csv.
    """
    predictions = {row["patient_id"]: row for row in read_rows(run / "predictions.csv")}
    rows: list[Row] = []
    patients: dict[str, Row] = {}
    for case in cases:
        about = {name: getattr(case, name) for name in CASE_COLUMNS}
        prediction = predictions.get(case.patient_id, {})
        egfr = {name: prediction.get(name, "") for name in EGFR_COLUMNS}
        lesions = read_rows(run / "segmented" / case.case_id / "lesions.csv")
        decisions = "; ".join(_decisions(run, case))
        rows += [{**about, **lesion, **egfr, "decisions": decisions} for lesion in lesions or [{}]]
        _add_to_patient(patients, case, lesions, egfr, decisions)
    _add_failures(patients, cases, failures)
    found = dict.fromkeys(name for row in rows for name in row)
    lesion_columns = [name for name in found if name not in (*CASE_COLUMNS, *EGFR_COLUMNS, "decisions")]
    write_csv(run / LESIONS_TABLE, [*CASE_COLUMNS, *lesion_columns, *EGFR_COLUMNS, "decisions"], rows)
    columns = [*PATIENT_COLUMNS, *PATIENT_SUMS, *EGFR_COLUMNS, "failed", "decisions"]
    write_csv(run / PATIENTS_TABLE, columns, [patients[name] for name in sorted(patients)])


def _add_to_patient(
    patients: dict[str, Row], case: Case, lesions: Sequence[Row], egfr: Row, decisions: str
) -> None:
    """Add a case to the row of its patient: lesions and volumes are summed, the longest diameter counts."""
    if case.patient_id not in patients:
        about = {name: getattr(case, name) for name in PATIENT_COLUMNS}
        zeros = {"cases": 0, "lesions": 0, "volume_ml": 0.0, "longest_diameter_mm": 0.0, "decisions": ""}
        patients[case.patient_id] = {**about, **zeros, **egfr}
    row = patients[case.patient_id]
    row["cases"] += 1
    row["lesions"] += len(lesions)
    row["volume_ml"] = round(row["volume_ml"] + sum(float(each["volume_ml"]) for each in lesions), 4)
    longest = [row["longest_diameter_mm"], *(float(each["longest_diameter_mm"]) for each in lesions)]
    row["longest_diameter_mm"] = max(longest)
    row["decisions"] = "; ".join(filter(None, [row["decisions"], decisions]))


def _add_failures(
    patients: dict[str, Row], cases: Sequence[Case], failures: Sequence[Mapping[str, str]]
) -> None:
    """Name the failures of a patient whose other cases, or other steps, went through."""
    patient_of = {case.case_id: case.patient_id for case in cases}
    failed: dict[str, list[str]] = {}
    for failure in failures:
        patient = patient_of.get(failure["case_id"])
        if patient:
            failed.setdefault(patient, []).append(f"{failure['step']}: {failure['reason']}")
    for patient, reasons in failed.items():
        patients[patient]["failed"] = "; ".join(reasons)


def _decisions(run: Path, case: Case) -> list[str]:
    """Read what ingest and segment decided of a case; origin and score of a lesion have their own columns."""
    decisions: list[str] = []
    for path in (case.folder / "case.json", run / "segmented" / case.case_id / "lesion.run.json"):
        try:
            decisions += json.loads(path.read_text(encoding="utf-8")).get("decisions", [])
        except (OSError, ValueError):
            continue
    return [each for each in decisions if not LESION_DECISION.fullmatch(each)]


def read_rows(path: Path) -> list[dict[str, str]]:
    """Read the rows of a CSV table of radiogen; none where it is not there."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


TABLE, PREDICTIONS, FAILURES, PAGE = "features.csv", "predictions.csv", "failures.csv", "report.html"
CACHED = "gathered.json"
Failure = dict[str, str]


@dataclass(frozen=True)
class SettledRun:
    """All cases of a run, settled."""

    run: Path
    settings: CohortSettings
    tasks: Mapping[str, CaseTask]
    entries: Mapping[str, LedgerEntry]
    clinical: Clinical
    jobs: int = 1  # cases that the page is drawn from at the same time

    @property
    def done(self) -> list[str]:
        """Ids of the cases that went through, sorted."""
        return sorted(name for name, entry in self.entries.items() if entry.outcome == "done")

    @property
    def cases(self) -> Path:
        """The folder with the manifest."""
        return self.run / CASES if "ingest" in self.settings.steps else self.settings.source


def write_run_tables(settled: SettledRun, progress: Progress) -> list[Failure]:
    """Write what covers all cases, in the order of their ids; the rows of failures.csv.

    Nothing is written if nothing has changed since the last time.

    Raises:
        RadiogenError: The EGFR model and the tables do not go together, or nothing can be written.
    """
    run, key, place = settled.run, _key(settled), settled.run / HOME / CACHED
    last = read_cached(place, key)
    if last is not None and last["outputs"] == stamp(_outputs(run)):
        return [dict(row) for row in last["failures"]]
    failures = _failures(settled)
    _write_step_tables(settled, failures)
    done = settled.done
    steps = settled.settings.steps
    for step, name in (("extract-features", TABLE), ("classify-egfr", PREDICTIONS)):
        if not done or step not in steps:
            _remove_result(run / name)  # of an earlier run with other steps, and perhaps of other lesions
    if done and "extract-features" in steps and settled.settings.model:
        failures += _write_features(settled, failures, progress)
    failures.sort(key=lambda row: row["case_id"])
    if failures:
        write_csv(run / FAILURES, FAILURE_COLUMNS, failures)
    else:
        (run / FAILURES).unlink(missing_ok=True)
    by_id = {case.case_id: case for case in cases_of_split(settled.cases, None)} if done else {}
    write_tables(run, [by_id[name] for name in done if name in by_id], failures)
    if "report" in steps and (done or failures):
        report(run, run / PAGE, ReportOptions(jobs=settled.jobs), progress)
    write_cached(place, key, {"failures": failures, "outputs": stamp(_outputs(run))})
    return failures


def _write_features(settled: SettledRun, failures: Sequence[Failure], progress: Progress) -> list[Failure]:
    """Write the feature table and, if it is a step, the predictions; returns further failures."""
    run, settings = settled.run, settled.settings
    model = network_of_features(settings.model, settings.device)
    masks, kept = masks_of(settings, run), run / FEATURES
    extract_features(
        settled.cases, run / TABLE, model, settings.features, masks, progress, kept, settled.done
    )
    failed = _of_step(failures, "extract-features")
    write_failures(run / "features.failures.csv", "extract-features", failed)
    return _classify(settled, progress) if "classify-egfr" in settings.steps else []


def _remove_result(table: Path) -> None:
    """Remove a table, its record first: without one, a table does not count as done."""
    record_path(table).unlink(missing_ok=True)
    table.unlink(missing_ok=True)


def _key(settled: SettledRun) -> str:
    """Return a hash of all that the tables are made of."""
    settings = settled.settings
    files = [*files_of(settings.model), settings.clinical, settings.clinical_mapping]
    if settings.egfr is not None:
        files.append(settings.egfr / "config.json")
    if "ingest" not in settings.steps:
        files.append(settings.source / MANIFEST)
    parts = [settings.model_dump_json(), json.dumps(settled.clinical, sort_keys=True)]
    parts.append(stamp(path for path in files if path))
    parts += [
        f"{name} {entry.outcome} {entry.inputs} {entry.outputs} {entry.reason}"
        for name, entry in sorted(settled.entries.items())
    ]
    return short_hash("\n".join(parts))


def _outputs(run: Path) -> list[Path]:
    return [run / name for name in (LESIONS_TABLE, PATIENTS_TABLE, TABLE, PREDICTIONS, FAILURES, PAGE)]


def _failures(settled: SettledRun) -> list[Failure]:
    failed = [entry for _, entry in sorted(settled.entries.items()) if entry.outcome == "failed"]
    return [_failure(entry.case_id, entry.step, entry.reason, entry.hint) for entry in failed]


def _of_step(failures: Sequence[Failure], step: str) -> list[tuple[str, str, str]]:
    return [(row["case_id"], row["reason"], row["way_out"]) for row in failures if row["step"] == step]


def _write_step_tables(settled: SettledRun, failures: Sequence[Failure]) -> None:
    """Write the tables that the single commands write into the folders of their steps."""
    run, steps = settled.run, settled.settings.steps
    if "ingest" in steps:
        plans = [
            task.plan
            for name, task in sorted(settled.tasks.items())
            if task.plan and (run / CASES / name / "case.run.json").is_file()
        ]
        list_cases(run / CASES, plans, settled.clinical)
        write_failures(run / CASES / FAILURES, "ingest", _of_step(failures, "ingest"))
    if "segment" in steps:
        rows = [row for name in settled.done for row in read_rows(run / SEGMENTED / name / "lesions.csv")]
        write_lesions_csv(rows, run / SEGMENTED / "lesions.csv")
        write_failures(run / SEGMENTED / FAILURES, "segment", _of_step(failures, "segment"))


def _classify(settled: SettledRun, progress: Progress) -> list[Failure]:
    """Write predictions.csv; patients whom the clinical table lacks become failures of their cases."""
    run, settings = settled.run, settled.settings
    if settings.egfr is None:
        return []
    clinical, mapping = settings.clinical, settings.clinical_mapping
    if clinical is None or "ingest" in settings.steps:  # the manifest has the ids of the cases
        clinical, mapping = settled.cases / MANIFEST, None
    table = run / TABLE
    lost: list[str] = []
    rows = read_rows(table)
    if load_egfr(settings.egfr).config["clinical_columns"]:
        known = set(read_clinical(clinical, mapping)["patient_id"])
        lost = sorted({row["case_id"] for row in rows if row["patient_id"] not in known})
        if lost:
            table = run / HOME / TABLE
            write_csv(table, list(rows[0]), [row for row in rows if row["patient_id"] in known])
            about = json.loads((run / TABLE).with_suffix(".json").read_text(encoding="utf-8"))
            write_json(table.with_suffix(".json"), about)
    if len(lost) < len({row["case_id"] for row in rows}):
        classify_egfr(table, settings.egfr, run / PREDICTIONS, clinical, mapping, progress=progress)
    else:
        _remove_result(run / PREDICTIONS)
    reason, hint = "the clinical table has no row for this patient", "add it, empty cells are allowed"
    return [_failure(case_id, "classify-egfr", reason, hint) for case_id in lost]


def _failure(*cells: str) -> Failure:
    return dict(zip(FAILURE_COLUMNS, cells, strict=True))
