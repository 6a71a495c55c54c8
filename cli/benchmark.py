"""Commands that compare ways of pruning by training many networks."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from .console import exit_if_failed, print_message, progress_bar, table_lines
from .options import AsJson, Cases, Config, Existing, Overrides, Preset, Quiet, advanced

app = typer.Typer(help="Compare pruning criteria by training many networks.", no_args_is_help=True)

Out = Annotated[Path, typer.Option("--output", "-o", help="Folder for runs, tables and pictures")]
Sparsities = Annotated[str, typer.Option(help="Sparsities: shares of the weights that are removed")]
Seeds = Annotated[str, typer.Option(help="Seeds; each one trains every network once more")]
Devices = Annotated[str, typer.Option("--device", help="Device: auto, cpu, cuda, or several: cuda:0,cuda:1")]
Jobs = Annotated[
    int | None, typer.Option(help="Number of trainings in parallel; default: one per device", min=1)
]
Epochs = Annotated[int | None, typer.Option(help="Number of epochs of each training", min=1)]

ACCURACY = ("criterion", "control", "sparsity", "seeds", "accuracy", "against", "difference", "95 % interval")
DICE = (
    "structure",
    "criterion",
    "share",
    "seeds",
    "Dice",
    "to dense",
    "95 % interval",
    "weights not zero",
    "checkpoint MB",
)
COST = (
    "structure",
    "criterion",
    "share",
    "million MACs",
    "inference MiB",
    "training MiB",
    "forward ms",
    "step ms",
    "training min",
)


@app.command("pruning")
def pruning(
    source: Annotated[
        Path,
        typer.Argument(
            help="Images: digits, a folder of CIFAR (binary) or Tiny-ImageNet, or one with a folder per class"
        ),
    ],
    out: Out,
    criteria: Annotated[str, typer.Option(help="Pruning criteria to compare")] = (
        "random,magnitude,snip,grasp,synflow,fisher-pruning,fts"
    ),
    sparsities: Sparsities = "0.8,0.9,0.95,0.98",
    seeds: Seeds = "0,42,123",
    controls: Annotated[
        str, typer.Option(help="Random controls to compare with; none: without")
    ] = "shuffle,random-layerwise,reinit",
    controls_of: Annotated[str, advanced(help="Criteria that are compared with controls")] = "fts",
    protocol: Annotated[
        Literal["paper", "successor"] | None,
        typer.Option(help="Scored images, warm-up and Fisher scale of arXiv 2502.11450 or of its successor"),
    ] = None,
    network: Annotated[str | None, typer.Option(help="Network: resnet18, vgg19 or resnet8 (digits)")] = None,
    epochs: Epochs = None,
    width: Annotated[int | None, advanced(help="Number of channels of the first stage", min=1)] = None,
    limit: Annotated[int | None, advanced(help="Largest number of images per class", min=2)] = None,
    side: Annotated[int, advanced(help="Image size in pixels, for class folders", min=8)] = 32,
    samples: Annotated[int | None, advanced(help="Number of images per class that are scored", min=1)] = None,
    config: Config = None,
    overrides: Overrides = None,
    device: Devices = "auto",
    jobs: Jobs = None,
    existing: Existing = "skip",
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Compare pruning criteria on image classifiers by the papers' protocol; prints a table."""
    import json

    from radiogen.benchmark.classifiers import ClassifierSettings
    from radiogen.benchmark.plans import parse_grid
    from radiogen.benchmark.pruning import benchmark_pruning, default_values
    from radiogen.benchmark.runs import check_devices
    from radiogen.config import load_settings
    from radiogen.runtime import keep_large_blocks

    grid = parse_grid(criteria, sparsities, seeds, controls, controls_of)
    chosen = {"network": network, "training.epochs": epochs, "width": width, "samples": samples}
    pairs = [f"{key}={value}" for key, value in chosen.items() if value is not None]
    settings = load_settings(
        ClassifierSettings, default_values(source, protocol), config, [*pairs, *(overrides or ())]
    )
    devices = check_devices(device)
    keep_large_blocks()
    with progress_bar(quiet) as progress:
        result = benchmark_pruning(
            source, out, settings, grid, devices, jobs or len(devices), limit, side, existing, progress
        )
    if as_json:
        typer.echo(json.dumps(result.rows, indent=2))
    else:
        for line in table_lines(ACCURACY, map(_accuracy_cells, result.rows)):
            typer.echo(line)
    print_message(f"table and picture are in {out}", quiet)
    exit_if_failed(result.failures, out / "failures.csv")


