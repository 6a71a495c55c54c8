"""The two tidy tables of a run: a row a lesion, and a row a patient."""

import csv
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from radiogen.io.cases import Case
from radiogen.provenance import write_csv

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
