"""Summarise rows by prompt and by size, with bootstrap intervals, beside the floors.

Prompts are never mixed: a Dice with a box from the true mask and one without a prompt are different figures.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from statistics import mean, median
from typing import Any

import numpy as np

from radiogen.evaluation.case import COUNT_COLUMNS, EvaluateOptions, MeasuredScan, Row
from radiogen.evaluation.sentences import PROMPTS_WITH_PLACE
from radiogen.measures.detection import Detection, Froc, froc
from radiogen.measures.floors import FLOORS, best_floor, unknown_floors
from radiogen.measures.intervals import Interval, bootstrap_by_patient, paired_difference, sample_deviation


@dataclass(frozen=True)
class Summary:
    """Of each prompt: one row, one row a bin of sizes, and the FROC where lesions have scores."""

    prompts: list[Row]
    size_bins: list[Row]
    froc: list[Row]


def summarize(scans: Sequence[MeasuredScan], options: EvaluateOptions) -> Summary:
    """Summarise scans of any prompts.

    Intervals are those of a bootstrap by patient; that of the difference to a floor is Student's t.
    Medians count an infinite distance as the largest, so that a missed scan weighs.
    """
    by_prompt: dict[str, list[MeasuredScan]] = {}
    for scan in scans:
        by_prompt.setdefault(str(scan.row["prompt"]), []).append(scan)
    ordered = sorted(by_prompt.items())
    return Summary(
        [_prompt_row(prompt, group, options) for prompt, group in ordered],
        [row for prompt, group in ordered for row in _bin_rows(prompt, group, options)],
        [row for prompt, group in ordered for row in _froc_rows(prompt, group)],
    )


def compare_with_best_floor(rows: Sequence[Row]) -> Row:
    """Return the difference between Dice and the best floor, pair by pair.

    Rows of one patient are averaged before the interval, since they are not independent.
    """
    best = best_floor(rows)
    if best is None:
        return {
            "best_floor": None,
            "best_floor_mean": None,
            "floors_unknown": [],
            "above_floor": None,
            "above_floor_of": len(rows),
            "over_floor_mean": None,
            "over_floor_low": None,
            "over_floor_high": None,
        }
    by_patient: dict[str, list[Row]] = {}
    for row in rows:
        by_patient.setdefault(row["patient_id"], []).append(row)
    # Paired: whether a case is easy matters to both, and cancels.
    gap = paired_difference(
        [mean(row["dice"] for row in own) for own in by_patient.values()],
        [mean(row[best] for row in own) for own in by_patient.values()],
    )
    return {
        "best_floor": best,
        "best_floor_mean": mean(row[best] for row in rows),
        "floors_unknown": unknown_floors(rows),  # the best floor may be one of these
        "above_floor": sum(row["dice"] > row[best] for row in rows),
        "above_floor_of": len(rows),
        "over_floor_mean": gap.mean,
        "over_floor_low": gap.low,
        "over_floor_high": gap.high,
    }


def _prompt_row(prompt: str, scans: Sequence[MeasuredScan], options: EvaluateOptions) -> Row:
    measured = [scan for scan in scans if scan.detection is not None]
    rows = [scan.row for scan in measured if scan.row["dice"] is not None]  # those with a lesion to find
    dice = [row["dice"] for row in rows]
    total = sum((scan.detection for scan in measured if scan.detection), Detection())
    summary: Row = {
        "prompt": prompt,
        "patients": len({scan.row["patient_id"] for scan in measured}),
        "scans": len(measured),
        "n": len(rows),
        "scans_without_lesion": len(measured) - len(rows),
        "without_numbers": len(scans) - len(measured),
        **_interval("dice_mean", "dice", rows, options),
        "dice_median": _statistic(median, rows, "dice"),
        "dice_sd": sample_deviation(dice),
        **_interval("surface_dice_mean", "surface_dice", rows, options),
        "hd95_mm_median": _statistic(median, rows, "hd95_mm"),
        "assd_mm_median": _statistic(median, rows, "assd_mm"),
        "volume_error_ml_mean": _statistic(mean, rows, "volume_error_ml"),
        "volume_error_share_median": _statistic(median, rows, "volume_error_share"),
        **{name: sum(scan.row[name] for scan in measured) for name in COUNT_COLUMNS},
        **_interval("lesion_dice_mean", "dice", _reference_lesions(measured), options),
        **_sensitivity(measured, options),
        "false_per_scan": total.false / len(measured) if measured else None,
        "f1": total.f1,
        "panoptic_quality": total.panoptic_quality,
        **{
            f"{name}_mean": _statistic(mean, [row for row in rows if row[name] is not None], name)
            for name in FLOORS
        },
        **compare_with_best_floor(rows),
    }
    return summary


def _sensitivity(scans: Sequence[MeasuredScan], options: EvaluateOptions) -> Row:
    lesions = [
        {"patient_id": row["patient_id"], "is_found": float(row["outcome"] == "found")}
        for row in _reference_lesions(scans)
    ]
    return _interval("sensitivity", "is_found", lesions, options)


def _bin_rows(prompt: str, scans: Sequence[MeasuredScan], options: EvaluateOptions) -> list[Row]:
    """Return a row for each size bin of a prompt.

    A lesion that was not found counts with Dice 0: a mean over found lesions alone gets better by missing the
    hard ones. It stands beside, as `dice_of_found_mean`.
    """
    listed = []
    lesions = _reference_lesions(scans)
    for name in options.size_bin_names() if lesions else ():
        rows = [row for row in lesions if row["size_bin"] == name]
        found = [row for row in rows if row["outcome"] == "found"]
        each: Row = {
            "prompt": prompt,
            "size_bin": name,
            "lesions": len(rows),
            "patients": len({row["patient_id"] for row in rows}),
            "found": len(found),
            "found_share": len(found) / len(rows) if rows else None,
            **_interval("dice_mean", "dice", rows, options),
            **_interval("dice_median", "dice", rows, options, np.median),
            "dice_of_found_mean": _statistic(mean, found, "dice"),
            "hd95_mm_of_found_median": _statistic(median, found, "hd95_mm"),
            # A false lesion has no reference: it is binned by its own diameter.
            "false": sum(
                row["outcome"] == "false" and row["size_bin"] == name
                for scan in scans
                for row in scan.lesions
            ),
            **compare_with_best_floor(rows),
        }
        listed.append(each)
    return listed


def _froc_rows(prompt: str, scans: Sequence[MeasuredScan]) -> list[Row]:
    """Return a row where every predicted lesion has a score and the prompt did not give the lesions away."""
    measured = [scan for scan in scans if scan.detection is not None]
    predicted = [row for scan in measured for row in scan.lesions if row["predicted_lesion"] is not None]
    # With a box from the truth every lesion is "found", and a curve over scores would mean nothing.
    if prompt in PROMPTS_WITH_PLACE or not predicted or any(row["score"] is None for row in predicted):
        return []
    curve: Froc | None = froc(
        [row["score"] for row in predicted if row["outcome"] == "found"],
        [row["score"] for row in predicted if row["outcome"] == "false"],
        len(_reference_lesions(measured)),
        len(measured),
    )
    if curve is None:
        return []
    at = {f"sensitivity_at_{rate:g}": s for rate, s in zip(curve.rates, curve.sensitivities, strict=True)}
    return [{"prompt": prompt, "scans": len(measured), **at, "mean": curve.score}]


def _reference_lesions(scans: Sequence[MeasuredScan]) -> list[Row]:
    return [row for scan in scans for row in scan.lesions if row["lesion"] is not None]


def _interval(
    title: str, name: str, rows: Sequence[Row], options: EvaluateOptions, statistic: Any = np.mean
) -> Row:
    """Return a figure under its title, and its interval: `dice_mean` has `dice_low` and `dice_high`."""
    interval: Interval | None = bootstrap_by_patient(
        [row[name] for row in rows],
        [row["patient_id"] for row in rows],
        # A generator of its own for each figure: one more figure does not change the others.
        np.random.default_rng(options.seed),
        statistic,
        options.bootstrap,
    )
    return {
        title: interval and interval.value,
        f"{title.removesuffix('_mean')}_low": interval and interval.low,
        f"{title.removesuffix('_mean')}_high": interval and interval.high,
    }


def _statistic(statistic: Callable[[list[float]], float], rows: Sequence[Row], name: str) -> float | None:
    values = [row[name] for row in rows]
    return statistic(values) if values else None


def json_rows(rows: Sequence[Row]) -> list[Row]:
    """Return rows as JSON can hold them: an infinite distance as the word inf."""
    return [{name: "inf" if value == inf else value for name, value in row.items()} for row in rows]
