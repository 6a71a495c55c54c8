"""The curve of Dice against jitter: rows summed up, said in sentences, written and drawn."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np

from radiogen.evaluation.case import Row
from radiogen.drawing.plots import draw_jitter
from radiogen.evaluation.sentences import many, markdown_table, say_floor, within
from radiogen.evaluation.summary import against_floors
from radiogen.measures.floors import FLOORS
from radiogen.measures.intervals import bootstrap_by_patient
from radiogen.measures.paired import paired_difference
from radiogen.provenance import RunRecord, record_path, write_csv, write_failures, write_json, write_text

COLUMNS = ("case_id", "patient_id", "prompt", "jitter", "draw", "dice", "lesion_dice_mean", *FLOORS)
FIGURES = ("dice", "lesion_dice_mean", *FLOORS)


@dataclass(frozen=True)
class JitterCurve:
    """One row a case, level and draw; one row a level; what has no row."""

    rows: list[Row]  # by COLUMNS
    levels: list[Row]
    seen_in_training: int | None  # patients; None where the model does not say whom it has seen
    without_lesion: int = 0  # cases
    failures: list[tuple[str, str, str]] = field(default_factory=list)  # case_id, reason, way out


def level_rows(rows: Sequence[Row], seed: int, bootstrap: int) -> list[Row]:
    """One row a level: Dice with its interval, the loss against the smallest level, floors at the same boxes.

    The draws of a case are averaged first: a case counts once, and the best floor is judged over cases.
    """
    levels = sorted({row["jitter"] for row in rows})
    first = _cases(rows, levels[0])
    listed = []
    for level in levels:
        cases = _cases(rows, level)
        dice = bootstrap_by_patient(
            [row["dice"] for row in cases],
            [row["patient_id"] for row in cases],
            np.random.default_rng(seed),
            draws=bootstrap,
        )
        lost = paired_difference(*(_by_patient(some) for some in (first, cases)))
        row: Row = {
            "jitter": level,
            "prompt": "jitter" if level else "oracle",
            "cases": len(cases),
            "patients": len({row["patient_id"] for row in cases}),
            "runs": sum(row["jitter"] == level for row in rows),
            "dice_mean": dice and dice.value,
            "dice_low": dice and dice.low,
            "dice_high": dice and dice.high,
            "dice_median": median(row["dice"] for row in cases),
            "dice_lowest": min(row["dice"] for row in rows if row["jitter"] == level),
            "lesion_dice_mean": mean(row["lesion_dice_mean"] for row in cases),
            "lost_mean": lost.mean,
            "lost_low": lost.low,
            "lost_high": lost.high,
            **{f"{name}_mean": mean(row[name] for row in cases) for name in FLOORS},
            **against_floors(cases),
        }
        listed.append({name: round(v, 4) if isinstance(v, float) else v for name, v in row.items()})
    return listed


def _cases(rows: Sequence[Row], level: float) -> list[Row]:
    """One row a case: the mean over its draws at a level."""
    own: dict[str, list[Row]] = {}
    for row in rows:
        if row["jitter"] == level:
            own.setdefault(row["case_id"], []).append(row)
    return [
        {**each[0], **{name: mean(row[name] for row in each) for name in FIGURES}} for each in own.values()
    ]


def _by_patient(cases: Sequence[Row]) -> list[float]:
    own: dict[str, list[float]] = {}
    for row in cases:
        own.setdefault(row["patient_id"], []).append(row["dice"])
    return [mean(values) for values in own.values()]


def say_curve(curve: JitterCurve) -> list[str]:
    """What the curve says, and what is not in it."""
    sentences = []
    for row in curve.levels:
        told = "The exact box" if row["jitter"] == 0 else f"Each face off by up to {row['jitter']:.0%}"
        sentences.append(f"{told}: Dice {within(row, 'dice_mean', 'dice')}. {say_floor(row)}")
    last = curve.levels[-1]
    if len(curve.levels) > 1:
        sentences.append(
            f"From {curve.levels[0]['jitter']:.0%} to {last['jitter']:.0%} the Dice falls by "
            f"{within(last, 'lost_mean', 'lost')}."
        )
    if curve.seen_in_training:
        sentences.append(
            f"The model has seen {curve.seen_in_training} of {last['patients']} patients in training: "
            "these figures flatter."
        )
    if curve.seen_in_training is None:
        sentences.append("The model does not say which patients it has seen in training.")
    if curve.without_lesion:
        sentences.append(f"{many(curve.without_lesion, 'case')} without outline or lesion; in no figure.")
    return sentences


def write_curve(out: Path, curve: JitterCurve, described: Mapping[str, Any], record: RunRecord) -> None:
    """Write the table `out`, and beside it the summary, the page, the picture, and the run record last."""
    record_path(out).unlink(missing_ok=True)
    summary, page = out.with_suffix(".json"), out.with_suffix(".md")
    write_csv(out, COLUMNS, curve.rows)
    about = {"seen_in_training": curve.seen_in_training, "without_lesion": curve.without_lesion}
    write_json(summary, {"schema_version": 1, **described, **about, "levels": curve.levels})
    picture = draw_jitter(curve.levels, out.with_suffix(".png"))
    titles = ["faces off by up to", "prompt", "cases", "runs", "Dice, mean (95 %)", "lowest", "lost (95 %)"]
    lines = [
        [
            f"{row['jitter']:.0%}", row["prompt"], row["cases"], row["runs"],
            within(row, "dice_mean", "dice"), row["dice_lowest"], within(row, "lost_mean", "lost"),
            row["best_floor_mean"],
        ]
        for row in curve.levels
    ]  # fmt: skip
    parts = [
        "# Dice when the box is not exact",
        "Research software, not for clinical use.",
        *say_curve(curve),
    ]
    parts += [markdown_table([*titles, "best floor"], lines), f"![{picture.stem}]({picture.name})"]
    write_text(page, "\n\n".join(parts) + "\n")
    write_failures(out.with_name(f"{out.stem}_failures.csv"), "evaluate", curve.failures)
    record.finish(out, [out, summary, page, picture])
