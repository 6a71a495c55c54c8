"""Lay cases out as BIDS does: subjects, a sidecar a scan, masks as derivatives. BIDS itself has no CT yet."""

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from radiogen import __version__
from radiogen.cohorts.export_parts import ExportCases, ExportOptions, lay_file, licence_line
from radiogen.errors import CaseError
from radiogen.io.cases import Case
from radiogen.provenance import write_json, write_text

VERSION = "1.9.0"
README = "CT scans and tumour outlines laid out by radiogen. BIDS has no CT yet. Not for clinical use.\n"
MASKS = {"lesion": "tumours, numbered from 1", "lungs": "1 right, 2 left lung"}


def lay_bids(cases: ExportCases, folder: Path, out: Path, options: ExportOptions) -> list[Path]:
    """Write subjects with `ct/` and, below `derivatives/radiogen`, their masks with lesions numbered.

    Args:
        cases: Cases; the folds become a column of `participants.tsv`.
        folder: Where to write.
        out: What the folder will be called.
        options: See `ExportOptions`.

    Raises:
        CaseError: Two patients would be one subject.
    """
    members = [*cases.train, *cases.test]
    subjects = _subjects(members)
    derived = folder / "derivatives" / "radiogen"
    for subject, own in subjects.items():
        for case, session in _sessions(own):
            parts = [subject, *([session] if session else [])]
            place, name = Path(*parts, "ct"), "_".join(parts)
            lay_file(case.ct_path, folder / place / f"{name}_ct.nii.gz", options.copy_files)
            write_json(folder / place / f"{name}_ct.json", _sidecar(case))
            for mask, path in (("lesion", case.lesion_path), ("lungs", case.lungs_path)):
                if path.is_file():
                    target = derived / place / f"{name}_desc-{mask}_dseg"
                    lay_file(path, target.with_name(f"{target.name}.nii.gz"), options.copy_files)
                    source = (place / f"{name}_ct.nii.gz").as_posix()
                    about = {"Description": MASKS[mask], "Sources": [f"bids:raw:{source}"]}
                    write_json(target.with_name(f"{target.name}.json"), about)
    _describe(folder, derived, out, licence_line(members))
    _participants(folder, subjects, cases.fold_of)
    return [folder / "dataset_description.json", folder / "participants.tsv"]


def _subjects(cases: list[Case]) -> dict[str, list[Case]]:
    subjects: dict[str, list[Case]] = defaultdict(list)
    for case in sorted(cases, key=lambda case: case.case_id):
        subject = "sub-" + re.sub(r"[^A-Za-z0-9]", "", case.patient_id)
        if subject in subjects and subjects[subject][0].patient_id != case.patient_id:
            other = subjects[subject][0].patient_id
            raise CaseError(case.patient_id, f"would be {subject}, as {other} is", "change one of the ids")
        subjects[subject].append(case)
    return dict(sorted(subjects.items()))


def _sessions(cases: list[Case]) -> Iterator[tuple[Case, str]]:
    """Each case of a patient, with a session where there are several."""
    for number, case in enumerate(cases, start=1):
        yield case, f"ses-{number:02d}" if len(cases) > 1 else ""


def _sidecar(case: Case) -> dict[str, Any]:
    about = case.about()
    scanner = about.get("scanner") or {}
    return {
        "case_id": case.case_id,
        "cohort": case.cohort,
        "decisions": about.get("decisions", []),
        "scanner": scanner,
        "units": "HU",
    }


def _describe(folder: Path, derived: Path, out: Path, licence: str) -> None:
    made_by = [{"Name": "radiogen", "Version": __version__}]
    about = {"Name": out.resolve().name, "BIDSVersion": VERSION, "License": licence, "GeneratedBy": made_by}
    write_json(folder / "dataset_description.json", {**about, "DatasetType": "raw"})
    links = {"DatasetType": "derivative", "DatasetLinks": {"raw": "../.."}}
    write_json(derived / "dataset_description.json", {**about, **links})
    write_text(folder / "README", README)


def _participants(folder: Path, subjects: dict[str, list[Case]], fold_of: dict[str, int]) -> None:
    columns = ("participant_id", "patient_id", "egfr", "cohort", "split", "fold")
    lines = ["\t".join(columns)]
    for subject, own in subjects.items():
        first = own[0]
        fold = str(fold_of.get(first.case_id, "n/a"))
        cells = (subject, first.patient_id, first.egfr, first.cohort, first.split, fold)
        lines.append("\t".join(cell or "n/a" for cell in cells))
    write_text(folder / "participants.tsv", "\n".join(lines) + "\n")
    meaning = {
        "egfr": {"Description": "EGFR mutation status", "Levels": {"mutant": "", "wildtype": ""}},
        "fold": {"Description": "part that radiogen train --folds holds out; n/a: not trained on"},
    }
    write_json(folder / "participants.json", meaning)
