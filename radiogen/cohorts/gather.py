"""What stands over all cases of a run: manifest, tables, failures, probabilities, the page."""

import csv
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from radiogen.cohorts.ledger import HOME, Entry, stamp
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
ABOUT = ("case_id", "patient_id", "cohort", "split", "egfr")
ANSWER = ("probability", "low", "high", "class", "in_distribution", "note")
OF_A_LESION = re.compile(r"lesion \d+: .*, score [\d.]+")
LESIONS_TABLE, PATIENTS_TABLE = "cohort.csv", "patients.csv"


def write_tables(run: Path, cases: Sequence[Case], failures: Sequence[Mapping[str, str]]) -> None:
    """Write cohort.csv (a row a lesion; a case without one has a row too) and patients.csv.

    Args:
        run: The run; what its folders hold is joined by case and patient.
        cases: The cases that are done, in the order of the rows.
        failures: Rows of failures.csv.
    """
    answers = {row["patient_id"]: row for row in read_rows(run / "predictions.csv")}
    rows: list[Row] = []
    patients: dict[str, Row] = {}
    for case in cases:
        about = {name: getattr(case, name) for name in ABOUT}
        answer = {name: answers.get(case.patient_id, {}).get(name, "") for name in ANSWER}
        found = read_rows(run / "segmented" / case.case_id / "lesions.csv")
        said = "; ".join(_decisions(run, case))
        rows += [{**about, **lesion, **answer, "decisions": said} for lesion in found or [{}]]
        _add(patients, case, found, answer, said)
    failed: dict[str, list[str]] = {}
    known = {case.case_id: case.patient_id for case in cases}
    for failure in failures:
        patient = known.get(failure["case_id"])
        if patient:
            failed.setdefault(patient, []).append(f"{failure['step']}: {failure['reason']}")
    for patient, whys in failed.items():
        patients[patient]["failed"] = "; ".join(whys)
    lesion_columns = dict.fromkeys(name for row in rows for name in row)
    last = ("decisions",)
    middle = [name for name in lesion_columns if name not in (*ABOUT, *ANSWER, *last)]
    write_csv(run / LESIONS_TABLE, [*ABOUT, *middle, *ANSWER, *last], rows)
    columns = (
        "patient_id",
        "cohort",
        "split",
        "egfr",
        "cases",
        "lesions",
        "volume_ml",
        "longest_diameter_mm",
    )
    ordered = [patients[name] for name in sorted(patients)]
    write_csv(run / PATIENTS_TABLE, [*columns, *ANSWER, "failed", "decisions"], ordered)


def _add(patients: dict[str, Row], case: Case, found: Sequence[Row], answer: Row, said: str) -> None:
    row = patients.setdefault(
        case.patient_id,
        {"patient_id": case.patient_id, "cohort": case.cohort, "split": case.split, "egfr": case.egfr}
        | {"cases": 0, "lesions": 0, "volume_ml": 0.0, "longest_diameter_mm": 0.0, "decisions": "", **answer},
    )
    row["cases"] += 1
    row["lesions"] += len(found)
    row["volume_ml"] = round(row["volume_ml"] + sum(float(each["volume_ml"]) for each in found), 4)
    longest = [row["longest_diameter_mm"], *(float(each["longest_diameter_mm"]) for each in found)]
    row["longest_diameter_mm"] = max(longest)
    row["decisions"] = "; ".join(filter(None, [row["decisions"], said]))


def _decisions(run: Path, case: Case) -> list[str]:
    """What ingest and segment decided of a case; origin and score of a lesion have columns of their own."""
    said: list[str] = []
    for path in (case.folder / "case.json", run / "segmented" / case.case_id / "lesion.run.json"):
        try:
            said += json.loads(path.read_text(encoding="utf-8")).get("decisions", [])
        except (OSError, ValueError):
            continue
    return [each for each in said if not OF_A_LESION.fullmatch(each)]


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV table of radiogen; none where it is not there."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


TABLE, PREDICTIONS, FAILURES, PAGE = "features.csv", "predictions.csv", "failures.csv", "report.html"
GATHERED = "gathered.json"
Failure = dict[str, str]


@dataclass(frozen=True)
class Gathering:
    """All cases of a run, settled."""

    run: Path
    settings: CohortSettings
    tasks: Mapping[str, CaseTask]
    entries: Mapping[str, Entry]
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


