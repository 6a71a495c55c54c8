"""The commands of radiogen cohort: list, show and init here, the others beside."""

import json
from pathlib import Path
from typing import Annotated

import typer

from . import cohort_download, cohort_run
from .console import print_message, progress_bar, table_lines
from .options import AsJson, Quiet

app = typer.Typer(help="Public cohorts and your own: list, download, ingest and run them.")


@app.callback(no_args_is_help=True)
def _cohort() -> None:
    """Public cohorts and your own: list, download, ingest and run them."""


@app.command("list")
def list_cohorts(as_json: AsJson = False) -> None:
    """List the cohorts that radiogen knows."""
    from radiogen.resources import cohort_card, cohort_names

    cards = [cohort_card(name) for name in cohort_names()]
    if as_json:
        typer.echo(json.dumps([card.model_dump(mode="json") for card in cards], indent=2))
        return
    rows = []
    for card in cards:
        counts = (card.counts.patients, card.counts.with_outline, card.counts.ct)
        gigabytes = f"{card.counts.gigabytes:g}" if card.counts.gigabytes else ""
        rows.append([card.name, *(str(count or "") for count in counts), gigabytes, card.licence, card.title])
    titles = ("cohort", "patients", "with outline", "CT series", "GB", "licence", "title")
    typer.echo("\n".join(table_lines(titles, rows)))


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="Cohort, or the .yaml card of your own")],
    as_json: AsJson = False,
) -> None:
    """Show a cohort: content, licence, where to get it, known problems."""
    from radiogen.resources import cohort_card

    card = cohort_card(name)
    if as_json:
        typer.echo(card.model_dump_json(indent=2))
        return
    from radiogen.cohorts.cards import card_lines

    typer.echo("\n".join(card_lines(card)))


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="Folder of your scans")],
    out: Annotated[Path, typer.Option("--output", "-o", help="Card to write, NAME.yaml")],
    quiet: Quiet = False,
) -> None:
    """Write a first card of your own cohort from its folder; complete it in an editor."""
    from radiogen.cohorts.cards import start_card

    with progress_bar(quiet) as progress:
        card = start_card(folder, out, progress)
    print_message(f"check it, then: radiogen cohort run {out} -o run", quiet)
    typer.echo(f"{out}\t{card.name}")


app.command("download")(cohort_download.download)
app.command("ingest")(cohort_run.ingest)
app.command("run")(cohort_run.run)
app.command("status")(cohort_run.status)
app.command("retry")(cohort_run.retry)
