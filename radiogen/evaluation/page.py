"""Write the page of an evaluation that a person reads: sentences, tables, two plots."""

from collections.abc import Sequence
from pathlib import Path

from radiogen.drawing.plots import draw_sizes, draw_volumes
from radiogen.evaluation.case import EvaluateOptions, Row
from radiogen.evaluation.sentences import describe_prompt, markdown_table, with_interval
from radiogen.evaluation.summary import Summary
from radiogen.measures.detection import FROC_RATES
from radiogen.measures.floors import FLOOR_WORDS, FLOORS
from radiogen.provenance import write_text

WORST = 10


def write_page(
    out: Path, rows: Sequence[Row], lesions: Sequence[Row], summary: Summary, options: EvaluateOptions
) -> list[Path]:
    """Write the page beside the table `out`, and its plots where there is something to draw.

    Returns:
        The files that were written.
    """
    page = out.with_suffix(".md")
    sizes = draw_sizes(lesions, options.size_bins_mm, out.with_name(f"{out.stem}_size.png"))
    volumes = draw_volumes(rows, out.with_name(f"{out.stem}_volume.png"))
    plots = [plot for plot in (sizes, volumes) if plot]
    parts = ["# Evaluation", "Research software, not for clinical use."]
    for row in summary.prompts:
        parts += [f"## Prompt: {row['prompt']}", *describe_prompt(row)]
        if row["n"]:
            parts += [
                _overall(row, options),
                "By size of the reference lesion:",
                _sizes(row["prompt"], summary),
            ]
        curves = [_froc(line) for line in summary.froc if line["prompt"] == row["prompt"]]
        if row["prompt"] in ("auto", "none") and not curves:
            # Silence would read as an oversight: with these prompts a FROC is expected.
            curves = ["No FROC: no lesion was predicted with a score, or there is none to find."]
        parts += curves
    parts += [f"![{path.stem}]({path.name})" for path in plots]
    parts += ["## The weakest scans", _weakest(rows), "## How it was measured", _rules(options)]
    write_text(page, "\n\n".join(parts) + "\n")
    return [page, *plots]


def _overall(row: Row, options: EvaluateOptions) -> str:
    lines: list[list[object]] = [
        ["Dice, mean", with_interval(row, "dice_mean", "dice")],
        ["Dice, median", row["dice_median"]],
        ["Dice of lesions, mean", with_interval(row, "lesion_dice_mean", "lesion_dice")],
        [
            f"surface Dice at {options.tolerance_mm:g} mm, mean",
            with_interval(row, "surface_dice_mean", "surface_dice"),
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
    titles = ["longest diameter", "lesions", "found", "Dice, mean (95 %)", "Dice, median (95 %)"]
    lines = [
        [
            row["size_bin"],
            row["lesions"],
            f"{row['found']} ({row['found_share']:.0%})",
            with_interval(row, "dice_mean", "dice"),
            with_interval(row, "dice_median", "dice_median"),
            row["best_floor_mean"],
            None if row["best_floor"] is None else f"{row['above_floor']} of {row['above_floor_of']}",
        ]
        for row in summary.size_bins
        if row["prompt"] == prompt and row["lesions"]
    ]
    return markdown_table([*titles, "best floor", "above it"], lines)


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
            f"- The floors know {boxes} and no more: filled, the ellipsoid inside, of both the voxels from "
            "-300 to 250 HU, and of the ellipsoid those above the mid-threshold, the mean of the 10th and "
            "the 90th percentile of the HU in the box.",
            f"- Intervals: 95 %, {options.bootstrap} draws of patients (seed {options.seed}); difference to "
            "the floor: Student's t over patients. The best floor has the highest mean on these scans.",
        ]
    )