@app.command("segmentation-pruning")
def segmentation_pruning(
    cases: Cases,
    out: Out,
    criteria: Annotated[str, typer.Option(help="Pruning criteria to compare; random is a control")] = "fts",
    sparsities: Sparsities = "0.5,0.8,0.9,0.95,0.98",
    keep: Annotated[str, typer.Option(help="Shares of the channels to keep; none: prune weights only")] = (
        "0.7,0.5,0.3"
    ),
    seeds: Seeds = "0,42,123",
    scope: Annotated[
        Literal["global", "layer"], advanced(help="Rank weights over the whole network or in each layer")
    ] = "global",
    samples: Annotated[int, advanced(help="Number of patches that are scored", min=1)] = 32,
    prior: Annotated[
        Literal["box", "lungs", "none"], typer.Option(help="Attention prior of the test cases")
    ] = "box",
    preset: Preset = "modern",
    epochs: Epochs = None,
    config: Config = None,
    overrides: Overrides = None,
    device: Devices = "auto",
    jobs: Jobs = None,
    existing: Existing = "skip",
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Compare dense and pruned RA-Seg: Dice on the cases of the split test, size and speed."""
    import json

    from radiogen.benchmark.plans import parse_grid, parse_shares
    from radiogen.benchmark.runs import check_devices
    from radiogen.benchmark.segmentation import benchmark_segmentation
    from radiogen.benchmark.variants import VariantSettings, plan_variants
    from radiogen.runtime import keep_large_blocks
    from radiogen.training.settings import load_preset

    grid = parse_grid(criteria, sparsities, seeds)
    pairs = [f"training.epochs={epochs}"] if epochs else []
    settings = VariantSettings(
        preset=preset,
        run=load_preset(preset, config, [*pairs, *(overrides or ())]),
        scope=scope,
        samples=samples,
        prior=prior,
    )
    variants = plan_variants(grid.criteria, grid.sparsities, parse_shares("--keep", keep), grid.seeds)
    devices = check_devices(device)
    keep_large_blocks()
    with progress_bar(quiet) as progress:
        result = benchmark_segmentation(
            cases, out, settings, variants, devices, jobs or len(devices), existing, progress
        )
    if as_json:
        typer.echo(json.dumps({"rows": result.rows, "costs": result.costs}, indent=2))
    else:
        dice = table_lines(DICE, map(_dice_cells, result.rows))
        cost = table_lines(COST, map(_cost_cells, result.costs))
        typer.echo("\n".join([*dice, "", *cost]))
    print_message(f"tables, models and masks are in {out}", quiet)
    exit_if_failed(result.failures, out / "failures.csv")


def _accuracy_cells(row: dict[str, Any]) -> list[str]:
    name = [row["criterion"], row["control"], f"{row['sparsity']:g}", str(row["seeds"])]
    return [*name, _spread(row, "accuracy", 2), row["against"] or "", *_difference(row, 2)]


def _dice_cells(row: dict[str, Any]) -> list[str]:
    name = [row["structure"], row["criterion"], f"{row['share']:g}", str(row["seeds"])]
    size = [f"{row['not_zero']:,}", f"{row['checkpoint_mb']:.2f}"]
    return [*name, _spread(row, "dice", 3), *_difference(row, 3), *size]


def _cost_cells(row: dict[str, Any]) -> list[str]:
    name = [row["structure"], row["criterion"], f"{row['share']:g}", f"{row['macs'] / 1e6:.0f}"]
    times = [f"{row[name]:.0f}" for name in ("inference_mb", "training_mb", "forward_ms", "step_ms")]
    return [*name, *times, f"{row['train_minutes']:.1f}"]


def _spread(row: dict[str, Any], name: str, digits: int) -> str:
    deviation = row[f"{name}_sd"]
    return f"{row[f'{name}_mean']:.{digits}f}" + ("" if deviation is None else f" +- {deviation:.{digits}f}")


def _difference(row: dict[str, Any], digits: int) -> tuple[str, str]:
    if row["difference"] is None:
        return "", ""
    reach = "" if row["low"] is None else f"{row['low']:+.{digits}f} to {row['high']:+.{digits}f}"
    return f"{row['difference']:+.{digits}f}", reach
