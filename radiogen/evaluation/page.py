"""The page of an evaluation that a person reads: sentences, tables, two pictures."""

from collections.abc import Sequence
from pathlib import Path

from radiogen.drawing.plots import draw_sizes, draw_volumes
from radiogen.evaluation.case import EvaluateOptions, Row
from radiogen.evaluation.sentences import markdown_table, say_prompt, within
from radiogen.evaluation.summary import Summary, against_floors
from radiogen.measures.detection import FROC_RATES
from radiogen.measures.floors import FLOOR_WORDS, FLOORS
from radiogen.provenance import write_text

WORST = 10


def write_page(
    out: Path, rows: Sequence[Row], lesions: Sequence[Row], summary: Summary, options: EvaluateOptions
) -> list[Path]:
    """Write the page beside the table `out`, and its pictures where there is something to draw.

    Returns:
        What was written.
    """
    page = out.with_suffix(".md")
    pictures = [
        drawn
        for drawn in (
            draw_sizes(lesions, options.size_bins_mm, _best_floor, out.with_name(f"{out.stem}_size.png")),
            draw_volumes(rows, out.with_name(f"{out.stem}_volume.png")),
        )
        if drawn
    ]
    parts = ["# Evaluation", "Research software, not for clinical use."]
    for row in summary.prompts:
        parts += [f"## Prompt: {row['prompt']}", *say_prompt(row)]
        if row["n"]:
            parts += [
                _overall(row, options),
                "By size of the reference lesion:",
                _sizes(row["prompt"], summary),
            ]
        curves = [_froc(line) for line in summary.froc if line["prompt"] == row["prompt"]]
        if row["prompt"] in ("auto", "none") and not curves:
            curves = ["No FROC: no lesion was predicted with a score, or there is none to find."]
        parts += curves
    parts += [f"![{path.stem}]({path.name})" for path in pictures]
    parts += ["## The weakest scans", _weakest(rows), "## How it was measured", _rules(options)]
    write_text(page, "\n\n".join(parts) + "\n")
    return [page, *pictures]


def _overall(row: Row, options: EvaluateOptions) -> str:
    lines: list[list[object]] = [
        ["Dice, mean", within(row, "dice_mean", "dice")],
        ["Dice, median", row["dice_median"]],
        ["Dice of lesions, mean", within(row, "lesion_dice_mean", "lesion_dice")],
        [
            f"surface Dice at {options.tolerance_mm:g} mm, mean",
            within(row, "surface_dice_mean", "surface_dice"),
        ],
        ["HD95, median, mm", _mm(row["hd95_mm_median"])],
        ["average surface distance (ASSD), median, mm", _mm(row["assd_mm_median"])],
        ["volume error, mean, ml", row["volume_error_ml_mean"]],
        ["volume error, median, share of the reference", row["volume_error_share_median"]],
        ["F1 of lesions", row["f1"]],
        ["panoptic quality", row["panoptic_quality"]],
        *([f"floor: {FLOOR_WORDS[name]}, Dice", row[f"{name}_mean"]] for name in FLOORS),
    ]
    return markdown_table(["figure", "value (95 %)"], lines)


def _sizes(prompt: str, summary: Summary) -> str:
    titles = [
        "longest diameter",
        "lesions",
        "found",
        "Dice, mean (95 %)",
        "Dice, median (95 %)",
        "best floor",
    ]
    lines = [
        [
            row["size_bin"],
            row["lesions"],
            f"{row['found']} ({row['found_share']:.0%})",
            within(row, "dice_mean", "dice"),
            within(row, "dice_median", "dice_median"),
            row["best_floor_mean"],
        ]
        for row in summary.size_bins
        if row["prompt"] == prompt and row["lesions"]
    ]
    return markdown_table([*titles, "above it"], [[*line, _above(line, prompt, summary)] for line in lines])


def _above(line: Sequence[object], prompt: str, summary: Summary) -> str | None:
    (row,) = (row for row in summary.size_bins if (row["prompt"], row["size_bin"]) == (prompt, line[0]))
    return None if row["best_floor"] is None else f"{row['above_floor']} of {row['above_floor_of']}"


def _froc(line: Row) -> str:
    rates = [f"{rate:g}" for rate in FROC_RATES]
    values = [line[f"sensitivity_at_{rate}"] for rate in rates]
    table = markdown_table([*rates, "mean"], [[*values, line["mean"]]])
    return f"Sensitivity at so many false lesions a scan (FROC, {line['scans']} scans):\n\n{table}"


def _weakest(rows: Sequence[Row]) -> str:
    measured = sorted((row for row in rows if row["dice"] is not None), key=lambda row: float(row["dice"]))
    lines = [
        [
            row["case_id"],
            row["prompt"],
            row["dice"],
            _mm(row["hd95_mm"]),
            row["lesions_missed"],
            row["lesions_false"],
        ]
        for row in measured[:WORST]
    ]
    return markdown_table(["case", "prompt", "Dice", "HD95, mm", "missed", "false"], lines)


def _mm(value: float | None) -> str | None:
    return None if value is None else f"{value:.1f}"


def _rules(options: EvaluateOptions) -> str:
    boxes = f"boxes {options.loosen:.0%} longer than the lesions" if options.loosen else "the exact boxes"
    return "\n".join(
        [
            f"- Surface Dice: tolerance {options.tolerance_mm:g} mm.",
            f"- A lesion is found where it has a partner of its own with IoU {options.least_iou:g} or more; "
            "one that was not found counts with Dice 0 and an infinite distance.",
            f"- The floors know {boxes} and no more: filled, the ellipsoid inside, and of both the voxels "
            "from -300 to 250 HU.",
            f"- Intervals: 95 %, {options.bootstrap} draws of patients (seed {options.seed}); difference to "
            "the floor: Student's t over patients. The best floor has the highest mean on these scans.",
        ]
    )


def _best_floor(rows: Sequence[Row]) -> str | None:
    name: str | None = against_floors(rows)["best_floor"]
    return name
