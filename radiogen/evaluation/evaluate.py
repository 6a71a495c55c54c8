"""Evaluate predicted lesion masks against reference masks: by scan, lesion and size, prompt by prompt.

Evaluation runs no network: it compares masks. Only `evaluation/jitter.py` runs the model again.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from radiogen.errors import CaseError, OutputError, RadiogenError
from radiogen.evaluation.case import COLUMNS, LESION_COLUMNS, EvaluateOptions, MeasuredScan, Row, measure_case
from radiogen.evaluation.page import write_page
from radiogen.evaluation.sentences import NO_PREDICTION, NO_PROMPT
from radiogen.evaluation.summary import Summary, json_rows, summarize
from radiogen.io.cases import MANIFEST, cases_of_split, find_cases
from radiogen.io.nifti import is_volume_file
from radiogen.provenance import RunRecord, record_path, write_csv, write_failures, write_json
from radiogen.runtime import AnyPath, Progress, no_progress

MASK_FILE = "lesion.nii.gz"


@dataclass(frozen=True)
class Evaluation:
    """One row a case, one a lesion, and their summaries; values that are not known are None."""

    rows: list[Row]  # by COLUMNS
    lesions: list[Row]  # by LESION_COLUMNS
    summary: list[Row]  # one a prompt
    size_bins: list[Row]  # one a prompt and bin
    froc: list[Row]
    failures: list[tuple[str, str, str]] = field(default_factory=list)  # case_id, reason, hint


@dataclass(frozen=True)
class _MaskPair:
    """The masks of one case; None for the side that has none."""

    case_id: str
    predicted: Path | None
    reference: Path | None


def evaluate(
    predicted: AnyPath,
    reference: AnyPath,
    out: AnyPath | None = None,
    options: EvaluateOptions | None = None,
    progress: Progress = no_progress,
) -> Evaluation:
    """Compare masks of the same case; `measures/detection.py` defines a lesion and a match.

    Args:
        predicted: Folder with CASE/lesion.nii.gz and the run record that names the prompt, or a mask file.
        reference: Folder with CASE/lesion.nii.gz, and CASE/ct.nii.gz for the floors by threshold; its
            manifest names the patients. Or a mask file, if `predicted` is one.
        out: CSV file for the rows. Beside it, by the same name: _lesions.csv, .json (the summary), .md (a
            page), _size.png and _volume.png, .run.json. An infinite distance is written as inf, an unknown
            value as an empty cell or null.
        options: The rules.
        progress: Called with the number of cases done and of all.

    Returns:
        Cases that only one side has are rows with a note and no numbers, and so are those that failed.

    Raises:
        CaseError: The folders have no case in common.
        OutputError: `out` does not end in .csv.
        RadiogenError: The only case failed.
    """
    predicted, reference, options = Path(predicted), Path(reference), options or EvaluateOptions()
    out = None if out is None else Path(out)
    if out is not None and out.suffix != ".csv":
        raise OutputError(out, "does not end in .csv", "name it evaluation.csv")
    described = {"predicted": predicted.name, "reference": reference.name, **options.model_dump(mode="json")}
    files = [path for path in (predicted, reference) if path.is_file()]
    record = RunRecord("evaluate", described, options.seed, inputs=files)
    pairs = _pair_masks(predicted, reference, options.split)
    patients = _patients(reference)
    scans: list[MeasuredScan] = []
    failures: list[tuple[str, str, str]] = []
    for number, pair in enumerate(pairs):
        progress("evaluate", number, len(pairs))
        try:
            measured = _measure_pair(pair, options)
        except RadiogenError as error:
            # One bad case never stops a cohort; the only case is an error of its own.
            if len(pairs) == 1:
                raise
            failures.append((pair.case_id, error.reason, error.hint))
            measured = MeasuredScan({"prompt": _prompt_if_readable(pair), "note": error.reason})
        scans.append(_with_ids(measured, pair.case_id, patients.get(pair.case_id, pair.case_id)))
    progress("evaluate", len(pairs), len(pairs))
    summary = summarize(scans, options)
    evaluation = Evaluation(
        rows=[scan.row for scan in scans],
        lesions=[row for scan in scans for row in scan.lesions],
        summary=summary.prompts,
        size_bins=summary.size_bins,
        froc=summary.froc,
        failures=failures,
    )
    if out is not None:
        _write(evaluation, summary, out, options, record)
    return evaluation


def _pair_masks(predicted: Path, reference: Path, split: str | None) -> list[_MaskPair]:
    if is_volume_file(predicted) and is_volume_file(reference):
        return [_MaskPair(predicted.name.split(".")[0], predicted, reference)]
    for path in (predicted, reference):
        if not path.is_dir():
            raise CaseError(path, "is not a folder of cases", "give two folders or two mask files")
    predicted_masks, reference_masks = _masks(predicted), _masks(reference)
    if split is not None:
        of_split = {case.folder.name for case in cases_of_split(reference, split)}
        predicted_masks = {name: path for name, path in predicted_masks.items() if name in of_split}
        reference_masks = {name: path for name, path in reference_masks.items() if name in of_split}
    if not predicted_masks.keys() & reference_masks.keys():
        raise CaseError(
            predicted,
            f"has no CASE/{MASK_FILE} in common with {reference}",
            "give the folders that hold cases",
        )
    # Cases of one side only stay in the table with a note: a missing prediction must be visible.
    names = sorted(predicted_masks.keys() | reference_masks.keys())
    return [_MaskPair(name, predicted_masks.get(name), reference_masks.get(name)) for name in names]


def _masks(folder: Path) -> dict[str, Path]:
    return {path.parent.name: path for path in folder.glob(f"*/{MASK_FILE}")}


def _patients(reference: Path) -> dict[str, str]:
    """Return the patient of each case; without a manifest every case is a patient of its own."""
    if not (reference / MANIFEST).is_file():
        return {}
    # By folder name, by which the masks are paired too.
    return {case.folder.name: case.patient_id or case.case_id for case in find_cases(reference)}


def _measure_pair(pair: _MaskPair, options: EvaluateOptions) -> MeasuredScan:
    if pair.predicted is None:
        note = f"the prediction has no {MASK_FILE} of this case"
        return MeasuredScan({"prompt": NO_PREDICTION, "note": note})
    prompt = _prompt(pair.predicted)
    if pair.reference is None:
        return MeasuredScan({"prompt": prompt, "note": f"the reference has no {MASK_FILE} of this case"})
    measured = measure_case(pair.predicted, pair.reference, options)
    return MeasuredScan({**measured.row, "prompt": prompt}, measured.lesions, measured.detection)


def _with_ids(scan: MeasuredScan, case_id: str, patient_id: str) -> MeasuredScan:
    """Add case, patient and prompt to the rows of a scan."""
    ids = {"case_id": case_id, "patient_id": patient_id, "prompt": scan.row["prompt"]}
    row = {**dict.fromkeys(COLUMNS), **scan.row, **ids}
    return MeasuredScan(row, [{**lesion, **ids} for lesion in scan.lesions], scan.detection)


def _prompt(mask: Path) -> str:
    """Return the prompt that the run record of a mask names."""
    path = record_path(mask)
    # Masks of other tools have no record, and nobody knows what they were shown.
    if not path.is_file():
        return NO_PROMPT
    try:
        options = json.loads(path.read_text(encoding="utf-8"))["options"]
        return str(options.get("prompt") or NO_PROMPT)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CaseError(path, "is not a run record", "segment the case again, or remove it") from error


def _prompt_if_readable(pair: _MaskPair) -> str:
    try:
        return _prompt(pair.predicted) if pair.predicted else NO_PREDICTION
    except CaseError:
        return NO_PROMPT


def _write(
    evaluation: Evaluation, summary: Summary, out: Path, options: EvaluateOptions, record: RunRecord
) -> None:
    # A table without its record does not count as done: the record goes first and comes back last.
    record_path(out).unlink(missing_ok=True)
    lesions, summary_path = out.with_name(f"{out.stem}_lesions.csv"), out.with_suffix(".json")
    write_csv(out, COLUMNS, evaluation.rows)
    write_csv(lesions, LESION_COLUMNS, evaluation.lesions)
    content: dict[str, Any] = {
        "schema_version": 2,
        **options.model_dump(mode="json"),
        "prompts": json_rows(summary.prompts),
        "size_bins": json_rows(summary.size_bins),
        "froc": json_rows(summary.froc),
    }
    write_json(summary_path, content)
    page_and_plots = write_page(out, evaluation.rows, evaluation.lesions, summary, options)
    write_failures(out.with_name(f"{out.stem}_failures.csv"), "evaluate", evaluation.failures)
    record.finish(out, [out, lesions, summary_path, *page_and_plots])
