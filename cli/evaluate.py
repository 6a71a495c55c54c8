"""The command evaluate: masks against a reference, or a model given boxes that are a little off."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from .console import exit_if_failed, progress_bar, table_lines
from .options import AsJson, Device, Quiet, Seed, Split, advanced

SIZE_BIN_COLUMNS = (
    "prompt",
    "size_bin",
    "lesions",
    "found",
    "dice_mean",
    "dice_low",
    "dice_high",
    "best_floor_mean",
)
JITTER_COLUMNS = (
    "jitter",
    "prompt",
    "cases",
    "runs",
    "dice_mean",
    "dice_low",
    "dice_high",
    "lost_mean",
    "best_floor_mean",
)


def evaluate(
    context: typer.Context,
    predicted: Annotated[
        Path, typer.Argument(help="Output of radiogen segment or a mask file; with --jitter the cases")
    ],
    reference: Annotated[
        Path | None, typer.Argument(help="Folder of cases with outlines, or a mask file")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="CSV to write; tables, page and pictures are written beside it"),
    ] = None,
    split: Split = None,
    tolerance_mm: Annotated[float, typer.Option(help="Tolerance of the surface Dice, mm", min=0)] = 2.0,
    least_iou: Annotated[
        float, advanced(help="Least IoU at which a predicted lesion counts as found", min=0)
    ] = 0.1,
    size_bins: Annotated[
        str, advanced(help="Limits of the size bins, in mm of the lesion's diameter")
    ] = "10,20,30,50",
    loosen: Annotated[
        float, advanced(help="Enlarge the boxes of the floors by this share of their sides", min=0)
    ] = 0.0,
    jitter: Annotated[
        str | None,
        typer.Option(help="Run --model with boxes shifted by up to these shares: 0,0.05,0.1,0.2"),
    ] = None,
    model: Annotated[
        Path | None, typer.Option("--model", "-m", help="Model folder of radiogen train, for --jitter")
    ] = None,
    draws: Annotated[int, typer.Option(help="Number of boxes per case and share, for --jitter", min=1)] = 5,
    seed: Seed = 0,
    device: Device = "auto",
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Compare lesion masks with a reference, beside the floors: baselines that need only a box."""
    if (jitter is None) != (model is None):
        raise typer.BadParameter("--jitter and --model go together")
    if (jitter is None) == (reference is None):
        wrong = "REFERENCE is missing" if jitter is None else "with --jitter there is one argument, the cases"
        raise typer.BadParameter(wrong)
    unused = ("draws", "device") if jitter is None else ("tolerance_mm", "least_iou", "size_bins")
    _refuse(context, unused, "goes with --jitter only" if jitter is None else "does not go with --jitter")
    if jitter is not None and model is not None:
        jitter_values = {
            "levels": _numbers("--jitter", jitter), "draws": draws, "loosen": loosen, "split": split,
            "seed": seed,
        }  # fmt: skip
        _evaluate_jitter(predicted, model, out, jitter_values, device, as_json, quiet)
    elif reference is not None:
        mask_values = {
            "tolerance_mm": tolerance_mm, "least_iou": least_iou, "loosen": loosen, "split": split,
            "seed": seed, "size_bins_mm": _numbers("--size-bins", size_bins),
        }  # fmt: skip
        _evaluate_masks(predicted, reference, out, mask_values, as_json, quiet)


def _evaluate_masks(
    predicted: Path,
    reference: Path,
    out: Path | None,
    mask_values: dict[str, Any],
    as_json: bool,
    quiet: bool,
) -> None:
    from radiogen.config import check_settings
    from radiogen.evaluation.case import EvaluateOptions
    from radiogen.evaluation.evaluate import evaluate as evaluate_masks
    from radiogen.evaluation.sentences import describe_prompt
    from radiogen.evaluation.summary import json_rows

    options = check_settings(EvaluateOptions, mask_values, source="radiogen evaluate")
    with progress_bar(quiet) as progress:
        result = evaluate_masks(predicted, reference, out, options, progress)
    if as_json:
        parts = ("rows", "lesions", "summary", "size_bins", "froc")
        typer.echo(json.dumps({part: json_rows(getattr(result, part)) for part in parts}, indent=2))
    else:
        for row in result.rows:
            typer.echo("\t".join(_case_fields(row)))
        _echo_table(SIZE_BIN_COLUMNS, [row for row in result.size_bins if row["lesions"]])
        for summary in result.summary:
            typer.echo("\n".join(describe_prompt(summary)))
    _exit_if_failed(result.failures, out)


def _evaluate_jitter(
    cases: Path,
    model: Path,
    out: Path | None,
    jitter_values: dict[str, Any],
    device: str,
    as_json: bool,
    quiet: bool,
) -> None:
    from radiogen.config import check_settings
    from radiogen.evaluation.jitter import JitterOptions, describe_curve, jitter_curve
    from radiogen.model.folder import load_model
    from radiogen.runtime import keep_large_blocks, pick_device

    options = check_settings(JitterOptions, jitter_values, source="radiogen evaluate --jitter")
    keep_large_blocks()
    loaded = load_model(model, pick_device(device))
    with progress_bar(quiet) as progress:
        curve = jitter_curve(cases, loaded, out, options, progress)
    if as_json:
        typer.echo(json.dumps({"rows": curve.rows, "levels": curve.levels}, indent=2))
    else:
        _echo_table(JITTER_COLUMNS, curve.levels)
        typer.echo("\n".join(describe_curve(curve)))
    _exit_if_failed(curve.failures, out)


def _refuse(context: typer.Context, names: Sequence[str], why: str) -> None:
    """Exit with code 2 if one of these options was given."""
    for name in names:
        source = context.get_parameter_source(name)
        if source and source.name == "COMMANDLINE":
            raise typer.BadParameter(f"--{name.replace('_', '-')} {why}")


def _numbers(option: str, text: str) -> list[float]:
    from radiogen.errors import ConfigError

    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise ConfigError(f"{option} {text}", "is not a list of numbers", "write 0,0.05,0.1") from error


def _case_fields(row: dict[str, Any]) -> list[str]:
    """Return the fields of the line of a case: its measures, its baselines, or why there are none."""
    fields = [str(row["case_id"]), f"prompt {row['prompt']}"]
    measures = ("dice", "surface_dice", "hd95_mm", "volume_error_ml")
    fields += [f"{name} {_short(row[name])}" for name in measures if row[name] is not None]
    if row["lesions"] is not None:
        fields.append(f"found {row['lesions_found']} of {row['lesions']}, false {row['lesions_false']}")
    floors = [name for name in row if name.startswith("floor_") and row[name] is not None]
    fields += [f"{name} {_short(row[name])}" for name in floors]
    return [*fields, row["note"]] if row["note"] else fields


def _echo_table(names: Sequence[str], rows: Sequence[dict[str, Any]]) -> None:
    if rows:
        titles = [name.replace("_", " ") for name in names]
        for line in table_lines(titles, [[_short(row[name]) for name in names] for row in rows]):
            typer.echo(line)


def _short(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _exit_if_failed(failures: Sequence[tuple[str, str, str]], out: Path | None) -> None:
    exit_if_failed(failures, out.with_name(f"{out.stem}_failures.csv") if out else "the lines above")
