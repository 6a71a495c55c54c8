"""Bring the scans of a public cohort, or see what of it is there: cohort download."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .console import progress_bar, say
from .options import Quiet

if TYPE_CHECKING:
    from collections.abc import Sequence

    from radiogen.cohorts.index import SeriesRow
    from radiogen.resources import CohortCard


def download(
    name: Annotated[str, typer.Argument(help="Cohort, or a list of series: .tcia, .s5cmd or .csv.")],
    out: Annotated[Path | None, typer.Option("--output", "-o", help="Folder for the DICOM files.")] = None,
    check: Annotated[
        Path | None, typer.Option(help="Only say what of it lies in this folder, whoever brought it.")
    ] = None,
    patients: Annotated[str | None, typer.Option(help="Only these, with commas between.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only so many patients.")] = None,
    only_with_outline: Annotated[
        bool, typer.Option("--only-with-outline", help="Only studies in which somebody drew an outline.")
    ] = False,
    index: Annotated[
        Path | None, typer.Option(help="Rows of the index of the IDC; else those of idc-index.")
    ] = None,
    endpoint: Annotated[str | None, typer.Option(help="Address of another S3 server.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be brought.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    quiet: Quiet = False,
) -> None:
    """Bring a public cohort from the Imaging Data Commons; what is there already is kept.

    Size and licence are shown and agreed to before a byte moves.
    """
    if (out is None) == (check is None):
        raise typer.BadParameter("give a folder with -o, or one to look into with --check")
    from radiogen.cohorts.index import SeriesSelection
    from radiogen.cohorts.requests import find_request

    wanted = SeriesSelection(tuple(filter(None, (patients or "").split(","))), limit, only_with_outline)
    request = find_request(name, wanted, index)
    if request.unknown:
        say(
            f"{request.unknown} series of the list are not in the index, or play no part in the cohort", quiet
        )
    if check is not None:
        _check(request.rows, check, quiet)
    elif out is not None:
        _bring(request.cards, request.rows, out, endpoint, dry_run, yes, quiet)


def _check(rows: "Sequence[SeriesRow]", tree: Path, quiet: bool) -> None:
    from radiogen.cohorts.series_on_disk import check_tree

    with progress_bar(quiet) as progress:
        found = check_tree(tree, rows, progress)
    whole = found.of("complete")
    for one in found.series:
        if one.state != "complete":
            typer.echo(one)
    for path in found.damaged:
        typer.echo(f"{path}: cannot be read")
    others = f"; {found.others} other series" if found.others else ""
    others += f"; {found.copies} files are copies" if found.copies else ""
    typer.echo(f"{len(whole)} of {len(rows)} series complete, {_gb(one.row for one in whole)} GB{others}")
    if len(whole) < len(rows) or found.damaged:
        raise typer.Exit(3)


def _bring(
    cards: "Sequence[CohortCard]", rows: "Sequence[SeriesRow]", out: Path, endpoint: str | None,
    dry_run: bool, yes: bool, quiet: bool,
) -> None:  # fmt: skip
    from radiogen.cohorts.download import download as bring
    from radiogen.cohorts.download import plan_download
    from radiogen.cohorts.index import patients_of

    plan = plan_download(rows, out)
    _tell(cards, rows, quiet=False)
    if plan.present:
        say(f"  there already: {len(plan.present)} series, {_gb(plan.present)} GB", quiet)
    count = len(patients_of(plan.missing))
    typer.echo(f"{len(plan.missing)} series of {count} patients, {_gb(plan.missing)} GB to bring")
    if dry_run or not plan.missing:
        return
    if not yes:
        if not sys.stdin.isatty():
            raise typer.BadParameter("nobody is here to agree: say --yes")
        typer.confirm("Bring them, under this licence?", abort=True, err=True)
    with progress_bar(quiet) as progress:
        failed = bring(plan, out, endpoint, progress)
    for one in failed:
        say(f"{one.row.patient}: {one.error}")
    typer.echo(f"{out}\t{len(plan.missing) - len(failed)} series brought")
    if failed:
        say(f"{len(failed)} series are missing; the same command tries them again")
        raise typer.Exit(3)


def _tell(cards: "Sequence[CohortCard]", rows: "Sequence[SeriesRow]", quiet: bool) -> None:
    from radiogen.cohorts.index import licences_of
    from radiogen.resources import licence_terms

    for card in cards:
        cite = f"; cite doi:{card.doi}" if card.doi else ""
        say(f"{card.title}{cite}", quiet)
        if card.source.how:
            say(f"  besides: {card.source.how}", quiet)
    for licence, count in licences_of(rows).items():
        say(f"  {count} series under {licence}: {licence_terms(licence)}", quiet)


def _gb(rows: object) -> str:
    return f"{sum(row.bytes for row in rows) / 1e9:.2f}"  # type: ignore[attr-defined]
