"""Commands about pruning: choose the weights to keep, show a choice, compare two."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from .console import progress, say
from .options import Cases, Config, Device, Overrides, Preset, Quiet, Seed


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