def gather(all_of: Gathering, progress: Progress) -> list[Failure]:
    """Write what stands over all cases, in the order of their ids; the rows of failures.csv.

    Nothing is written if nothing has changed since the last time.

    Raises:
        RadiogenError: The EGFR model and the tables do not go together, or nothing can be written.
    """
    run, settings = all_of.run, all_of.settings
    known, place = _known(all_of), run / HOME / GATHERED
    try:
        last = json.loads(place.read_text(encoding="utf-8"))
        if last["known"] == known and last["outputs"] == stamp(_outputs(run)):
            return [dict(row) for row in last["failures"]]
    except (OSError, ValueError, KeyError, TypeError):
        pass
    failures = _failures(all_of)
    _write_steps(all_of, failures)
    done = all_of.done
    wanted = set(done)
    for step, name in (("extract-features", TABLE), ("classify-egfr", PREDICTIONS)):
        if not wanted or step not in settings.steps:
            _take_away(run / name)  # of an earlier run with other steps, and perhaps of other lesions
    if wanted and "extract-features" in settings.steps and settings.model:
        model = network_of_features(settings.model, settings.device)
        masks = masks_of(settings, run)
        extract_features(
            all_of.cases, run / TABLE, model, settings.features, masks, progress, run / FEATURES, done
        )
        failed = _of_step(failures, "extract-features")
        write_failures(run / "features.failures.csv", "extract-features", failed)
        if "classify-egfr" in settings.steps:
            failures += _classify(all_of, progress)
    failures.sort(key=lambda row: row["case_id"])
    if failures:
        write_csv(run / FAILURES, FAILURE_COLUMNS, failures)
    else:
        (run / FAILURES).unlink(missing_ok=True)
    cases = [] if not wanted else [c for c in cases_of_split(all_of.cases, None) if c.case_id in wanted]
    write_tables(run, sorted(cases, key=lambda case: case.case_id), failures)
    if "report" in settings.steps and (wanted or failures):
        report(run, run / PAGE, ReportOptions(jobs=all_of.jobs), progress)
    write_json(place, {"known": known, "failures": failures, "outputs": stamp(_outputs(run))})
    return failures


def _take_away(table: Path) -> None:
    record_path(table).unlink(missing_ok=True)
    table.unlink(missing_ok=True)


def _known(all_of: Gathering) -> str:
    """Stands for all that the tables are made of."""
    settings = all_of.settings
    files = [*files_of(settings.model), settings.clinical, settings.clinical_mapping]
    if settings.egfr is not None:
        files.append(settings.egfr / "config.json")
    if "ingest" not in settings.steps:
        files.append(settings.source / MANIFEST)
    said = [settings.model_dump_json(), json.dumps(all_of.clinical, sort_keys=True)]
    said += [stamp(path for path in files if path)]
    said += [
        f"{name} {entry.outcome} {entry.inputs} {entry.outputs} {entry.reason}"
        for name, entry in sorted(all_of.entries.items())
    ]
    return short_hash("\n".join(said))


def _outputs(run: Path) -> list[Path]:
    return [run / name for name in (LESIONS_TABLE, PATIENTS_TABLE, TABLE, PREDICTIONS, FAILURES, PAGE)]


def _failures(all_of: Gathering) -> list[Failure]:
    failed = [entry for _, entry in sorted(all_of.entries.items()) if entry.outcome == "failed"]
    cells = ((entry.case_id, entry.step, entry.reason, entry.hint) for entry in failed)
    return [dict(zip(FAILURE_COLUMNS, each, strict=True)) for each in cells]


def _of_step(failures: Sequence[Failure], step: str) -> list[tuple[str, str, str]]:
    return [(row["case_id"], row["reason"], row["way_out"]) for row in failures if row["step"] == step]


def _write_steps(all_of: Gathering, failures: Sequence[Failure]) -> None:
    """The tables that the single commands write into the folders of their steps."""
    run, steps = all_of.run, all_of.settings.steps
    if "ingest" in steps:
        there = [task.plan for name, task in sorted(all_of.tasks.items())
                 if task.plan and (run / CASES / name / "case.run.json").is_file()]  # fmt: skip
        list_cases(run / CASES, there, all_of.clinical)
        write_failures(run / CASES / FAILURES, "ingest", _of_step(failures, "ingest"))
    if "segment" in steps:
        rows = [row for name in all_of.done for row in read_rows(run / SEGMENTED / name / "lesions.csv")]
        write_lesions_csv(rows, run / SEGMENTED / "lesions.csv")
        write_failures(run / SEGMENTED / FAILURES, "segment", _of_step(failures, "segment"))


def _classify(all_of: Gathering, progress: Progress) -> list[Failure]:
    """Write predictions.csv; patients whom the clinical table lacks become failures of their cases."""
    run, settings = all_of.run, all_of.settings
    if settings.egfr is None:
        return []
    clinical, mapping = settings.clinical, settings.clinical_mapping
    if clinical is None or "ingest" in settings.steps:  # the manifest has the ids of the cases
        clinical, mapping = all_of.cases / MANIFEST, None
    table, lost = run / TABLE, []
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
        _take_away(run / PREDICTIONS)
    why = (
        "classify-egfr",
        "the clinical table has no row for this patient",
        "add it, empty cells are allowed",
    )
    return [dict(zip(FAILURE_COLUMNS, (case_id, *why), strict=True)) for case_id in lost]
