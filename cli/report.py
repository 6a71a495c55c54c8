"""The command report."""

from pathlib import Path
from typing import Annotated

import typer


def report(
    run: Annotated[Path, typer.Argument(help="Folder of a run, of segmented cases, or one case.")],
    out: Annotated[Path, typer.Option("--output", "-o", help="HTML page to write.")],
) -> None:
    """Write one self-contained page about a run."""
    from radiogen.report.page import report as write_report

    typer.echo(write_report(run, out))
