"""Commands that compare ways of pruning by training many networks."""

from pathlib import Path
from typing import Annotated, Any

import typer

from .console import finish, progress, say
from .options import AsJson, Config, Existing, Overrides, Quiet

app = typer.Typer(help="Compare ways of pruning by training many networks.", no_args_is_help=True)

Out = Annotated[Path, typer.Option("--output", "-o", help="Folder of runs, table and picture.")]
Sparsities = Annotated[str, typer.Option(help="Shares of the weights that are removed.")]
Seeds = Annotated[str, typer.Option(help="Each seed is one more training of everything.")]
Devices = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, or several: cuda:0,cuda:1.")]
Jobs = Annotated[int | None, typer.Option(help="Runs at the same time; else one a device.", min=1)]
Epochs = Annotated[int | None, typer.Option(help="Epochs of each training.", min=1)]
SHOWN = ("criterion", "control", "sparsity", "seeds", "accuracy", "against", "difference", "95 % interval")


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
    controls: Annotated[str, typer.Option(help="shuffle,reinit; none leaves them out.")] = "shuffle,reinit",
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

    from radiogen.config import load_settings
    from radiogen.engines.benchmark.classifiers import ClassifierSettings
    from radiogen.engines.benchmark.plans import read_grid
    from radiogen.engines.benchmark.pruning import benchmark_pruning, default_values
    from radiogen.engines.benchmark.runs import check_devices
    from radiogen.runtime import keep_large_blocks

    grid = read_grid(criteria, sparsities, seeds, controls, controls_of)
    chosen = {"network": network, "training.epochs": epochs, "width": width, "samples": samples}
    pairs = [f"{key}={value}" for key, value in chosen.items() if value is not None]
    settings = load_settings(ClassifierSettings, default_values(source), config, [*pairs, *(overrides or ())])
    devices = check_devices(device)
    keep_large_blocks()
    with progress(quiet) as tick:
        made = benchmark_pruning(
            source, out, settings, grid, devices, jobs or len(devices), limit, side, existing, tick
        )
    typer.echo(json.dumps(made.rows, indent=2) if as_json else _table(made.rows))
    for name, reason, way_out in made.failures:
        say(f"{name}: {reason} ({way_out})")
    say(f"table and picture are in {out}", quiet)
    finish(len(made.failures), out / "failures.csv")


def _table(rows: list[dict[str, Any]]) -> str:
    lines = [SHOWN]
    for row in rows:
        deviation = "" if row["accuracy_sd"] is None else f" +- {row['accuracy_sd']:.2f}"
        difference = "" if row["difference"] is None else f"{row['difference']:+.2f}"
        interval = "" if row["low"] is None else f"{row['low']:+.2f} to {row['high']:+.2f}"
        lines.append(
            (
                row["criterion"],
                row["control"],
                f"{row['sparsity']:g}",
                str(row["seeds"]),
                f"{row['accuracy_mean']:.2f}{deviation}",
                row["against"] or "",
                difference,
                interval,
            )
        )
    widths = [max(len(line[column]) for line in lines) for column in range(len(SHOWN))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
