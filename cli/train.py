"""The command train."""

from os import environ
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from .console import print_message, progress_bar
from .options import Cases, Config, Device, Existing, Overrides, Preset, Quiet, Seed, advanced

PRIORS = {"box": "[box]", "lungs": "[lungs]", "mixed": "[box, lungs, none]"}


def train(
    cases: Cases,
    out: Annotated[Path, typer.Option("--output", "-o", help="Model folder to write")],
    pruned: Annotated[
        Path | None, typer.Option(help="Pruned folder of radiogen prune, whose weight masks are kept")
    ] = None,
    start: Annotated[Path | None, typer.Option(help="Model folder to fine-tune")] = None,
    preset: Preset = "modern",
    prior: Annotated[
        Literal["box", "lungs", "mixed"] | None,
        typer.Option(help="Attention priors to train with; default: those of the preset"),
    ] = None,
    synthetic_lesions: Annotated[
        float | None, advanced(help="Share of patches with a synthetic lesion", min=0, max=1)
    ] = None,
    folds: Annotated[int, typer.Option(help="Number of folds; 0 trains on all patients", min=0)] = 0,
    fold: Annotated[
        str, typer.Option(help="Fold that is held out, from 0; all trains each one, as an ensemble")
    ] = "0",
    track: Annotated[bool, advanced(help="Also write events for TensorBoard")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Try one step; print memory, time and disk; write nothing")
    ] = False,
    resume: Annotated[bool, advanced(help="Resume an unfinished training")] = True,
    config: Config = None,
    overrides: Overrides = None,
    seed: Seed = 0,
    device: Device = "auto",
    existing: Existing = "skip",
    quiet: Quiet = False,
) -> None:
    """Train RA-Seg, dense or pruned; after an interruption, the same command resumes it.

    Under torchrun (several GPUs, several machines) every process takes its share of each step.
    """

    from radiogen.distributed import is_rank_zero
    from radiogen.runtime import keep_large_blocks, pick_device
    from radiogen.training.dry_run import dry_run as try_one_step
    from radiogen.training.settings import TrainOptions, load_preset
    from radiogen.training.train import train as train_network
    from radiogen.training.train import train_folds

    chosen = [f"training.priors={PRIORS[prior]}"] if prior else []
    if synthetic_lesions is not None:
        chosen.append(f"training.synthetic_lesions={synthetic_lesions}")
    if track:
        chosen.append("training.tensorboard=true")
    settings = load_preset(preset, config, [*chosen, *(overrides or ())])
    if fold != "all" and not fold.isdecimal():
        raise typer.BadParameter(f"--fold {fold} is not a fold: give a number from 0, or all")
    options = TrainOptions(
        preset=preset, seed=seed, pruned=pruned, start=start, folds=folds, resume=resume, existing=existing,
        fold=0 if fold == "all" else int(fold),
    )  # fmt: skip
    keep_large_blocks()
    where = pick_device(device)
    quiet = quiet or not is_rank_zero()
    arguments = (cases, out, settings, options, where)
    messages: list[str] = []
    with progress_bar(quiet, "" if dry_run else _first_message(where)) as progress:
        if dry_run:
            forecast = try_one_step(*arguments, fold == "all", progress)
            results = forecast.lines()
        elif fold == "all":
            results = [*train_folds(*arguments, progress).summary(), str(out)]
        else:
            trained = train_network(*arguments, progress)
            loss = trained.metrics["epochs"][-1]["loss"]
            messages = [f"{len(trained.learned_from)} cases learned from, loss of the last epoch {loss:.4f}"]
            results = [*_validation_lines(trained.metrics), str(out)]
    for message in messages:
        print_message(message, quiet)
    for line in results if is_rank_zero() else ():
        typer.echo(line)
    if dry_run:
        forecast.check()


def _first_message(device: object) -> str:
    count = int(environ.get("WORLD_SIZE", "1"))
    return f"training on {device}" + (f", {count} processes" if count > 1 else "")


def _validation_lines(metrics: dict[str, Any]) -> list[str]:
    return [
        f"{row['case_id']}\t{row['prior']}\t{row['prompt']}\tDice {row['dice']:.3f}"
        for row in metrics["validation"]
        if row["epoch"] == metrics["kept_epoch"]
    ]
