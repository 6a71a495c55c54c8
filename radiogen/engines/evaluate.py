"""Evaluate predicted lesion masks against reference masks, case by case and prompt by prompt."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite, isnan
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

import SimpleITK as sitk

from radiogen.errors import CaseError, ConfigError, OutputError, VolumeError
from radiogen.io.cases import cases_of_split
from radiogen.io.nifti import is_volume_file, read_mask, read_volume
from radiogen.measures.floors import FLOORS, floors
from radiogen.measures.overlap import count_lesions, measure_overlap
from radiogen.provenance import RunRecord, record_path, write_csv, write_json
from radiogen.runtime import Tick, no_tick
from radiogen.volume import same_grid

MASK_FILE = "lesion.nii.gz"
CT_FILE = "ct.nii.gz"
COLUMNS = (
    *("case_id", "prompt", "dice", "surface_dice", "hd95_mm"),
    *("predicted_ml", "reference_ml", "volume_error_ml", "volume_error_share"),
    *("lesions", "lesions_found", "lesions_missed", "lesions_false"),
    *(*FLOORS, "note"),
)
NO_PROMPT = "unknown"
NO_PREDICTION = "no prediction"

Row = dict[str, Any]


@dataclass(frozen=True)
class Evaluation:
    """One row a case, and one row a prompt."""

    rows: list[Row]  # by COLUMNS; what is not known is None
    summary: list[Row]


@dataclass(frozen=True)
class _Pair:
    case_id: str
    predicted: Path | None
    reference: Path | None


def evaluate(
    predicted: Path,
    reference: Path,
    out: Path | None = None,
    tolerance_mm: float = 2.0,
    split: str | None = None,
    tick: Tick = no_tick,
) -> Evaluation:
    """Compare masks of the same case; `measures/overlap.py` says how, and what empty masks give.

    Args:
        predicted: Folder with CASE/lesion.nii.gz and the run record that tells the prompt, or a mask file.
        reference: Folder with CASE/lesion.nii.gz, and CASE/ct.nii.gz for the floors by threshold; or a mask
            file, if `predicted` is one.
        out: CSV file for the rows; the summary goes beside it as .json, the run record as .run.json. An
            infinite distance is written as inf, what is not known as an empty cell or null.
        tolerance_mm: Distance up to which surfaces agree.
        split: Only the reference's cases of this split of its manifest.
        tick: Is told of the progress.

    Returns:
        Cases that only one side has are rows with a note and no numbers.

    Raises:
        CaseError: The folders have no case in common.
        ConfigError: The tolerance is negative or no number.
        OutputError: `out` does not end in .csv.
        VolumeError: A mask cannot be read, or does not lie on the grid of its reference.
    """
    if not (isfinite(tolerance_mm) and tolerance_mm >= 0):
        raise ConfigError(
            f"--tolerance-mm {tolerance_mm}", "is not a distance", "give millimetres, 0 or more"
        )
    if out is not None and out.suffix != ".csv":
        raise OutputError(out, "does not end in .csv", "name it evaluation.csv")
    record = RunRecord(
        "evaluate",
        {"predicted": predicted.name, "reference": reference.name, "tolerance_mm": tolerance_mm},
        inputs=[path for path in (predicted, reference) if path.is_file()],
    )
    pairs = _pairs(predicted, reference, split)
    rows = []
    for number, pair in enumerate(pairs):
        tick("evaluate", number, len(pairs))
        rows.append(_row(pair, tolerance_mm))
    tick("evaluate", len(pairs), len(pairs))
    evaluation = Evaluation(rows, summarize(rows))
    if out is not None:
        _write(evaluation, out, record, tolerance_mm)
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


def _row(pair: _Pair, tolerance_mm: float) -> Row:
    row: Row = dict.fromkeys(COLUMNS)
    row["case_id"] = pair.case_id
    if pair.predicted is None:
        return row | {"prompt": NO_PREDICTION, "note": f"the prediction has no {MASK_FILE} of this case"}
    row["prompt"] = _prompt(pair.predicted)
    if pair.reference is None:
        return row | {"note": f"the reference has no {MASK_FILE} of this case"}
    guess, truth = read_mask(pair.predicted), read_mask(pair.reference)
    if not same_grid(guess, truth):
        raise VolumeError(
            pair.predicted,
            f"does not lie on the grid of {pair.reference}",
            "resample it to that grid by nearest neighbour, or segment the CT of the reference",
        )
    overlap, lesions = measure_overlap(guess, truth, tolerance_mm), count_lesions(guess, truth)
    numbers = {
        "dice": overlap.dice,
        "surface_dice": overlap.surface_dice,
        "hd95_mm": overlap.hd95_mm,
        "predicted_ml": overlap.predicted_ml,
        "reference_ml": overlap.reference_ml,
        "volume_error_ml": overlap.volume_error_ml,
        "volume_error_share": overlap.volume_error_share,
        **floors(truth, _ct_of(pair.reference, truth)),
    }
    return row | {
        **{name: None if isnan(value) else round(float(value), 4) for name, value in numbers.items()},
        "lesions": lesions.reference,
        "lesions_found": lesions.found,
        "lesions_missed": lesions.missed,
        "lesions_false": lesions.false,
    }


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


def _ct_of(reference: Path, mask: sitk.Image) -> sitk.Image | None:
    path = reference.with_name(CT_FILE)
    if not path.is_file():
        return None
    ct = read_volume(path)
    if not same_grid(ct, mask):
        raise VolumeError(path, f"does not lie on the grid of {reference.name}", "ingest the case again")
    return ct


def summarize(rows: Sequence[Row]) -> list[Row]:
    """One row a prompt: cases, their Dice and distances, lesions found; None where nothing was measured.

    The median of HD95 counts an infinite distance as the largest, so that a missed case weighs. The standard
    deviation is that of a sample, None for one case.
    """
    prompts = dict.fromkeys(str(row["prompt"]) for row in rows)
    return [_summary(prompt, [row for row in rows if row["prompt"] == prompt]) for prompt in sorted(prompts)]


def _summary(prompt: str, rows: Sequence[Row]) -> Row:
    measured = [row for row in rows if row["dice"] is not None]
    dice = [row["dice"] for row in measured]
    summary: Row = {
        "prompt": prompt,
        "n": len(measured),
        "without_numbers": len(rows) - len(measured),
        "dice_mean": mean(dice) if dice else None,
        "dice_median": median(dice) if dice else None,
        "dice_sd": stdev(dice) if len(dice) > 1 else None,
        "surface_dice_mean": mean(row["surface_dice"] for row in measured) if dice else None,
        "hd95_mm_median": median(row["hd95_mm"] for row in measured) if dice else None,
    }
    for name in ("lesions", "lesions_found", "lesions_missed", "lesions_false"):
        summary[name] = sum(row[name] for row in measured)
    for name in FLOORS:
        known = [row[name] for row in measured if row[name] is not None]
        summary[f"{name}_mean"] = mean(known) if known else None
    return {name: round(value, 4) if isinstance(value, float) else value for name, value in summary.items()}


def _write(evaluation: Evaluation, out: Path, record: RunRecord, tolerance_mm: float) -> None:
    write_csv(out, COLUMNS, evaluation.rows)
    prompts = [
        {name: "inf" if value == float("inf") else value for name, value in row.items()}
        for row in evaluation.summary
    ]
    beside = out.with_suffix(".json")
    write_json(beside, {"schema_version": 1, "tolerance_mm": tolerance_mm, "prompts": prompts})
    record.finish(out, [out, beside])
