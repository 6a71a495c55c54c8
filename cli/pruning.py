"""Commands about pruning: choose the weights to keep, show a choice, compare two."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from .console import progress_bar, say
from .options import AsJson, Cases, Config, Device, Overrides, Preset, Quiet, Seed

if TYPE_CHECKING:
    from radiogen.pruning.channel_pruning import ChannelRow
    from radiogen.pruning.layers import LayerRow

Share = float | None


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
    step: Annotated[int | None, typer.Option(help="Widths are multiples of it, else of 8.", min=1)] = None,
    per_flop: Annotated[bool, typer.Option(help="Channels compete by score per multiplication.")] = False,
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
    samples: Annotated[
        str, typer.Option(help="Patches that are scored; auto: until the kept set settles.", metavar="N|auto")
    ] = "32",
    settle: Annotated[
        float, typer.Option(help="auto stops when a doubling changes less than this share.", min=0, max=1)
    ] = 0.1,
    control: Annotated[
        Literal["none", "shuffle", "reinit", "random-layerwise", "uniform-width"],
        typer.Option(help="What the criterion must beat, as much of each layer kept; the last of channels."),
    ] = "none",
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
    """Choose the weights or channels of RA-Seg to keep before it is trained; prints a table by layer.

    Beside it: radiogen prune show PRUNED, radiogen prune compare A B. Under torchrun every process scores its
    share of the patches.
    """
    from radiogen.config import check_settings
    from radiogen.distributed import is_rank_zero
    from radiogen.runtime import keep_large_blocks, pick_device
    from radiogen.training.prune import PruneOptions, check_scoring
    from radiogen.training.prune import prune as prune_network
    from radiogen.training.settings import load_preset

    if (per_flop or step) and structure == "weight":
        raise typer.BadParameter("--per-flop and --step go with --structure channel")
    if allow_collapse and structure == "channel":
        raise typer.BadParameter(
            "--allow-collapse goes with --structure weight; channels keep a floor per layer"
        )
    target, share = _target(structure, sparsity=sparsity, keep=keep, flops=flops, memory=memory)
    of_channels = structure == "channel"
    check_scoring(criterion, 0.0 if of_channels else share)
    count, moments = _samples(samples, settle)
    scoring = dict(
        criterion=criterion, sparsity=0.0 if of_channels else share, scope=scope or "global", rounds=rounds,
        reference=reference, fisher_scale=fisher_scale, moments=moments,
    )  # fmt: skip
    channels = dict(
        target=target, share=share, scope=scope or ("global" if per_flop else "layer"), per_flop=per_flop,
        step=step or 8, control=control,
    )  # fmt: skip
    values = dict(
        preset=preset, seed=seed, samples=count, allow_collapse=allow_collapse, existing=existing,
        criterion=scoring, warmup={"kind": warmup},
        **({"channels": channels} if of_channels else {"control": control}),
    )  # fmt: skip
    options = check_settings(PruneOptions, values, source="prune")
    settings = load_preset(preset, config, overrides or ())
    keep_large_blocks()
    chosen = pick_device(device)
    with progress_bar(quiet or not is_rank_zero()) as progress:
        pruned = prune_network(cases, out, settings, options, chosen, progress)
    if is_rank_zero():
        if pruned.channels:
            _print_channels(pruned.channels.layers)
            typer.echo("\n".join(pruned.channels.totals()))
        else:
            _print_layers(pruned.layers)
        for note in pruned.notes:
            say(note, quiet)
        typer.echo(out)


def _target(structure: str, **given: float | None) -> tuple[str, float]:
    """The one target that was given, with its share."""
    targets = [(name, share) for name, share in given.items() if share is not None]
    if len(targets) != 1 or (targets[0][0] == "sparsity") != (structure == "weight"):
        raise typer.BadParameter("give --sparsity, or --structure channel with --keep, --flops or --memory")
    return targets[0]


MOST_SAMPLES = 256  # where auto stops in any case


def _samples(text: str, settle: float) -> tuple[int, dict[str, float]]:
    """How many patches at most, and the share at which to stop earlier."""
    if text == "auto" and 0 < settle < 1:
        return MOST_SAMPLES, {"settle": settle}
    if text.isdecimal() and int(text) > 0:
        return int(text), {}
    raise typer.BadParameter("give a number of patches, or auto with --settle between 0 and 1")


def show(
    pruned: Annotated[Path, typer.Argument(help="Folder of radiogen prune, or a model trained with it.")],
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Show the layers of a pruned network: weights, kept, share, dead channels, MACs."""
    import json
    from dataclasses import asdict

    from radiogen.training.pruned_folder import show_pruned

    table = show_pruned(pruned)
    if as_json:
        layers = [{**asdict(row), "share": row.share, "macs": row.macs} for row in table.layers]
        layers += [asdict(row) for row in table.channels]
        typer.echo(json.dumps({"about": table.about, "layers": layers}, indent=2))
        return
    told = ("criterion", "scope", "sparsity", "target", "share", "samples", "seed", "warmup", "control")
    say(", ".join(f"{name} {table.about[name]}" for name in told if name in table.about), quiet)
    if table.channels:
        _print_channels(table.channels)
    else:
        _print_layers(table.layers)


