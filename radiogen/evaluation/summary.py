"""Sum rows up by prompt and by size, beside the floors; prompts are never mixed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from statistics import mean, median
from typing import Any

import numpy as np

from radiogen.evaluation.case import EvaluateOptions, Measured, Row
from radiogen.evaluation.sentences import TOLD
from radiogen.measures.detection import Detection, Froc, froc
from radiogen.measures.floors import FLOORS
from radiogen.measures.intervals import Interval, bootstrap_by_patient, paired_difference, spread

COUNTS = (
    *("lesions", "lesions_found", "lesions_merged", "lesions_missed"),
    *("lesions_fragments", "lesions_false"),
)


@dataclass(frozen=True)
class Summary:
    """Of each prompt: one row, one row a bin of sizes, and the FROC where lesions have scores."""

    prompts: list[Row]
    size_bins: list[Row]
    froc: list[Row]


def summarize(scans: Sequence[Measured], options: EvaluateOptions) -> Summary:
    """Sum up scans of any prompts.

    Intervals are those of a bootstrap by patient, that of the difference to a floor Student's over patients.
    Medians count an infinite distance as the largest, so that a missed scan weighs.
    """
    by_prompt: dict[str, list[Measured]] = {}
    for scan in scans:
        by_prompt.setdefault(str(scan.row["prompt"]), []).append(scan)
    ordered = sorted(by_prompt.items())
    return Summary(
        [_prompt_row(prompt, group, options) for prompt, group in ordered],
        [row for prompt, group in ordered for row in _bin_rows(prompt, group, options)],
        [row for prompt, group in ordered for row in _froc_rows(prompt, group)],
    )


def against_floors(rows: Sequence[Row]) -> Row:
    """The difference of Dice and the best floor, pair by pair.

    The best floor is the one with the highest mean over the rows; chosen on the same scans, it is if anything
    too good. Only floors that every row knows are asked. Rows of one patient are averaged before the
    interval.
    """
    answer: Row = {
        "best_floor": None,
        "best_floor_mean": None,
        "above_floor": None,
        "above_floor_of": len(rows),
    }
    answer |= dict.fromkeys(("over_floor_mean", "over_floor_low", "over_floor_high"))
    known = [name for name in FLOORS if rows and all(row[name] is not None for row in rows)]
    if not known:
        return answer
    best = max(known, key=lambda name: mean(row[name] for row in rows))
    patients = dict.fromkeys(row["patient_id"] for row in rows)
    own = [[row for row in rows if row["patient_id"] == patient] for patient in patients]
    gap = paired_difference(
        [mean(row["dice"] for row in each) for each in own], [mean(row[best] for row in each) for each in own]
    )
    return {
        "best_floor": best,
        "best_floor_mean": mean(row[best] for row in rows),
        "above_floor": sum(row["dice"] > row[best] for row in rows),
        "above_floor_of": len(rows),
        "over_floor_mean": gap.mean,
        "over_floor_low": gap.low,
        "over_floor_high": gap.high,
    }


def _prompt_row(prompt: str, scans: Sequence[Measured], options: EvaluateOptions) -> Row:
    seen = [scan for scan in scans if scan.detection is not None]
    rows = [scan.row for scan in seen if scan.row["dice"] is not None]
    dice = [row["dice"] for row in rows]
    total = sum((scan.detection for scan in seen if scan.detection), Detection())
    summary: Row = {
        "prompt": prompt,
        "patients": len({scan.row["patient_id"] for scan in seen}),
        "scans": len(seen),
        "n": len(rows),
        "scans_without_lesion": len(seen) - len(rows),
        "without_numbers": len(scans) - len(seen),
        **_interval("dice_mean", "dice", rows, options),
        "dice_median": _of(median, rows, "dice"),
        "dice_sd": spread(dice),
        **_interval("surface_dice_mean", "surface_dice", rows, options),
        "hd95_mm_median": _of(median, rows, "hd95_mm"),
        "assd_mm_median": _of(median, rows, "assd_mm"),
        "volume_error_ml_mean": _of(mean, rows, "volume_error_ml"),
        "volume_error_share_median": _of(median, rows, "volume_error_share"),
        **{name: sum(scan.row[name] for scan in seen) for name in COUNTS},
        **_interval("lesion_dice_mean", "dice", _reference_lesions(seen), options),
        **_sensitivity(seen, options),
        "false_per_scan": total.false / len(seen) if seen else None,
        "f1": total.f1,
        "panoptic_quality": total.panoptic_quality,
        **{
            f"{name}_mean": _of(mean, [row for row in rows if row[name] is not None], name) for name in FLOORS
        },
        **against_floors(rows),
    }
    return _rounded(summary)


def _sensitivity(scans: Sequence[Measured], options: EvaluateOptions) -> Row:
    found = [
        {"patient_id": row["patient_id"], "is_found": float(row["outcome"] == "found")}
        for row in _reference_lesions(scans)
    ]
    return _interval("sensitivity", "is_found", found, options)


def _bin_rows(prompt: str, scans: Sequence[Measured], options: EvaluateOptions) -> list[Row]:
    """A lesion that was not found counts with Dice 0, so that a bin is not judged by the lucky ones."""
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
            "dice_of_found_mean": _of(mean, found, "dice"),
            "hd95_mm_of_found_median": _of(median, found, "hd95_mm"),
            "false": sum(
                row["outcome"] == "false" and row["size_bin"] == name
                for scan in scans
                for row in scan.lesions
            ),
            **against_floors(rows),
        }
        listed.append(_rounded(each))
    return listed


def _froc_rows(prompt: str, scans: Sequence[Measured]) -> list[Row]:
    """One row where every predicted lesion has a score and the prompt did not give the lesions away."""
    seen = [scan for scan in scans if scan.detection is not None]
    predicted = [row for scan in seen for row in scan.lesions if row["predicted_lesion"] is not None]
    if prompt in TOLD or not predicted or any(row["score"] is None for row in predicted):
        return []
    curve: Froc | None = froc(
        [row["score"] for row in predicted if row["outcome"] == "found"],
        [row["score"] for row in predicted if row["outcome"] == "false"],
        len(_reference_lesions(seen)),
        len(seen),
    )
    if curve is None:
        return []
    at = {f"sensitivity_at_{rate:g}": s for rate, s in zip(curve.rates, curve.sensitivities, strict=True)}
    return [_rounded({"prompt": prompt, "scans": len(seen), **at, "mean": curve.score})]


def _reference_lesions(scans: Sequence[Measured]) -> list[Row]:
    return [row for scan in scans for row in scan.lesions if row["lesion"] is not None]


def _interval(
    title: str, name: str, rows: Sequence[Row], options: EvaluateOptions, statistic: Any = np.mean
) -> Row:
    """A figure under its title, and the ends of its interval: `dice_mean` has `dice_low` and `dice_high`."""
    found: Interval | None = bootstrap_by_patient(
        [row[name] for row in rows],
        [row["patient_id"] for row in rows],
        np.random.default_rng(options.seed),
        statistic,
        options.bootstrap,
    )
    return {
        title: found and found.value,
        f"{title.removesuffix('_mean')}_low": found and found.low,
        f"{title.removesuffix('_mean')}_high": found and found.high,
    }


def _of(figure: Callable[[list[float]], float], rows: Sequence[Row], name: str) -> float | None:
    values = [row[name] for row in rows]
    return figure(values) if values else None


def for_json(rows: Sequence[Row]) -> list[Row]:
    """Rows as JSON can hold them: an infinite distance as the word inf."""
    return [{name: "inf" if value == inf else value for name, value in row.items()} for row in rows]


def _rounded(row: Row) -> Row:
    return {name: round(value, 4) if isinstance(value, float) else value for name, value in row.items()}
