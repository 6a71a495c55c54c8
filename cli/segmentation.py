"""Commands round the network: prune, train, segment, evaluate."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from .console import finish, progress, say
from .options import (
    Box,
    BoxFrom,
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

Cases = Annotated[Path, typer.Argument(help="Folder of cases, made by radiogen ingest.")]


def prune(
    cases: Cases,
    out: Annotated[Path, typer.Option("--output", "-o", help="Folder for the weight masks.")],
    sparsity: Annotated[float, typer.Option(help="Share of the weights that is removed, below 1.")],
    criterion: Annotated[
        str, typer.Option(help="fts, snip, magnitude, synflow ... how weights are scored.")
    ] = "fts",
    scope: Annotated[Literal["global", "layer"], typer.Option(help="Weights that compete.")] = "global",
    warmup: Annotated[Literal["none", "bn", "epoch"], typer.Option(help="Before scoring.")] = "none",
    fisher_scale: Annotated[str, typer.Option(help="batch, dataset or a number (of fts).")] = "batch",
    rounds: Annotated[int | None, typer.Option(help="Score and prune in this many rounds.", min=1)] = None,
    samples: Annotated[int, typer.Option(help="Patches that are scored.", min=1)] = 32,
    reference: Annotated[bool, typer.Option(help="Reproduce the published code's choices.")] = False,
    allow_collapse: Annotated[bool, typer.Option(help="Accept layers that nothing passes.")] = False,
    preset: Preset = "modern",
    config: Config = None,
    overrides: Overrides = None,
    seed: Seed = 0,
    device: Device = "auto",
    existing: Annotated[Literal["overwrite", "fail"], typer.Option(help="If OUT is there.")] = "overwrite",
    quiet: Quiet = False,
) -> None:
    """Choose the weights of RA-Seg to keep before it is trained; prints a table layer by layer."""
    from radiogen.config import check_settings
    from radiogen.engines.presets import load_preset
    from radiogen.engines.prune import PruneOptions, check_scoring
    from radiogen.engines.prune import prune as prune_network
    from radiogen.runtime import keep_large_blocks, pick_device

    check_scoring(criterion, sparsity)
    scoring = dict(
        criterion=criterion, sparsity=sparsity, scope=scope, rounds=rounds, reference=reference,
        fisher_scale=fisher_scale,
    )  # fmt: skip
    values = dict(
        preset=preset, seed=seed, samples=samples, allow_collapse=allow_collapse, existing=existing,
        criterion=scoring, warmup={"kind": warmup},
    )  # fmt: skip
    options = check_settings(PruneOptions, values, what="prune")
    settings = load_preset(preset, config, overrides or ())
    keep_large_blocks()
    chosen = pick_device(device)
    with progress(quiet) as tick:
        pruned = prune_network(cases, out, settings, options, chosen, tick)
    typer.echo(f"{'layer':<44}{'weights':>10}{'kept':>9}{'share':>8}{'dead in':>9}{'dead out':>10}")
    for row in pruned.layers:
        dead = f"{row.dead_in}/{row.channels_in}", f"{row.dead_out}/{row.channels_out}"
        typer.echo(f"{row.name:<44}{row.weights:>10}{row.kept:>9}{row.share:>8.3f}{dead[0]:>9}{dead[1]:>10}")
    for note in pruned.notes:
        say(note, quiet)
    typer.echo(out)


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


def evaluate(
    predicted: Annotated[Path, typer.Argument(help="Output of radiogen segment, or a mask file.")],
    reference: Annotated[Path, typer.Argument(help="Folder of cases with outlines, or a mask file.")],
    out: Annotated[Path | None, typer.Option("--output", "-o", help="CSV to write.")] = None,
    split: Annotated[str | None, typer.Option(help="Only the reference's cases of this split.")] = None,
    tolerance_mm: Annotated[float, typer.Option(help="Tolerance of the surface Dice.", min=0)] = 2.0,
    as_json: Annotated[bool, typer.Option("--json", help="Answer as JSON.")] = False,
    quiet: Quiet = False,
) -> None:
    """Compare lesion masks with a reference, beside the floors that a bare box reaches."""
    import json

    from radiogen.engines.evaluate import evaluate as evaluate_masks

    with progress(quiet) as tick:
        result = evaluate_masks(predicted, reference, out, tolerance_mm, split, tick)
    if as_json:
        typer.echo(json.dumps({"rows": result.rows, "summary": result.summary}, indent=2, default=str))
        return
    for row in result.rows:
        typer.echo(
            "\t".join(f"{name} {_short(value)}" for name, value in row.items() if value not in ("", None))
        )
    for row in result.summary:
        typer.echo("summary\t" + "\t".join(f"{name} {_short(value)}" for name, value in row.items()))


def _short(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)
