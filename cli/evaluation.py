"""The command evaluate: masks against a reference, or a model whose boxes are shaken."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from .console import columns, finish, progress_bar, say
from .options import AsJson, Device, Quiet, Seed


def evaluate(
    context: typer.Context,
    predicted: Annotated[
        Path, typer.Argument(help="Output of radiogen segment or a mask file; the cases, with --jitter.")
    ],
    reference: Annotated[
        Path | None, typer.Argument(help="Folder of cases with outlines, or a mask file.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--output", "-o", help="CSV to write; tables, page, pictures go beside it.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Only cases of this split.")] = None,
    tolerance_mm: Annotated[float, typer.Option(help="Tolerance of the surface Dice.", min=0)] = 2.0,
    least_iou: Annotated[float, typer.Option(help="IoU from which two lesions are one.", min=0)] = 0.1,
    size_bins: Annotated[
        str, typer.Option(help="Ends of the bins of the lesion's diameter, mm.")
    ] = "10,20,30,50",
    loosen: Annotated[float, typer.Option(help="The floors' boxes are longer by this share.", min=0)] = 0.0,
    jitter: Annotated[
        str | None, typer.Option(help="Run --model with boxes off by up to these shares: 0,0.05,0.1,0.2")
    ] = None,
    model: Annotated[
        Path | None, typer.Option("--model", "-m", help="Model folder of radiogen train, for --jitter.")
    ] = None,
    draws: Annotated[int, typer.Option(help="Boxes drawn a case and share, for --jitter.", min=1)] = 5,
    seed: Seed = 0,
    device: Device = "auto",
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Compare lesion masks with a reference, beside the floors that a bare box reaches."""
    if (jitter is None) != (model is None):
        raise typer.BadParameter("--jitter and --model go together")
    if (jitter is None) == (reference is None):
        wrong = "REFERENCE is missing" if jitter is None else "with --jitter there is one argument, the cases"
        raise typer.BadParameter(wrong)
    idle = ("draws", "device") if jitter is None else ("tolerance_mm", "least_iou", "size_bins")
    _refuse(context, idle, "goes with --jitter only" if jitter is None else "does not go with --jitter")
    if jitter is not None and model is not None:
        shaken = {
            "levels": _numbers("--jitter", jitter), "draws": draws, "loosen": loosen, "split": split,
            "seed": seed,
        }  # fmt: skip
        _evaluate_jitter(predicted, model, out, shaken, device, as_json, quiet)
    elif reference is not None:
        rules = {
            "tolerance_mm": tolerance_mm, "least_iou": least_iou, "loosen": loosen, "split": split,
            "seed": seed, "size_bins_mm": _numbers("--size-bins", size_bins),
        }  # fmt: skip
        _evaluate_masks(predicted, reference, out, rules, as_json, quiet)


def _evaluate_masks(
    predicted: Path, reference: Path, out: Path | None, rules: dict[str, Any], as_json: bool, quiet: bool
) -> None:
    from radiogen.config import check_settings
    from radiogen.evaluation.case import EvaluateOptions
    from radiogen.evaluation.evaluate import evaluate as evaluate_masks
    from radiogen.evaluation.sentences import describe_prompt
    from radiogen.evaluation.summary import json_rows

    options = check_settings(EvaluateOptions, rules, source="radiogen evaluate")
    with progress_bar(quiet) as progress:
        result = evaluate_masks(predicted, reference, out, options, progress)
    if as_json:
        parts = ("rows", "lesions", "summary", "size_bins", "froc")
        typer.echo(json.dumps({part: json_rows(getattr(result, part)) for part in parts}, indent=2))
    else:
        for row in result.rows:
            typer.echo("\t".join(_case_words(row)))
        _echo_table(
            (
                "prompt",
                "size_bin",
                "lesions",
                "found",
                "dice_mean",
                "dice_low",
                "dice_high",
                "best_floor_mean",
            ),
            [row for row in result.size_bins if row["lesions"]],
        )
        for summary in result.summary:
            typer.echo("\n".join(describe_prompt(summary)))
    _finish(result.failures, out)


def _evaluate_jitter(
    cases: Path,
    model: Path,
    out: Path | None,
    shaken: dict[str, Any],
    device: str,
    as_json: bool,
    quiet: bool,
) -> None:
    from radiogen.config import check_settings
    from radiogen.evaluation.jitter import JitterOptions, describe_curve, jitter_curve
    from radiogen.model.folder import load_model
    from radiogen.runtime import keep_large_blocks, pick_device

    options = check_settings(JitterOptions, shaken, source="radiogen evaluate --jitter")
    keep_large_blocks()
    loaded = load_model(model, pick_device(device))
    with progress_bar(quiet) as progress:
        curve = jitter_curve(cases, loaded, out, options, progress)
    if as_json:
        typer.echo(json.dumps({"rows": curve.rows, "levels": curve.levels}, indent=2))
    else:
        shown = ("jitter", "prompt", "cases", "runs", "dice_mean", "dice_low", "dice_high", "lost_mean")
        _echo_table((*shown, "best_floor_mean"), curve.levels)
        typer.echo("\n".join(describe_curve(curve)))
    _finish(curve.failures, out)


def _refuse(context: typer.Context, names: Sequence[str], why: str) -> None:
    """Wrong usage, if one of these options was given."""
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


def _case_words(row: dict[str, Any]) -> list[str]:
    """One case as a line: what was measured, beside the best of its own floors, or the note."""
    words = [str(row["case_id"]), f"prompt {row['prompt']}"]
    shown = ("dice", "surface_dice", "hd95_mm", "volume_error_ml")
    words += [f"{name} {_short(row[name])}" for name in shown if row[name] is not None]
    if row["lesions"] is not None:
        words.append(f"found {row['lesions_found']} of {row['lesions']}, false {row['lesions_false']}")
    words += [
        f"{name} {_short(row[name])}" for name in row if name.startswith("floor_") and row[name] is not None
    ]
    return [*words, row["note"]] if row["note"] else words


def _echo_table(names: Sequence[str], rows: Sequence[dict[str, Any]]) -> None:
    if rows:
        titles = [name.replace("_", " ") for name in names]
        for line in columns(titles, [[_short(row[name]) for name in names] for row in rows]):
            typer.echo(line)


def _short(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _finish(failures: Sequence[tuple[str, str, str]], out: Path | None) -> None:
    for case_id, reason, hint in failures:
        say(f"{case_id}: {reason} ({hint})")
    finish(len(failures), out.with_name(f"{out.stem}_failures.csv") if out else "the lines above")
