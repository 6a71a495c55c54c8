"""Commands that compare ways of pruning by training many networks."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from .console import columns, finish, progress_bar, say
from .options import AsJson, Cases, Config, Existing, Overrides, Preset, Quiet

app = typer.Typer(help="Compare ways of pruning by training many networks.", no_args_is_help=True)

Out = Annotated[Path, typer.Option("--output", "-o", help="Folder of runs, table and picture.")]
Sparsities = Annotated[str, typer.Option(help="Shares of the weights that are removed.")]
Seeds = Annotated[str, typer.Option(help="Each seed is one more training of everything.")]
Devices = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, or several: cuda:0,cuda:1.")]
Jobs = Annotated[int | None, typer.Option(help="Runs at the same time; else one a device.", min=1)]
Epochs = Annotated[int | None, typer.Option(help="Epochs of each training.", min=1)]

ACCURACY = ("criterion", "control", "sparsity", "seeds", "accuracy", "against", "difference", "95 % interval")
DICE = (
    *("structure", "criterion", "share", "seeds", "Dice", "to dense", "95 % interval"),
    *("weights not zero", "checkpoint MB"),
)
COST = (
    *("structure", "criterion", "share", "million MACs", "inference MiB", "training MiB"),
    *("forward ms", "step ms", "training min"),
)


@app.command("pruning")
def pruning(
    source: Annotated[
        Path, typer.Argument(help="digits, a folder of CIFAR-10 or CIFAR-100 (binary), or of class folders.")
    ],
    out: Out,
    criteria: Annotated[str, typer.Option(help="What is compared.")] = (
        "random,magnitude,snip,grasp,synflow,fisher-pruning,fts"
    ),
    sparsities: Sparsities = "0.8,0.9,0.95,0.98",
    seeds: Seeds = "0,42,123",
    controls: Annotated[str, typer.Option(help="none leaves them out.")] = "shuffle,random-layerwise,reinit",
    controls_of: Annotated[str, typer.Option(help="Criteria that get controls.")] = "fts",
    network: Annotated[str | None, typer.Option(help="resnet18, vgg19, resnet8 (digits).")] = None,
    epochs: Epochs = None,
    width: Annotated[int | None, typer.Option(help="Channels of the first stage.", min=1)] = None,
    limit: Annotated[int | None, typer.Option(help="At most this many images of a class.", min=2)] = None,
    side: Annotated[int, typer.Option(help="Pixels a side of images in class folders.", min=8)] = 32,
    samples: Annotated[int | None, typer.Option(help="Images of a class that are scored.", min=1)] = None,
    config: Config = None,
    overrides: Overrides = None,
    device: Devices = "auto",
    jobs: Jobs = None,
    existing: Existing = "skip",
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Train image classifiers pruned in many ways, by the papers' protocol; prints a table with intervals."""
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
    settings = load_settings(ClassifierSettings, default_values(source), config, [*pairs, *(overrides or ())])
    devices = check_devices(device)
    keep_large_blocks()
    with progress_bar(quiet) as progress:
        made = benchmark_pruning(
            source, out, settings, grid, devices, jobs or len(devices), limit, side, existing, progress
        )
    if as_json:
        typer.echo(json.dumps(made.rows, indent=2))
    else:
        for line in columns(ACCURACY, map(_accuracy_cells, made.rows)):
            typer.echo(line)
    for name, reason, hint in made.failures:
        say(f"{name}: {reason} ({hint})")
    say(f"table and picture are in {out}", quiet)
    finish(len(made.failures), out / "failures.csv")


@app.command("segmentation-pruning")
def segmentation_pruning(
    cases: Cases,
    out: Out,
    criteria: Annotated[str, typer.Option(help="How weights are scored; random is a control.")] = "fts",
    sparsities: Sparsities = "0.5,0.8,0.9,0.95,0.98",
    keep: Annotated[str, typer.Option(help="Shares of the channels that stay; none: weights only.")] = (
        "0.7,0.5,0.3"
    ),
    seeds: Seeds = "0,42,123",
    scope: Annotated[Literal["global", "layer"], typer.Option(help="Weights that compete.")] = "layer",
    samples: Annotated[int, typer.Option(help="Patches that are scored.", min=1)] = 32,
    prior: Annotated[Literal["box", "lungs", "none"], typer.Option(help="Prompt of the test cases.")] = "box",
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
    """Train RA-Seg dense and pruned, and compare Dice on the cases of the split test, size and speed."""
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
        made = benchmark_segmentation(
            cases, out, settings, variants, devices, jobs or len(devices), existing, progress
        )
    if as_json:
        typer.echo(json.dumps({"rows": made.rows, "costs": made.costs}, indent=2))
    else:
        for line in (
            *columns(DICE, map(_dice_cells, made.rows)),
            "",
            *columns(COST, map(_cost_cells, made.costs)),
        ):
            typer.echo(line)
    for name, reason, hint in made.failures:
        say(f"{name}: {reason} ({hint})")
    say(f"tables, models and masks are in {out}", quiet)
    finish(len(made.failures), out / "failures.csv")


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