def compare(
    first: Annotated[Path, typer.Argument(help="Pruned folder, file of weight masks, or trained model.")],
    second: Annotated[Path, typer.Argument(help="Another one of the same network.")],
    as_json: AsJson = False,
) -> None:
    """Compare which weights two pruned networks keep, beside what they would share by chance."""
    import json
    from dataclasses import asdict

    from radiogen.training.pruned_folder import compare_pruned

    layers, over_all = compare_pruned(first, second)
    if as_json:
        rows = [{**asdict(row), "shared": row.shared, "jaccard": row.jaccard} for row in [*layers, over_all]]
        typer.echo(json.dumps({"layers": rows[:-1], "all": rows[-1]}, indent=2))
        return
    typer.echo(f"{'layer':<44}{'kept':>9}{'kept':>9}{'both':>9}{'chance':>9}{'shared':>8}{'jaccard':>9}")
    for row in [*layers, over_all]:
        counts = f"{row.kept_first:>9}{row.kept_second:>9}{row.kept_both:>9}{row.expected_both:>9.0f}"
        typer.echo(f"{row.name:<44}{counts}{row.shared:>8.3f}{row.jaccard:>9.3f}")


def _print_channels(layers: "list[ChannelRow]") -> None:
    """Width, weights and MACs of each layer before and after its channels left."""
    typer.echo(f"{'layer':<44}{'width':>12}{'weights':>24}{'MMACs':>20}")
    for row in layers:
        width = f"{row.width_before} > {row.width_after}"
        weights = f"{row.weights_before} > {row.weights_after}"
        macs = f"{row.macs_before / 1e6:.1f} > {row.macs_after / 1e6:.1f}"
        typer.echo(f"{row.name:<44}{width:>12}{weights:>24}{macs:>20}")


def _print_layers(layers: "list[LayerRow]") -> None:
    """One line a layer and one for all; MACs are those that have a kept weight, in millions."""
    head = f"{'layer':<44}{'weights':>10}{'kept':>9}{'share':>8}{'dead in':>9}{'dead out':>10}{'MMACs':>9}"
    typer.echo(head)
    for row in layers:
        dead = f"{row.dead_in}/{row.channels_in}", f"{row.dead_out}/{row.channels_out}"
        cut = "  cut off" if row.is_cut else ""
        typer.echo(
            f"{row.name:<44}{row.weights:>10}{row.kept:>9}{row.share:>8.3f}{dead[0]:>9}{dead[1]:>10}"
            f"{row.macs / 1e6:>9.1f}{cut}"
        )
    names = ("weights", "kept", "macs", "macs_dense")
    weights, kept, macs, dense = (sum(getattr(row, name) for row in layers) for name in names)
    of_dense = f"  of {dense / 1e6:.1f} dense"
    typer.echo(f"{'all':<44}{weights:>10}{kept:>9}{kept / weights:>8.3f}{'':>19}{macs / 1e6:>9.1f}{of_dense}")
