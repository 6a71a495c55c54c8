"""The command qc."""

from pathlib import Path
from typing import Annotated

import typer

from .console import progress_bar
from .options import Quiet


def qc(
    cases: Annotated[Path, typer.Argument(help="Folder of cases, or one case.")],
    out: Annotated[Path, typer.Option("--output", "-o", help="HTML page to write.")],
    jobs: Annotated[int, typer.Option(help="Cases looked at at the same time.", min=1)] = 1,
    quiet: Quiet = False,
) -> None:
    """Write one page that shows every case with its lungs and lesions, the most suspicious first."""
    from radiogen.report.qc import qc as write_qc

    with progress_bar(quiet) as progress:
        page = write_qc(cases, out, jobs, progress)
    typer.echo(page)
