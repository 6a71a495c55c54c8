"""Commands round the network: train, segment."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from .console import finish, progress, say
from .options import (
    Box,
    BoxFrom,
    Cases,
    Config,
    Device,
    Existing,
    ModelFolder,
    Overrides,
    Preset,
    Prior,
    Quiet,
    Roi,
    Seed,
    chosen_prior,
)


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


def segment(
    source: Annotated[Path, typer.Argument(help="Cases, a DICOM folder, or a NIfTI, NRRD or MHA file.")],
    out: Annotated[Path, typer.Option("--output", "-o", help="Folder for masks, tables, pictures.")],
    model: ModelFolder,
    prior: Prior = None,
    box: Box = None,
    box_from: BoxFrom = None,
    roi: Roi = None,
    split: Annotated[str | None, typer.Option(help="Only cases of this split.")] = None,
    smallest_ml: Annotated[float, typer.Option(help="Smaller parts are left out.", min=0)] = 0.03,
    picture: Annotated[bool, typer.Option(help="Draw lesion.png.")] = True,
    device: Device = "auto",
    existing: Existing = "skip",
    quiet: Quiet = False,
) -> None:
    """Segment lesions on the scanner's grid; prints each lesion with its volume and diameter."""
    from radiogen.engines.model_folder import load_model
    from radiogen.engines.segment import SegmentOptions
    from radiogen.engines.segment import segment as segment_source
    from radiogen.runtime import keep_large_blocks, pick_device

    options = SegmentOptions(
        prior=chosen_prior(prior, box, box_from), box=box, outline=box_from, roi=roi, split=split,
        smallest_ml=smallest_ml, picture=picture, existing=existing,
    )  # fmt: skip
    keep_large_blocks()
    loaded = load_model(model, pick_device(device))
    with progress(quiet) as tick:
        result = segment_source(source, out, loaded, options, tick)
    for case in result.done:
        for decision in case.decisions:
            say(f"{case.case_id}: {decision}", quiet)
        for lesion in case.lesions:
            place = ", ".join(f"{mm:.0f}" for mm in lesion.center_mm)
            size = f"{lesion.volume_ml:.2f} ml\t{lesion.longest_diameter_mm:.0f} mm"
            typer.echo(f"{case.case_id}\tlesion {lesion.label}\t{size}\tat {place}")
        if not case.lesions:
            typer.echo(f"{case.case_id}\tno lesion")
    for case_id, reason, way_out in result.failures:
        say(f"{case_id}: {reason} ({way_out})")
    finish(len(result.failures), out / "failures.csv")
