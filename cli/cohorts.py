"""Commands round whole cohorts: list, show, init and download."""

import typer

app = typer.Typer(help="Public cohorts and your own: what they are, how to get them, run them whole.")


@app.callback(no_args_is_help=True)
def _cohort() -> None:
    """Public cohorts and your own: what they are, how to get them, run them whole."""
