"""Evaluate predicted lesion masks against reference masks: by scan, lesion and size, prompt by prompt."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from radiogen.errors import CaseError, OutputError, RadiogenError
from radiogen.evaluation.case import COLUMNS, LESION_COLUMNS, EvaluateOptions, Measured, Row, measure_case
from radiogen.evaluation.page import write_page
from radiogen.evaluation.sentences import NO_PREDICTION, NO_PROMPT
from radiogen.evaluation.summary import Summary, for_json, summarize
from radiogen.io.cases import MANIFEST, cases_of_split, find_cases
from radiogen.io.nifti import is_volume_file
from radiogen.provenance import RunRecord, record_path, write_csv, write_failures, write_json
from radiogen.runtime import Progress, no_progress

MASK_FILE = "lesion.nii.gz"


@dataclass(frozen=True)
class Evaluation:
    """One row a case, one a lesion, and what they sum up to; what is not known is None."""

    rows: list[Row]  # by COLUMNS
    lesions: list[Row]  # by LESION_COLUMNS
    summary: list[Row]  # one a prompt
    size_bins: list[Row]  # one a prompt and bin
    froc: list[Row]
    failures: list[tuple[str, str, str]] = field(default_factory=list)  # case_id, reason, way out


@dataclass(frozen=True)
class _Pair:
    case_id: str
    predicted: Path | None
    reference: Path | None


def evaluate(
    predicted: Path,
    reference: Path,
    out: Path | None = None,
    options: EvaluateOptions | None = None,
    progress: Progress = no_progress,
) -> Evaluation:
    """Compare masks of the same case; `measures/matching.py` says what a lesion and a match are.

    Args:
        predicted: Folder with CASE/lesion.nii.gz and the run record that tells the prompt, or a mask file.
        reference: Folder with CASE/lesion.nii.gz, and CASE/ct.nii.gz for the floors by threshold; its
            manifest tells the patients. Or a mask file, if `predicted` is one.
        out: CSV file for the rows. Beside it, by the same name: _lesions.csv, .json (the summary), .md (a
            page), _size.png and _volume.png, .run.json. An infinite distance is written as inf, what is not
            known as an empty cell or null.
        options: The rules.
        progress: Called with what is done and how much there is.

    Returns:
        Cases that only one side has are rows with a note and no numbers, and so are those that failed.

    Raises:
        CaseError: The folders have no case in common.
        OutputError: `out` does not end in .csv.
        RadiogenError: The only case failed.
    """
    options = options or EvaluateOptions()
    if out is not None and out.suffix != ".csv":
        raise OutputError(out, "does not end in .csv", "name it evaluation.csv")
    described = {"predicted": predicted.name, "reference": reference.name, **options.model_dump(mode="json")}
    files = [path for path in (predicted, reference) if path.is_file()]
    record = RunRecord("evaluate", described, options.seed, inputs=files)
    pairs = _pairs(predicted, reference, options.split)
    patients = _patients(reference)
    scans: list[Measured] = []
    failures: list[tuple[str, str, str]] = []
    for number, pair in enumerate(pairs):
        progress("evaluate", number, len(pairs))
        try:
            measured = _measure(pair, options)
        except RadiogenError as error:
            if len(pairs) == 1:
                raise
            failures.append((pair.case_id, error.reason, error.hint))
            measured = Measured({"prompt": _prompt_if_readable(pair), "note": error.reason})
        scans.append(_named(measured, pair.case_id, patients.get(pair.case_id, pair.case_id)))
    progress("evaluate", len(pairs), len(pairs))
    summary = summarize(scans, options)
    evaluation = Evaluation(
        [scan.row for scan in scans],
        [row for scan in scans for row in scan.lesions],
        summary.prompts, summary.size_bins, summary.froc, failures,
    )  # fmt: skip
    if out is not None:
        _write(evaluation, summary, out, options, record)
    return evaluation


def _pairs(predicted: Path, reference: Path, split: str | None) -> list[_Pair]:
    if is_volume_file(predicted) and is_volume_file(reference):
        return [_Pair(predicted.name.split(".")[0], predicted, reference)]
    for path in (predicted, reference):
        if not path.is_dir():
            raise CaseError(path, "is not a folder of cases", "give two folders or two mask files")
    here, there = _masks(predicted), _masks(reference)
    if split is not None:
        wanted = {case.folder.name for case in cases_of_split(reference, split)}
        here, there = ({name: masks[name] for name in masks if name in wanted} for masks in (here, there))
    if not here.keys() & there.keys():
        raise CaseError(
            predicted,
            f"has no CASE/{MASK_FILE} in common with {reference}",
            "give the folders that hold cases",
        )
    return [_Pair(name, here.get(name), there.get(name)) for name in sorted(here.keys() | there.keys())]


def _masks(folder: Path) -> dict[str, Path]:
    return {path.parent.name: path for path in folder.glob(f"*/{MASK_FILE}")}


def _patients(reference: Path) -> dict[str, str]:
    """Whose each case is; without a manifest every case is a patient of its own."""
    if not (reference / MANIFEST).is_file():
        return {}
    return {case.folder.name: case.patient_id or case.case_id for case in find_cases(reference)}


def _measure(pair: _Pair, options: EvaluateOptions) -> Measured:
    if pair.predicted is None:
        note = f"the prediction has no {MASK_FILE} of this case"
        return Measured({"prompt": NO_PREDICTION, "note": note})
    prompt = _prompt(pair.predicted)
    if pair.reference is None:
        return Measured({"prompt": prompt, "note": f"the reference has no {MASK_FILE} of this case"})
    measured = measure_case(pair.predicted, pair.reference, options)
    return Measured({**measured.row, "prompt": prompt}, measured.lesions, measured.detection)


def _named(scan: Measured, case_id: str, patient_id: str) -> Measured:
    """A measured scan whose rows say of which case and patient they are."""
    about = {"case_id": case_id, "patient_id": patient_id, "prompt": scan.row["prompt"]}
    row = {**dict.fromkeys(COLUMNS), **scan.row, **about}
    return Measured(row, [{**lesion, **about} for lesion in scan.lesions], scan.detection)


def _prompt(mask: Path) -> str:
    """What the run record of a mask says it was made with."""
    path = record_path(mask)
    if not path.is_file():
        return NO_PROMPT
    try:
        options = json.loads(path.read_text(encoding="utf-8"))["options"]
        return str(options.get("prompt") or NO_PROMPT)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CaseError(path, "is not a run record", "segment the case again, or remove it") from error


def _prompt_if_readable(pair: _Pair) -> str:
    try:
        return _prompt(pair.predicted) if pair.predicted else NO_PREDICTION
    except CaseError:
        return NO_PROMPT


def _write(
    evaluation: Evaluation, summary: Summary, out: Path, options: EvaluateOptions, record: RunRecord
) -> None:
    record_path(out).unlink(missing_ok=True)
    lesions, beside = out.with_name(f"{out.stem}_lesions.csv"), out.with_suffix(".json")
    write_csv(out, COLUMNS, evaluation.rows)
    write_csv(lesions, LESION_COLUMNS, evaluation.lesions)
    content: dict[str, Any] = {
        "schema_version": 2,
        **options.model_dump(mode="json"),
        "prompts": for_json(summary.prompts),
        "size_bins": for_json(summary.size_bins),
        "froc": for_json(summary.froc),
    }
    write_json(beside, content)
    made = write_page(out, evaluation.rows, evaluation.lesions, summary, options)
    write_failures(out.with_name(f"{out.stem}_failures.csv"), "evaluate", evaluation.failures)
    record.finish(out, [out, lesions, beside, *made])
