"""Commands to look at cases and runs: qc, report, view."""

from pathlib import Path
from typing import Annotated

import typer

from .console import print_message, progress_bar
from .options import Quiet

Jobs = Annotated[int, typer.Option(min=1, help="Number of cases drawn in parallel")]


def qc(
    cases: Annotated[Path, typer.Argument(help="Folder of cases, or one case")],
    out: Annotated[Path, typer.Option("--output", "-o", help="HTML page to write")],
    jobs: Jobs = 1,
    quiet: Quiet = False,
) -> None:
    """Write one page that shows every case with its lungs and lesions, the most suspicious first."""
    from radiogen.report.qc import qc as write_qc

    with progress_bar(quiet) as progress:
        page = write_qc(cases, out, jobs, progress)
    typer.echo(page)


def report(
    run: Annotated[Path, typer.Argument(help="Folder of a run, of cases, of segmented cases, or one case")],
    out: Annotated[
        Path, typer.Option("--output", "-o", help="HTML page to write; with --checklist a Markdown file")
    ],
    case: Annotated[str | None, typer.Option(help="Only this case of the run, with a viewer")] = None,
    cases: Annotated[
        Path | None, typer.Option(help="Folder of the cases, if the run does not hold them")
    ] = None,
    egfr: Annotated[
        Path | None, typer.Option(help="EGFR model folder whose validation is shown beside the probabilities")
    ] = None,
    checklist: Annotated[
        str | None,
        typer.Option(help="Fill in a reporting checklist from the run: claim, tripod-ai or clear"),
    ] = None,
    jobs: Jobs = 1,
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


def view(
    paths: Annotated[
        list[Path], typer.Argument(help="Case folder, plain or segmented; or a CT and its masks")
    ],
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of the local server; 0: any free one")
    ] = 0,
    browser: Annotated[bool, typer.Option(help="Open a browser")] = True,
) -> None:
    """Show a case in a browser, in three planes and in 3D; served to this machine only."""
    import signal
    import webbrowser
    from threading import Thread

    from radiogen.report.serving import ViewServer, read_view

    with ViewServer(read_view(paths), port) as server:
        # shutdown() waits for serve_forever() to return, so it must not run in the thread that serves
        signal.signal(signal.SIGINT, lambda *_: Thread(target=server.shutdown).start())
        typer.echo(server.address)
        print_message("Ctrl-C ends it")
        if browser:
            webbrowser.open(server.address)
        server.serve_forever(poll_interval=0.2)
