"""Commands about model folders: list, show, calibrate, import, export."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from .console import print_message, progress_bar
from .options import AsJson, Cases, Device, Quiet

app = typer.Typer(help="Model folders: list, show, calibrate, import, export.", no_args_is_help=True)


@app.command("list")
def list_models(
    folder: Annotated[
        Path | None, typer.Argument(help="Folder of model folders; default: the shipped models")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the models of a folder, or those that radiogen ships."""
    from radiogen.model.folder import find_models

    found = find_models(folder)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    for row in found:
        typer.echo("\t".join(f"{value}" for value in row.values()))
    if not found:
        typer.echo("no models here; make one with radiogen train", err=True)


@app.command()
def show(folder: Annotated[Path, typer.Argument(help="Model folder")], as_json: AsJson = False) -> None:
    """Show the card (or the config) of a model."""
    from radiogen.model.folder import CARD, read_model_config

    config = read_model_config(folder)
    typer.echo(
        config.model_dump_json(indent=2) if as_json else (folder / CARD).read_text(encoding="utf-8").rstrip()
    )


@app.command()
def calibrate(
    folder: Annotated[Path, typer.Argument(help="Model folder, trained with the priors lungs and box")],
    cases: Cases,
    device: Device = "auto",
    quiet: Quiet = False,
) -> None:
    """Learn how probable the candidates of --prior auto are lesions, from outlined whole scans.

    Example: radiogen model calibrate model cases
    """
    from radiogen.runtime import keep_large_blocks
    from radiogen.segmentation.calibration import calibrate as calibrate_model

    keep_large_blocks()
    with progress_bar(quiet) as progress:
        fitted = calibrate_model(folder, cases, device, progress)
    typer.echo(fitted.measured)


@app.command("import")
def import_checkpoint(
    checkpoint: Annotated[Path, typer.Argument(help="PyTorch file with the published RA-Seg's names")],
    out: Annotated[Path, typer.Option("--output", "-o", help="Model folder to write")],
) -> None:
    """Turn a checkpoint of the published RA-Seg code into a model folder."""
    from radiogen.model.importing import import_published

    config = import_published(checkpoint, out)
    typer.echo(f"{out}\twidths {config.network.encoder_widths}")


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(help="Model folder")],
    out: Annotated[Path, typer.Option("--output", "-o", help="File to write; for monai-bundle a folder")],
    to: Annotated[Literal["onnx", "torchscript", "monai-bundle"], typer.Option(help="Output format")],
    size: Annotated[str | None, typer.Option(help="Window size as D,H,W; default: that of the model")] = None,
    quiet: Quiet = False,
) -> None:
    """Export a model for programs without radiogen, and compare its output with torch."""
    from radiogen.model.exporting import export_model, parse_size

    exported = export_model(folder, out, to, parse_size(size) if size else None)
    difference = f"{exported.probability_apart:.1e} in a probability, {exported.logit_apart:.1e} in a logit"
    print_message(f"differs from torch by at most {difference}", quiet)
    typer.echo(f"{out}\twindows {' x '.join(map(str, exported.size))}")
