"""What the commands print: results on stdout; messages, failures and progress bars on stderr."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from radiogen.runtime import Progress

PROGRESS_LABELS = {
    "headers": "reading headers",
    "download": "downloading MB",
    "ingest": "ingesting",
    "prepare": "preparing cases",
    "cohort": "running cases",
    "qc": "checking cases",
    "warm up": "warming up",
    "score": "scoring weights",
    "train": "training",
    "segment": "segmenting",
    "windows": "segmenting windows",
    "features": "extracting features",
    "evaluate": "comparing masks",
    "runs": "training networks",
    "measure": "timing networks",
}


def print_message(text: str, quiet: bool = False) -> None:
    """Print one line on stderr, unless the user asked for quiet."""
    if not quiet:
        typer.echo(text, err=True)


def table_lines(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Yield the lines of a table under its titles, each column as wide as its widest cell.

    >>> list(table_lines(["layer", "kept"], [["conv", "12"]]))
    ['layer  kept', 'conv   12']
    """
    lines = [titles, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(titles))]
    for line in lines:
        yield "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()


@contextmanager
def progress_bar(quiet: bool, first_message: str = "") -> Iterator["Progress"]:
    """Show a bar with the time left for each job that reports progress; on a terminal only.

    The first message is printed when work starts, not before: a command that refuses its input prints its one
    error line and nothing else.
    """
    pending = [first_message] if first_message else []

    def print_first_message(_job: str, _done: int, _total: int) -> None:
        while pending:
            print_message(pending.pop(), quiet)

    if quiet or not sys.stderr.isatty():
        yield print_first_message
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    parts = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*parts, console=Console(stderr=True), transient=True) as bars:
        tasks = {}

        def progress(job: str, done: int, total: int) -> None:
            print_first_message(job, done, total)
            if job not in tasks:
                tasks[job] = bars.add_task(PROGRESS_LABELS.get(job, job), total=total)
            bars.update(tasks[job], completed=done, total=total)

        yield progress


def exit_if_failed(failures: Sequence[tuple[object, str, str]], listed_in: object) -> None:
    """Print what failed, why, and a hint, and exit with code 3; return if nothing failed.

    Args:
        failures: Case (or other thing), reason and hint of each.
        listed_in: Where the same is written.
    """
    for name, reason, hint in failures:
        print_message(f"{name}: {reason} ({hint})")
    if failures:
        print_message(f"{len(failures)} failed; reasons and hints are in {listed_in}")
        raise typer.Exit(3)
