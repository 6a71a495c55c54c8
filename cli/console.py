"""What the commands say: results on stdout, talk and progress bars on stderr."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from radiogen.runtime import Progress

VERBS = {
    "headers": "reading headers",
    "download": "bringing MB",
    "ingest": "ingesting",
    "prepare": "preparing cases",
    "cohort": "running cases",
    "qc": "looking at cases",
    "warm up": "warming up",
    "score": "scoring weights",
    "train": "training",
    "segment": "segmenting",
    "windows": "looking through windows",
    "features": "extracting features",
    "evaluate": "comparing masks",
    "runs": "training networks",
    "measure": "timing networks",
}


def say(text: str, quiet: bool = False) -> None:
    """A line of talk, on stderr."""
    if not quiet:
        typer.echo(text, err=True)


def columns(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """The lines of a table under its titles, each column as wide as its widest cell.

    >>> list(columns(["layer", "kept"], [["conv", "12"]]))
    ['layer  kept', 'conv   12']
    """
    lines = [titles, *rows]
    widths = [max(len(line[place]) for line in lines) for place in range(len(titles))]
    for line in lines:
        yield "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()


@contextmanager
def progress_bar(quiet: bool, opening: str = "") -> Iterator["Progress"]:
    """A bar with the time left for each job that reports progress; on a terminal only.

    The opening is said when work starts, so that a command that refuses its input says one line.
    """
    waiting = [opening] if opening else []

    def open_once(_what: str, _done: int, _total: int) -> None:
        while waiting:
            say(waiting.pop(), quiet)

    if quiet or not sys.stderr.isatty():
        yield open_once
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        tasks = {}

        def progress(what: str, done: int, total: int) -> None:
            open_once(what, done, total)
            if what not in tasks:
                tasks[what] = bars.add_task(VERBS.get(what, what), total=total)
            bars.update(tasks[what], completed=done, total=total)

        yield progress


def finish(failures: int, out: object) -> None:
    """Exit with code 3 if some cases failed."""
    if failures:
        say(f"{failures} failed; reasons and ways out are in {out}")
        raise typer.Exit(3)
