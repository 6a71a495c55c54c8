"""The command cohort download: get the scans of a public cohort, or check what is there."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .console import print_message, progress_bar
from .options import Quiet

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from radiogen.cohorts.index import SeriesRow
    from radiogen.resources import CohortCard


def download(
    name: Annotated[str, typer.Argument(help="Cohort, or list of series: .tcia, .s5cmd or .csv")],
    out: Annotated[Path | None, typer.Option("--output", "-o", help="Folder for the DICOM files")] = None,
    check: Annotated[
        Path | None, typer.Option(help="Only check which series lie in this folder, however they got there")
    ] = None,
    patients: Annotated[str | None, typer.Option(help="Only these patients, comma-separated")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Largest number of patients")] = None,
    only_with_outline: Annotated[
        bool, typer.Option("--only-with-outline", help="Only studies with an outline")
    ] = False,
    index: Annotated[
        Path | None, typer.Option(help="CSV of rows of the IDC index; default: the index of idc-index")
    ] = None,
    endpoint: Annotated[str | None, typer.Option(help="Address of another S3 server")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be downloaded")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Accept the licence without being asked")] = False,
    quiet: Quiet = False,
) -> None:
    """Download a public cohort from the Imaging Data Commons; files that are there are kept.

    Size and licence are shown first, and the licence must be accepted.
    """
    if (out is None) == (check is None):
        raise typer.BadParameter("give a folder with -o, or one to check with --check")
    from radiogen.cohorts.index import SeriesSelection
    from radiogen.cohorts.requests import find_request

    selection = SeriesSelection(tuple(filter(None, (patients or "").split(","))), limit, only_with_outline)
    request = find_request(name, selection, index)
    if request.unknown:
        print_message(
            f"{request.unknown} series of the list are not in the index, or play no part in the cohort", quiet
        )
    if check is not None:
        _check(request.rows, check, quiet)
    elif out is not None:
        _download(request.cards, request.rows, out, endpoint, dry_run, yes, quiet)


def _check(rows: "Sequence[SeriesRow]", tree: Path, quiet: bool) -> None:
    from radiogen.cohorts.series_on_disk import check_tree

    with progress_bar(quiet) as progress:
        found = check_tree(tree, rows, progress)
    complete = found.of("complete")
    for one in found.series:
        if one.state != "complete":
            typer.echo(one)
    for path in found.damaged:
        typer.echo(f"{path}: cannot be read")
    others = f"; {found.others} other series" if found.others else ""
    others += f"; {found.copies} files are copies" if found.copies else ""
    typer.echo(
        f"{len(complete)} of {len(rows)} series complete, {_gb(one.row for one in complete)} GB{others}"
    )
    if len(complete) < len(rows) or found.damaged:
        raise typer.Exit(3)


def _download(
    cards: "Sequence[CohortCard]", rows: "Sequence[SeriesRow]", out: Path, endpoint: str | None,
    dry_run: bool, yes: bool, quiet: bool,
) -> None:  # fmt: skip
    from radiogen.cohorts.download import download as download_series
    from radiogen.cohorts.download import plan_download
    from radiogen.cohorts.index import patients_of

    plan = plan_download(rows, out)
    _print_terms(cards, rows, quiet=False)
    if plan.present:
        print_message(f"  there already: {len(plan.present)} series, {_gb(plan.present)} GB", quiet)
    count = len(patients_of(plan.missing))
    typer.echo(f"{len(plan.missing)} series of {count} patients, {_gb(plan.missing)} GB to download")
    if dry_run or not plan.missing:
        return
    if not yes:
        if not sys.stdin.isatty():
            raise typer.BadParameter("nobody is here to accept the licence: add --yes")
        typer.confirm("Download them, under this licence?", abort=True, err=True)
    with progress_bar(quiet) as progress:
        failed = download_series(plan, out, endpoint, progress)
    for one in failed:
        print_message(f"{one.row.patient}: {one.error}")
    typer.echo(f"{out}\t{len(plan.missing) - len(failed)} series downloaded")
    if failed:
        print_message(f"{len(failed)} series are missing; the same command tries them again")
        raise typer.Exit(3)


def _print_terms(cards: "Sequence[CohortCard]", rows: "Sequence[SeriesRow]", quiet: bool) -> None:
    from radiogen.cohorts.index import licences_of
    from radiogen.resources import licence_terms

    for card in cards:
        cite = f"; cite doi:{card.doi}" if card.doi else ""
        print_message(f"{card.title}{cite}", quiet)
        if card.source.how:
            print_message(f"  besides: {card.source.how}", quiet)
    for licence, count in licences_of(rows).items():
        print_message(f"  {count} series under {licence}: {licence_terms(licence)}", quiet)


def _gb(rows: "Iterable[SeriesRow]") -> str:
    return f"{sum(row.bytes for row in rows) / 1e9:.2f}"
