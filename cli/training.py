"""The command that trains the network."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from .console import progress, say
from .options import Cases, Config, Device, Existing, Overrides, Preset, Quiet, Seed


def train(
    cases: Cases,
    out: Annotated[Path, typer.Option("--output", "-o", help="Model folder to write.")],
    pruned: Annotated[Path | None, typer.Option(help="Folder of radiogen prune.")] = None,
    preset: Preset = "modern",
    prior: Annotated[
        Literal["box", "lungs", "mixed"] | None, typer.Option(help="Priors to train with; else the preset's.")
    ] = None,
    folds: Annotated[int, typer.Option(help="Folds of patients; 0 trains on all.", min=0)] = 0,
    fold: Annotated[int, typer.Option(help="The fold that is held out, from 0.", min=0)] = 0,
    resume: Annotated[bool, typer.Option(help="Go on with an unfinished training.")] = True,
    config: Config = None,
    overrides: Overrides = None,
    seed: Seed = 0,
    device: Device = "auto",
    existing: Existing = "skip",
    quiet: Quiet = False,
) -> None:
    """Train RA-Seg, dense or pruned; the same command goes on after it was killed."""
    from radiogen.engines.presets import load_preset
    from radiogen.engines.train import TrainOptions
    from radiogen.engines.train import train as train_network
    from radiogen.runtime import keep_large_blocks, pick_device

    priors = {"box": "[box]", "lungs": "[lungs]", "mixed": "[box, lungs, none]"}
    chosen = [f"training.priors={priors[prior]}"] if prior else []
    settings = load_preset(preset, config, [*chosen, *(overrides or ())])
    options = TrainOptions(
        preset=preset, seed=seed, pruned=pruned, folds=folds, fold=fold, resume=resume, existing=existing
    )
    keep_large_blocks()
    where = pick_device(device)
    with progress(quiet, f"training on {where}") as tick:
        trained = train_network(cases, out, settings, options, where, tick)
    last = trained.metrics["epochs"][-1]
    say(f"{len(trained.learned_from)} cases learned from, loss of the last epoch {last['loss']:.4f}", quiet)
    for row in trained.metrics["validation"]:
        if row["epoch"] == last["epoch"]:
            typer.echo(f"{row['case_id']}\t{row['prior']}\t{row['prompt']}\tDice {row['dice']:.3f}")
    typer.echo(out)
