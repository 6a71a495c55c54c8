"""Commands about pruning: choose the weights to keep, show a choice, compare two."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from .console import print_message, progress_bar
from .options import AsJson, Cases, Config, Device, Overrides, Preset, Quiet, Seed, advanced

if TYPE_CHECKING:
    from radiogen.pruning.channel_pruning import ChannelRow
    from radiogen.training.prune import PrunedNetwork

MOST_SAMPLES = 256  # the most patches that --samples auto scores
Share = float | None


def prune(
    cases: Cases,
    out: Annotated[Path, typer.Option("--output", "-o", help="Pruned folder to write")],
    sparsity: Annotated[
        float | None, typer.Option(help="Share of the weights that is removed, below 1")
    ] = None,
    structure: Annotated[
        Literal["weight", "channel"], typer.Option(help="Remove single weights or whole channels")
    ] = "weight",
    keep: Annotated[Share, typer.Option(help="Share of the channels to keep", min=0, max=1)] = None,
    flops: Annotated[
        Share, advanced(help="Share of the multiplications to keep, in place of --keep", min=0, max=1)
    ] = None,
    memory: Annotated[
        Share,
        advanced(help="Share of the activations in training to keep, in place of --keep", min=0, max=1),
    ] = None,
    step: Annotated[
        int | None, advanced(help="Round the channels of a layer to multiples of this; default: 8", min=1)
    ] = None,
    per_flop: Annotated[bool, advanced(help="Rank channels by score per multiplication")] = False,
    criterion: Annotated[
        str, typer.Option(help="Pruning criterion: fts, snip, magnitude, synflow, random and others")
    ] = "fts",
    scope: Annotated[
        Literal["global", "layer"] | None,
        typer.Option(
            help="Rank globally or within each layer; default: global for weights, layer for channels"
        ),
    ] = None,
    warmup: Annotated[
        Literal["none", "bn", "epoch"], advanced(help="Warm-up before scoring: none, bn or epoch")
    ] = "none",
    fisher_scale: Annotated[
        str, advanced(help="Scale of the Fisher term of fts: batch, dataset or a number")
    ] = "batch",
    rounds: Annotated[int | None, advanced(help="Number of rounds of scoring and pruning", min=1)] = None,
    samples: Annotated[
        str,
        typer.Option(
            help="Number of patches that are scored; auto: until the kept weights change no more",
            metavar="N|auto",
        ),
    ] = "32",
    settle: Annotated[
        float,
        advanced(help="Share of changed weights below which --samples auto stops", min=0, max=1),
    ] = 0.1,
    control: Annotated[
        Literal["none", "shuffle", "reinit", "random-layerwise", "uniform-width"],
        typer.Option(
            help="Replace the mask by a random one with the same density per layer"
            " (uniform-width: for channels)"
        ),
    ] = "none",
    reference: Annotated[bool, advanced(help="Reproduce the choices of the published code")] = False,
    allow_collapse: Annotated[bool, advanced(help="Accept a network without any path to its output")] = False,
    preset: Preset = "modern",
    config: Config = None,
    overrides: Overrides = None,
    seed: Seed = 0,
    device: Device = "auto",
    existing: Annotated[
        Literal["overwrite", "fail"], typer.Option(help="If the output exists: overwrite or fail")
    ] = "overwrite",
    quiet: Quiet = False,
) -> None:
    """Choose the weights or channels of RA-Seg to keep before it is trained; prints a table by layer.

    See also radiogen prune show PRUNED and radiogen prune compare A B. Under torchrun every process scores
    its share of the patches.
    """
    from radiogen.config import check_settings
    from radiogen.distributed import is_rank_zero
    from radiogen.runtime import keep_large_blocks, pick_device
    from radiogen.training.prune import PruneOptions, check_scoring, prune_cases
    from radiogen.training.settings import load_preset

    of_channels = structure == "channel"
    if (per_flop or step) and not of_channels:
        raise typer.BadParameter("--per-flop and --step go with --structure channel")
    if allow_collapse and of_channels:
        raise typer.BadParameter(
            "--allow-collapse goes with --structure weight; channels keep a floor per layer"
        )
    target, share = _target(structure, sparsity=sparsity, keep=keep, flops=flops, memory=memory)
    weight_sparsity = 0.0 if of_channels else share
    check_scoring(criterion, weight_sparsity)
    count, moments = _samples(samples, settle)
    values: dict[str, Any] = dict(
        preset=preset, seed=seed, samples=count, allow_collapse=allow_collapse, existing=existing,
        warmup={"kind": warmup},
    )  # fmt: skip
    values["criterion"] = dict(
        criterion=criterion, sparsity=weight_sparsity, scope=scope or "global", rounds=rounds,
        reference=reference, fisher_scale=fisher_scale, moments=moments,
    )  # fmt: skip
    if of_channels:
        values["channels"] = dict(
            target=target, share=share, scope=scope or ("global" if per_flop else "layer"),
            per_flop=per_flop, step=step or 8, control=control,
        )  # fmt: skip
    else:
        values["control"] = control
    options = check_settings(PruneOptions, values, source="prune")
    settings = load_preset(preset, config, overrides or ())
    keep_large_blocks()
    chosen_device = pick_device(device)
    with progress_bar(quiet or not is_rank_zero()) as progress:
        pruned = prune_cases(cases, out, settings, options, chosen_device, progress)
    if is_rank_zero():
        _print_pruned(pruned, quiet)
        typer.echo(out)


def _target(structure: str, **given: float | None) -> tuple[str, float]:
    """Return the one target that was given, with its share."""
    targets = [(name, share) for name, share in given.items() if share is not None]
    if len(targets) != 1 or (targets[0][0] == "sparsity") != (structure == "weight"):
        raise typer.BadParameter("give --sparsity, or --structure channel with --keep, --flops or --memory")
    return targets[0]


def _samples(text: str, settle: float) -> tuple[int, dict[str, float]]:
    """Return how many patches are scored at most, and the setting that stops earlier."""
    if text == "auto" and 0 < settle < 1:
        return MOST_SAMPLES, {"settle": settle}
    if text.isdecimal() and int(text) > 0:
        return int(text), {}
    raise typer.BadParameter("give a number of patches, or auto with --settle between 0 and 1")


def show(
    pruned: Annotated[Path, typer.Argument(help="Pruned folder, or a model trained with it")],
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Show the layers of a pruned network: weights, kept, share, dead channels, MACs."""
    import json
    from dataclasses import asdict

    from radiogen.pruning.layers import layer_lines
    from radiogen.training.pruned_folder import show_pruned

    table = show_pruned(pruned)
    if as_json:
        layers = [{**asdict(row), "share": row.share, "macs": row.macs} for row in table.layers]
        layers += [asdict(row) for row in table.channels]
        typer.echo(json.dumps({"about": table.about, "layers": layers}, indent=2))
        return
    names = ("criterion", "scope", "sparsity", "target", "share", "samples", "seed", "warmup", "control")
    facts = [f"{name} {table.about[name]}" for name in names if name in table.about]
    print_message(", ".join(facts), quiet)
    if table.channels:
        _print_channels(table.channels)
    else:
        typer.echo("\n".join(layer_lines(table.layers)))


def compare(
    first: Annotated[Path, typer.Argument(help="Pruned folder, file of weight masks, or trained model")],
    second: Annotated[Path, typer.Argument(help="Another one of the same network")],
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


def _print_pruned(pruned: "PrunedNetwork", quiet: bool) -> None:
    from radiogen.pruning.layers import layer_lines

    if pruned.channels:
        _print_channels(pruned.channels.layers)
        typer.echo("\n".join(pruned.channels.totals()))
    else:
        typer.echo("\n".join(layer_lines(pruned.layers)))
    for note in pruned.notes:
        print_message(note, quiet)


def _print_channels(layers: "list[ChannelRow]") -> None:
    """Print width, weights and MACs of each layer before and after channels were removed."""
    typer.echo(f"{'layer':<44}{'width':>12}{'weights':>24}{'MMACs':>20}")
    for row in layers:
        width = f"{row.width_before} > {row.width_after}"
        weights = f"{row.weights_before} > {row.weights_after}"
        macs = f"{row.macs_before / 1e6:.1f} > {row.macs_after / 1e6:.1f}"
        typer.echo(f"{row.name:<44}{width:>12}{weights:>24}{macs:>20}")
