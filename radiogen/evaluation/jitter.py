"""Measure how much of a model's Dice depends on an exact box, by running it again with jittered boxes.

This is the one file of `evaluation/` that runs a network; all others compare masks. The floors know the
same jittered boxes: a rule that fills a box suffers from a wrong one too, and the question is which less.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
import SimpleITK as sitk
from pydantic import Field, field_validator

from radiogen.cache import key_of, read_cached, write_cached
from radiogen.config import Settings
from radiogen.drawing.plots import draw_jitter
from radiogen.errors import CaseError, OutputError, RadiogenError
from radiogen.evaluation.case import Row, widen
from radiogen.evaluation.sentences import describe_floor, markdown_table, plural, with_interval
from radiogen.evaluation.summary import compare_with_best_floor
from radiogen.io.cases import Case, cases_of_split
from radiogen.io.patients import find_known
from radiogen.measures.detection import Labels, NumberedLesions, number_lesions, stray_parts
from radiogen.measures.floors import FLOORS, BoxFaces, exact_boxes, jitter_box, loosen_box, measure_floors
from radiogen.measures.intervals import DRAWS, bootstrap_by_patient, paired_difference
from radiogen.model.folder import Model, check_prior
from radiogen.model.priors import BoxMm
from radiogen.provenance import (
    RunRecord,
    record_path,
    short_hash,
    write_csv,
    write_failures,
    write_json,
    write_text,
)
from radiogen.runtime import Progress, no_progress
from radiogen.segmentation.inference import Inference
from radiogen.segmentation.volume import Prompt, segment_crop, segment_volume
from radiogen.volume import array_of, bounding_box, crop, voxel_ml

COLUMNS = (
    *("case_id", "patient_id", "prompt", "jitter", "draw", "stray_parts", "dice", "lesion_dice_mean"),
    *FLOORS,
)
LEVELS = (0.0, 0.05, 0.1, 0.2)
FIGURES = ("dice", "lesion_dice_mean", *FLOORS)


@dataclass(frozen=True)
class JitterCurve:
    """The Dice of a model against the jitter of its boxes: rows by case, level and draw, and by level."""

    rows: list[Row]  # by COLUMNS
    levels: list[Row]
    seen_in_training: int | None  # patients; None where the model does not say whom it has seen
    without_lesion: int = 0  # cases
    failures: list[tuple[str, str, str]] = field(default_factory=list)  # case_id, reason, hint


def level_rows(rows: Sequence[Row], seed: int, bootstrap: int) -> list[Row]:
    """Return a row a level: Dice with its interval, the loss against the smallest level, and the floors.

    The draws of a case are averaged first: a case counts once, and the best floor is chosen over cases.
    """
    levels = sorted({row["jitter"] for row in rows})
    smallest = _mean_over_draws(rows, levels[0])
    listed = []
    for level in levels:
        cases = _mean_over_draws(rows, level)
        dice = bootstrap_by_patient(
            [row["dice"] for row in cases],
            [row["patient_id"] for row in cases],
            np.random.default_rng(seed),
            draws=bootstrap,
        )
        # Paired by patient: the same draw, scaled, at every level, so that only the shift differs.
        lost = paired_difference(_dice_of_patients(smallest), _dice_of_patients(cases))
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
            **compare_with_best_floor(cases),
        }
        listed.append(row)
    return listed


def _mean_over_draws(rows: Sequence[Row], level: float) -> list[Row]:
    """Return a row a case: the mean over its draws at a level."""
    by_case: dict[str, list[Row]] = {}
    for row in rows:
        if row["jitter"] == level:
            by_case.setdefault(row["case_id"], []).append(row)
    return [
        {**own[0], **{name: mean(row[name] for row in own) for name in FIGURES}} for own in by_case.values()
    ]


def _dice_of_patients(cases: Sequence[Row]) -> list[float]:
    by_patient: dict[str, list[float]] = {}
    for row in cases:
        by_patient.setdefault(row["patient_id"], []).append(row["dice"])
    return [mean(values) for values in by_patient.values()]


def describe_curve(curve: JitterCurve) -> list[str]:
    """Describe the curve, and the cases that are not in it, in sentences."""
    sentences = []
    for row in curve.levels:
        box = "The exact box" if row["jitter"] == 0 else f"Each face off by up to {row['jitter']:.0%}"
        sentences.append(f"{box}: Dice {with_interval(row, 'dice_mean', 'dice')}. {describe_floor(row)}")
    last = curve.levels[-1]
    if len(curve.levels) > 1:
        sentences.append(
            f"From {curve.levels[0]['jitter']:.0%} to {last['jitter']:.0%} the Dice falls by "
            f"{with_interval(last, 'lost_mean', 'lost')}."
        )
    if curve.seen_in_training:
        sentences.append(
            f"The model has seen {curve.seen_in_training} of {last['patients']} patients in training: "
            "these figures flatter."
        )
    # None is not 0: an imported model may have seen anybody.
    if curve.seen_in_training is None:
        sentences.append("The model does not say which patients it has seen in training.")
    strays = sum({row["case_id"]: row["stray_parts"] for row in curve.rows}.values())
    if strays:
        sentences.append(f"{plural(strays, 'stray part')} of the outlines, below 3 mm, got no box.")
    if curve.without_lesion:
        sentences.append(f"{plural(curve.without_lesion, 'case')} without outline or lesion; in no figure.")
    return sentences


def write_curve(out: Path, curve: JitterCurve, described: Mapping[str, Any], record: RunRecord) -> None:
    """Write the table `out`, and beside it the summary, the page, the plot, and the run record last."""
    # A table without its record does not count as done.
    record_path(out).unlink(missing_ok=True)
    summary, page = out.with_suffix(".json"), out.with_suffix(".md")
    write_csv(out, COLUMNS, curve.rows)
    about = {"seen_in_training": curve.seen_in_training, "without_lesion": curve.without_lesion}
    write_json(summary, {"schema_version": 1, **described, **about, "levels": curve.levels})
    plot = draw_jitter(curve.levels, out.with_suffix(".png"))
    titles = ["faces off by up to", "prompt", "cases", "runs", "Dice, mean (95 %)", "lowest", "lost (95 %)"]
    lines = [
        [
            f"{row['jitter']:.0%}",
            row["prompt"],
            row["cases"],
            row["runs"],
            with_interval(row, "dice_mean", "dice"),
            row["dice_lowest"],
            with_interval(row, "lost_mean", "lost"),
            row["best_floor_mean"],
        ]
        for row in curve.levels
    ]
    parts = [
        "# Dice when the box is not exact",
        "Research software, not for clinical use.",
        *describe_curve(curve),
    ]
    parts += [markdown_table([*titles, "best floor"], lines), f"![{plot.stem}]({plot.name})"]
    write_text(page, "\n\n".join(parts) + "\n")
    write_failures(out.with_name(f"{out.stem}_failures.csv"), "evaluate", curve.failures)
    record.finish(out, [out, summary, page, plot])


class JitterOptions(Settings):
    """Levels of the jitter and number of draws."""

    levels: tuple[float, ...] = LEVELS  # shares of the box's size
    draws: int = Field(5, ge=1)  # a case and level; a level of 0 takes one
    loosen: float = Field(0.0, ge=0, le=2)  # share by which the boxes are longer before they are jittered
    split: str | None = None
    seed: int = Field(0, ge=0)
    bootstrap: int = Field(DRAWS, ge=100)

    @field_validator("levels")
    @classmethod
    def _shares(cls, levels: tuple[float, ...]) -> tuple[float, ...]:
        if not levels or not all(0 <= level < 0.5 for level in levels):
            raise ValueError("give shares of the box's size from 0 to below 0.5, such as 0,0.05,0.1,0.2")
        return tuple(sorted(set(levels)))


def jitter_curve(
    cases: Path,
    model: Model,
    out: Path | None = None,
    options: JitterOptions | None = None,
    progress: Progress = no_progress,
) -> JitterCurve:
    """Run a model with the box of every lesion, exact and jittered.

    Each face of each box is shifted by a uniform draw of up to a share of the box's size along that axis. A
    draw depends on (seed, case, draw) only and is scaled by the level, so that levels differ by the shift
    alone and the loss between them is paired.

    Args:
        cases: Folder of cases with outlines.
        model: A loaded model that takes boxes.
        out: CSV file for the rows; beside it .json, .md, .png, .run.json, and a folder of finished cases,
            from which the same command goes on after it was killed.
        options: Levels, draws, loosening.
        progress: Called with the number of cases done and of all.

    Raises:
        ModelError: The model takes no boxes.
        CaseError: No case has an outline with a lesion.
        RadiogenError: The only case failed.
    """
    options = options or JitterOptions()
    check_prior(model.config, "box", model.folder)
    if out is not None and out.suffix != ".csv":
        raise OutputError(out, "does not end in .csv", "name it jitter.csv")
    described = {"cases": cases.name, **options.model_dump(mode="json")}
    record = RunRecord("evaluate --jitter", described, options.seed, model_hash=model.hash)
    record.device = str(next(model.network.parameters()).device)
    all_cases = cases_of_split(cases, options.split)
    outlined = [case for case in all_cases if case.has_lesion]
    inference = Inference(model)
    rows: list[Row] = []
    failures: list[tuple[str, str, str]] = []
    for number, case in enumerate(outlined):
        progress("evaluate", number, len(outlined))
        try:
            rows += _resume_or_run(case, inference, options, out)
        except RadiogenError as error:
            if len(outlined) == 1:
                raise
            failures.append((case.case_id, error.reason, error.hint))
    progress("evaluate", len(outlined), len(outlined))
    if not rows:
        raise CaseError(cases, "holds no case with a lesion", "ingest the cases with their outlines")
    patients = {row["patient_id"] for row in rows}
    # A model does well on patients it has learned from, with any box; the page warns of them.
    known = model.config.seen
    scans = {case.patient_id: [case.scan] for case in outlined if case.patient_id in patients}
    seen = None if known is None else len(find_known(scans, scans, known))
    without = len(all_cases) - len({row["case_id"] for row in rows}) - len(failures)
    curve = JitterCurve(rows, level_rows(rows, options.seed, options.bootstrap), seen, without, failures)
    if out is not None:
        write_curve(out, curve, options.model_dump(mode="json"), record)
    return curve


def _resume_or_run(case: Case, inference: Inference, options: JitterOptions, out: Path | None) -> list[Row]:
    """Return the rows of a case, from an earlier run of the same model, files and options if any."""
    if out is None:
        return _run_case(case, inference, options)
    path = out.with_name(f"{out.stem}_cases") / f"{case.case_id}.json"
    files = [each for each in (case.ct_path, case.lesion_path, case.lungs_path) if each.is_file()]
    # Split and bootstrap do not change a row: with another of them the finished cases still count.
    rules = options.model_dump(mode="json", exclude={"split", "bootstrap"})
    key = key_of(inference.model.hash, *files, rules, COLUMNS)
    rows: list[Row] | None = read_cached(path, key)
    if rows is None:
        rows = _run_case(case, inference, options)
        write_cached(path, key, rows)
    return rows


def _run_case(case: Case, inference: Inference, options: JitterOptions) -> list[Row]:
    """Run the model on one case at every level and draw; nothing for a case with an empty outline."""
    ct, lungs, outline = case.ct(), case.lungs(), case.lesion()
    box = bounding_box(outline)
    if box is None:
        return []
    # The region holds every box that may be drawn: loosened at either end, then shifted by the largest level.
    region = widen(box, ct, options.loosen / 2 + (1 + options.loosen) * max(options.levels))
    labels, region_ct = array_of(crop(outline, region)), crop(ct, region)
    lesions = number_lesions(labels)
    strays = stray_parts(lesions, voxel_ml(outline))
    # A box of its own round a stray voxel would count as much as that of the tumour beside it.
    lesions = number_lesions(np.where(np.isin(lesions.numbers, list(strays)), 0, labels))
    exact = [loosen_box(faces, options.loosen) for faces in exact_boxes(lesions)]
    rows: list[Row] = []
    for level, draw in product(options.levels, range(options.draws)):
        # An exact box is the same at every draw.
        if level == 0 and draw > 0:
            continue
        # Not the level: the same draw, scaled, at every level, so that a case is compared with itself.
        rng = np.random.default_rng([options.seed, int(short_hash(case.case_id), 16), draw])
        boxes = [jitter_box(faces, rng.uniform(-1, 1, (2, 3)), level) for faces in exact]
        prompt = Prompt("box", boxes=tuple(box_mm(box, region_ct) for box in boxes))
        segment = segment_crop if case.is_crop else segment_volume
        predicted = segment(inference.model, ct, lungs, prompt, inference=inference).lesion
        row = {
            "case_id": case.case_id,
            "patient_id": case.patient_id,
            "prompt": "jitter" if level else "oracle",
            "jitter": level,
            "draw": draw,
            "stray_parts": len(strays),
            **_dice(array_of(predicted), array_of(crop(predicted, region)), lesions),
            **measure_floors(lesions, boxes, array_of(region_ct)),
        }
        rows.append(row)
    return rows


def _dice(predicted: Labels, in_region: Labels, lesions: NumberedLesions) -> Row:
    """Return the Dice of all lesions together, and the mean over lesions, each with the label of its box.

    Args:
        predicted: The whole prediction, its labels the numbers of the boxes.
        in_region: The part of it that lies on the voxels of `lesions`.
        lesions: The reference.
    """
    sizes = np.bincount(lesions.numbers[lesions.numbers > 0], minlength=len(lesions) + 1)
    # Of the whole prediction: voxels outside the region are false and must lower the Dice.
    predicted_sizes = np.bincount(predicted[predicted > 0], minlength=len(lesions) + 1)
    hit = (in_region > 0) & (lesions.numbers > 0)
    own = np.bincount(in_region[hit & (in_region == lesions.numbers)], minlength=len(lesions) + 1)
    each = 2 * own[1:] / (sizes[1:] + predicted_sizes[1 : len(lesions) + 1])
    whole = 2 * int(np.count_nonzero(hit)) / int(sizes.sum() + predicted_sizes.sum())
    return {"dice": whole, "lesion_dice_mean": float(each.mean())}


def box_mm(faces: BoxFaces, grid: sitk.Image) -> BoxMm:
    """Return the box in space (LPS mm) round the corners of a box in voxels; the same on an upright grid."""
    sides = [(low, high) for low, high in zip(faces.low, faces.high, strict=True)][::-1]
    # All eight corners: on an oblique grid two of them do not span the box.
    corners: Sequence[Sequence[float]] = [
        grid.TransformContinuousIndexToPhysicalPoint(corner) for corner in product(*sides)
    ]
    low, high = np.min(corners, axis=0).tolist(), np.max(corners, axis=0).tolist()
    return BoxMm((low[0], low[1], low[2]), (high[0], high[1], high[2]))
