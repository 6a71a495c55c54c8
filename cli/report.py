"""The command report."""

from pathlib import Path
from typing import Annotated

import typer

from .console import progress_bar
from .options import Quiet


def report(
    run: Annotated[Path, typer.Argument(help="Folder of a run, of cases, of segmented cases, or one case.")],
    out: Annotated[
        Path, typer.Option("--output", "-o", help="HTML page, or Markdown of --checklist, to write.")
    ],
    case: Annotated[str | None, typer.Option(help="Only this case of the run, with a viewer.")] = None,
    cases: Annotated[
        Path | None, typer.Option(help="Folder of the cases, where the run does not hold them.")
    ] = None,
    egfr: Annotated[
        Path | None, typer.Option(help="EGFR model folder whose validation stands behind the probabilities.")
    ] = None,
    checklist: Annotated[
        str | None,
        typer.Option(help="claim, tripod-ai or clear: what the run can answer of it, as Markdown."),
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Cases looked at at the same time.")] = 1,
    quiet: Quiet = False,
) -> None:
    """Write one self-contained page about a case, a run or a cohort, or a reporting checklist."""
    from radiogen.report.page import ReportOptions
    from radiogen.report.page import report as write_report

    options = ReportOptions(cases=cases, case=case, egfr=egfr, jobs=jobs)
    if checklist:
        from radiogen.report.checklist import write_checklist

        typer.echo(write_checklist(checklist, run, out, options))
        return
    with progress_bar(quiet) as progress:
        page = write_report(run, out, options, progress)
    typer.echo(page)
