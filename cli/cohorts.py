"""Commands round whole cohorts: list, show, init and download."""

import typer

from . import cohort_run

app = typer.Typer(help="Public cohorts and your own: what they are, how to get them, run them whole.")


@app.callback(no_args_is_help=True)
def _cohort() -> None:
    """Public cohorts and your own: what they are, how to get them, run them whole."""


app.command("ingest")(cohort_run.ingest)
app.command("run")(cohort_run.run)
app.command("status")(cohort_run.status)
app.command("retry")(cohort_run.retry)
