"""Commands about model folders: list, show, import, export."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from .console import say
from .options import AsJson, Quiet

app = typer.Typer(help="Model folders: list, show, import, export.", no_args_is_help=True)


@app.command("list")
def list_models(
    folder: Annotated[Path | None, typer.Argument(help="Where to look; else the shipped models.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the models of a folder, or those that radiogen ships."""
    from radiogen.model.ensemble import find_models

    found = find_models(folder)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    for row in found:
        typer.echo("\t".join(f"{value}" for value in row.values()))
    if not found:
        typer.echo("no models here; make one with radiogen train", err=True)


@app.command()
def show(folder: Annotated[Path, typer.Argument(help="Model folder.")], as_json: AsJson = False) -> None:
    """Show the card (or the config) of a model."""
    from radiogen.model.folder import CARD, read_model_config

    config = read_model_config(folder)
    typer.echo(
        config.model_dump_json(indent=2) if as_json else (folder / CARD).read_text(encoding="utf-8").rstrip()
    )


@app.command("import")
def import_checkpoint(
    checkpoint: Annotated[Path, typer.Argument(help="PyTorch file with the published RA-Seg's names.")],
    out: Annotated[Path, typer.Option("--output", "-o", help="Model folder to write.")],
) -> None:
    """Turn a checkpoint of the published RA-Seg code into a model folder."""
    from radiogen.model.importing import import_published

    config = import_published(checkpoint, out)
    typer.echo(f"{out}\twidths {config.network.encoder_widths}")


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(help="Model folder.")],
    out: Annotated[Path, typer.Option("--output", "-o", help="File to write; the folder of a bundle.")],
    to: Annotated[Literal["onnx", "torchscript", "monai-bundle"], typer.Option(help="The form.")],
    size: Annotated[str | None, typer.Option(help="D,H,W of its windows; else the model's own.")] = None,
    quiet: Quiet = False,
) -> None:
    """Write a model for programs without radiogen, compared with torch; says how far off it is."""
    from radiogen.model.exporting import export_model, parse_size

    done = export_model(folder, out, to, parse_size(size) if size else None)
    apart = f"{done.probability_apart:.1e} in a probability, {done.logit_apart:.1e} in a logit"
    say(f"differs from torch by at most {apart}", quiet)
    typer.echo(f"{out}\twindows {' x '.join(map(str, done.size))}")
