"""The command extract-features."""

from pathlib import Path
from typing import Annotated

import typer

from .console import finish, progress, say
from .options import Device, ModelFolder, Quiet


def extract_features(
    cases: Annotated[Path, typer.Argument(help="Folder of cases, made by radiogen ingest.")],
    out: Annotated[Path, typer.Option("--output", "-o", help="CSV to write, a row a lesion.")],
    model: ModelFolder,
    masks: Annotated[Path | None, typer.Option(help="Output of radiogen segment; else the outlines.")] = None,
    split: Annotated[str | None, typer.Option(help="Only cases of this split.")] = None,
    paper: Annotated[bool, typer.Option("--paper", help="The published features (preset paper).")] = False,
    device: Device = "auto",
    quiet: Quiet = False,
) -> None:
    """Deep, shape and intensity features of every lesion."""
    from radiogen.engines.model_folder import load_model
    from radiogen.features.extract import FeatureOptions
    from radiogen.features.extract import extract_features as extract
    from radiogen.runtime import keep_large_blocks, pick_device

    keep_large_blocks()
    loaded = load_model(model, pick_device(device))
    with progress(quiet) as tick:
        table = extract(cases, out, loaded, FeatureOptions(paper=paper, split=split), masks, tick)
    for case_id, reason, way_out in table.failures:
        say(f"{case_id}: {reason} ({way_out})")
    typer.echo(f"{out}\t{len(table.rows)} lesions\t{len(table.rows[0]) - 3} features")
    finish(len(table.failures), out.with_name(f"{out.stem}.failures.csv"))
