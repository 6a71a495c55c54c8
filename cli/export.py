"""Hand cases to other tools: export."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from .console import say
from .options import Cases, Quiet, Seed


def export(
    cases: Cases,
    out: Annotated[Path, typer.Option("--output", "-o", help="New folder.")],
    to: Annotated[
        Literal["monai-datalist", "nnunet", "bids-like"],
        typer.Option("--to", help="MONAI data list, raw data set of nnU-Net v2, or as BIDS does."),
    ],
    folds: Annotated[int, typer.Option(min=0, help="Those of radiogen train --folds; 0 for none.")] = 5,
    seed: Seed = 0,
    copy_files: Annotated[bool, typer.Option("--copy", help="Copy volumes; else hard links.")] = False,
    dataset_id: Annotated[int, typer.Option(min=1, max=999, help="Number of an nnU-Net data set.")] = 501,
    quiet: Quiet = False,
) -> None:
    """Lay cases out for MONAI, nnU-Net or a reader of BIDS, with the folds that radiogen trains on."""
    from radiogen.cohorts.exports import ExportOptions, export_cases

    options = ExportOptions(folds=folds, seed=seed, copy_files=copy_files, dataset_id=dataset_id)
    made = export_cases(cases, out, to, options)
    say(f"{made.train} cases to train on, {made.test} to test on", quiet)
    if made.without_outline:
        say(f"without an outline, among the latter: {', '.join(made.without_outline)}", quiet)
    for path in made.files:
        typer.echo(path)
