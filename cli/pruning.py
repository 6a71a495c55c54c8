"""Commands about pruning: choose the weights to keep, show a choice, compare two."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from .console import progress, say
from .options import Cases, Config, Device, Overrides, Preset, Quiet, Seed

if TYPE_CHECKING:
    from radiogen.pruning.channel_pruning import ChannelRow

Share = float | None
ChannelControl = Literal["shuffle", "reinit", "uniform-width"]


def prune(
    cases: Cases,
    out: Annotated[Path, typer.Option("--output", "-o", help="Folder for the choice.")],
    sparsity: Annotated[
        float | None, typer.Option(help="Share of the weights that is removed, below 1.")
    ] = None,
    structure: Annotated[
        Literal["weight", "channel"], typer.Option(help="Zero weights, or take out whole channels.")
    ] = "weight",
    keep: Annotated[Share, typer.Option(help="Share of the channels that stays.", min=0, max=1)] = None,
    flops: Annotated[Share, typer.Option(help="Or: of the multiplications.", min=0, max=1)] = None,
    memory: Annotated[Share, typer.Option(help="Or: of the activations in training.", min=0, max=1)] = None,
    per_flop: Annotated[bool, typer.Option(help="Channels compete by score per multiplication.")] = False,
    control: Annotated[ChannelControl | None, typer.Option(help="Channels chosen without scores.")] = None,
    criterion: Annotated[
        str, typer.Option(help="fts, snip, magnitude, synflow ... how weights are scored.")
    ] = "fts",
    scope: Annotated[
        Literal["global", "layer"] | None,
        typer.Option(help="What competes; else global for weights, layer for channels."),
    ] = None,
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
    """Choose the weights or channels of RA-Seg to keep before it is trained; prints a table by layer."""
    from radiogen.config import check_settings
    from radiogen.engines.presets import load_preset
    from radiogen.engines.prune import PruneOptions, check_scoring
    from radiogen.engines.prune import prune as prune_network
    from radiogen.runtime import keep_large_blocks, pick_device

    if (per_flop or control) and structure == "weight":
        raise typer.BadParameter("--per-flop and --control are for --structure channel")
    target, share = _target(structure, sparsity=sparsity, keep=keep, flops=flops, memory=memory)
    of_channels = structure == "channel"
    check_scoring(criterion, 0.0 if of_channels else share)
    scoring = dict(
        criterion=criterion, sparsity=0.0 if of_channels else share, scope=scope or "global", rounds=rounds,
        reference=reference, fisher_scale=fisher_scale,
    )  # fmt: skip
    channels = dict(
        target=target, share=share, scope=scope or ("global" if per_flop else "layer"), per_flop=per_flop,
        control=control,
    )  # fmt: skip
    values = dict(
        preset=preset, seed=seed, samples=samples, allow_collapse=allow_collapse, existing=existing,
        criterion=scoring, warmup={"kind": warmup},
        channels=channels if of_channels else None,
    )  # fmt: skip
    options = check_settings(PruneOptions, values, what="prune")
    settings = load_preset(preset, config, overrides or ())
    keep_large_blocks()
    chosen = pick_device(device)
    with progress(quiet) as tick:
        pruned = prune_network(cases, out, settings, options, chosen, tick)
    if pruned.channels:
        print_channels(pruned.channels.layers)
    else:
        typer.echo(f"{'layer':<44}{'weights':>10}{'kept':>9}{'share':>8}{'dead in':>9}{'dead out':>10}")
        for row in pruned.layers:
            dead = f"{row.dead_in}/{row.channels_in}", f"{row.dead_out}/{row.channels_out}"
            typer.echo(
                f"{row.name:<44}{row.weights:>10}{row.kept:>9}{row.share:>8.3f}{dead[0]:>9}{dead[1]:>10}"
            )
    for note in pruned.notes:
        say(note, quiet)
    typer.echo(out)


def _target(structure: str, **given: float | None) -> tuple[str, float]:
    """The one target that was given, with its share."""
    targets = [(name, share) for name, share in given.items() if share is not None]
    if len(targets) != 1 or (targets[0][0] == "sparsity") != (structure == "weight"):
        raise typer.BadParameter("give --sparsity, or --structure channel with --keep, --flops or --memory")
    return targets[0]


def print_channels(layers: Sequence["ChannelRow"]) -> None:
    """The table of a network with fewer channels: before and after, layer by layer."""
    typer.echo(f"{'layer':<40}{'width':>12}{'weights':>22}{'MACs':>32}")
    for row in layers:
        width = f"{row.width_before} > {row.width_after}"
        weights = f"{row.weights_before:,} > {row.weights_after:,}"
        macs = f"{row.macs_before:,} > {row.macs_after:,}"
        typer.echo(f"{row.name:<40}{width:>12}{weights:>22}{macs:>32}")
