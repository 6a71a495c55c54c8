"""How much of a model's Dice hangs on an exact box: the model run again with boxes that are off.

The floors know the same shaken boxes, for a rule that fills a box suffers from a wrong one as well.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
import SimpleITK as sitk
from pydantic import Field, field_validator

from radiogen.config import Settings
from radiogen.drawing.plots import draw_jitter
from radiogen.errors import CaseError, OutputError, RadiogenError
from radiogen.evaluation.case import Row, widen
from radiogen.evaluation.sentences import many, markdown_table, say_floor, within
from radiogen.evaluation.summary import against_floors
from radiogen.io.cases import Case, cases_of_split
from radiogen.measures.floors import FLOORS, Faces, faces_of, floors, jitter, loosen
from radiogen.measures.intervals import DRAWS, bootstrap_by_patient, paired_difference
from radiogen.measures.matching import Labels, Numbered, number_lesions
from radiogen.model.folder import Model, check_prior
from radiogen.model.priors import BoxMm
from radiogen.provenance import (
    RunRecord,
    file_sha256,
    record_path,
    short_hash,
    write_csv,
    write_failures,
    write_json,
    write_text,
)
from radiogen.runtime import Progress, no_progress
from radiogen.segmentation.inference import Inference
from radiogen.segmentation.volume import Prompt, segment_volume
from radiogen.volume import array_of, bounding_box, crop

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


LEVELS = (0.0, 0.05, 0.1, 0.2)


class JitterOptions(Settings):
    """How far boxes are off, and how often."""

    levels: tuple[float, ...] = LEVELS  # shares of the box's size
    draws: int = Field(5, ge=1)  # a case and level; a level of 0 takes one
    loosen: float = Field(0.0, ge=0, le=2)  # share by which the boxes are longer before they are shaken
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
    """Run a model with the box of every lesion, exact and shaken.

    Each face of each box is shifted by a uniform draw of up to a share of the box's size along that axis. A
    draw depends on (seed, case, draw) only and is scaled by the level: the levels differ by how far the boxes
    are off, by nothing else.

    Args:
        cases: Folder of cases with outlines.
        model: A loaded model that takes boxes.
        out: CSV file for the rows; beside it .json, .md, .png, .run.json, and a folder of finished cases,
            from which the same command goes on after it was killed.
        options: Levels, draws, loosening.
        progress: Called with what is done and how much there is.

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
            rows += _kept_or_run(case, inference, options, out)
        except RadiogenError as error:
            if len(outlined) == 1:
                raise
            failures.append((case.case_id, error.reason, error.hint))
    progress("evaluate", len(outlined), len(outlined))
    if not rows:
        raise CaseError(cases, "holds no case with a lesion", "ingest the cases with their outlines")
    patients = {row["patient_id"] for row in rows}
    seen = None if model.config.patients_seen is None else len(patients & set(model.config.patients_seen))
    without = len(all_cases) - len({row["case_id"] for row in rows}) - len(failures)
    curve = JitterCurve(rows, level_rows(rows, options.seed, options.bootstrap), seen, without, failures)
    if out is not None:
        write_curve(out, curve, options.model_dump(mode="json"), record)
    return curve


def _kept_or_run(case: Case, inference: Inference, options: JitterOptions, out: Path | None) -> list[Row]:
    """The rows of a case, from an earlier run if that was made of the same."""
    if out is None:
        return _run_case(case, inference, options)
    kept = out.with_name(f"{out.stem}_cases") / f"{case.case_id}.json"
    made_of = {
        "model": inference.model.hash,
        "files": [
            file_sha256(path) for path in (case.ct_path, case.lesion_path, case.lungs_path) if path.is_file()
        ],
        **options.model_dump(mode="json", exclude={"split", "bootstrap"}),
    }
    try:
        content: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8"))
        if content["made_of"] == made_of:
            return list(content["rows"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # not there, or torn: it is made anew
    rows = _run_case(case, inference, options)
    write_json(kept, {"made_of": made_of, "rows": rows})
    return rows


def _run_case(case: Case, inference: Inference, options: JitterOptions) -> list[Row]:
    ct, lungs, outline = case.ct(), case.lungs(), case.lesion()
    box = bounding_box(outline)
    if box is None:
        return []
    near = widen(box, ct, options.loosen / 2 + (1 + options.loosen) * max(options.levels))
    lesions, nearby = number_lesions(array_of(crop(outline, near))), crop(ct, near)
    exact = [loosen(faces, options.loosen) for faces in faces_of(lesions)]
    rows: list[Row] = []
    for level, draw in product(options.levels, range(options.draws)):
        if level == 0 and draw > 0:
            continue
        rng = np.random.default_rng([options.seed, int(short_hash(case.case_id), 16), draw])
        boxes = [jitter(faces, rng.uniform(-1, 1, (2, 3)), level) for faces in exact]
        prompt = Prompt("box", boxes=tuple(box_mm(box, nearby) for box in boxes))
        found = segment_volume(inference.model, ct, lungs, prompt, inference=inference).lesion
        row = {
            "case_id": case.case_id,
            "patient_id": case.patient_id,
            "prompt": "jitter" if level else "oracle",
            "jitter": level,
            "draw": draw,
            **_dice(array_of(found), array_of(crop(found, near)), lesions),
            **floors(lesions, boxes, array_of(nearby)),
        }
        rows.append({name: round(v, 4) if isinstance(v, float) else v for name, v in row.items()})
    return rows


def _dice(found: Labels, nearby: Labels, lesions: Numbered) -> Row:
    """Of all lesions together, and the mean over them: the n-th against what the n-th box gave.

    Args:
        found: The whole prediction, its labels the numbers of the boxes.
        nearby: The part of it that lies on the voxels of the lesions.
        lesions: The reference.
    """
    sizes = np.bincount(lesions.numbers[lesions.numbers > 0], minlength=len(lesions) + 1)
    guessed = np.bincount(found[found > 0], minlength=len(lesions) + 1)
    hit = (nearby > 0) & (lesions.numbers > 0)
    own = np.bincount(nearby[hit & (nearby == lesions.numbers)], minlength=len(lesions) + 1)
    each = 2 * own[1:] / (sizes[1:] + guessed[1 : len(lesions) + 1])
    whole = 2 * int(np.count_nonzero(hit)) / int(sizes.sum() + guessed.sum())
    return {"dice": whole, "lesion_dice_mean": float(each.mean())}


def box_mm(faces: Faces, grid: sitk.Image) -> BoxMm:
    """The box in space (LPS mm) round the corners of a box in voxels; on an upright grid the same box."""
    sides = [(low, high) for low, high in zip(faces.low, faces.high, strict=True)][::-1]
    corners: Sequence[Sequence[float]] = [
        grid.TransformContinuousIndexToPhysicalPoint(corner) for corner in product(*sides)
    ]
    low, high = np.min(corners, axis=0).tolist(), np.max(corners, axis=0).tolist()
    return BoxMm((low[0], low[1], low[2]), (high[0], high[1], high[2]))
