"""Write one page that shows every case of a folder, the most suspicious first."""

import math
from collections.abc import Sequence
from pathlib import Path

from radiogen import __version__
from radiogen.io.cases import find_cases
from radiogen.drawing.panels import COLORS
from radiogen.provenance import RunRecord, write_text
from radiogen.ingestion.case_facts import BINS
from radiogen.report.examined import Examined, examine_all
from radiogen.report.reading import Row, read_failures
from radiogen.ingestion.qc import LEVELS
from radiogen.report.templates import template
from radiogen.runtime import Tick, no_tick

PAGE = "qc.html"
CHART_WIDTH, CHART_HEIGHT = 240, 56


def qc(cases: Path, out: Path, jobs: int = 1, tick: Tick = no_tick) -> Path:
    """Write the page: an overview, then a mosaic a case with what is odd about it.

    Sorted by suspicion. The page needs no network and no other file; the same cases give the same bytes.

    Args:
        cases: Folder of cases, or one case folder.
        out: HTML file to write, or a folder that is there already, which receives `qc.html`.
        jobs: Cases looked at at the same time.
        tick: Is told the number of cases done and of all.

    Returns:
        The HTML file.

    Raises:
        CaseError: There are no cases.
        OutputError: The page cannot be written.
    """
    target = out / PAGE if out.is_dir() else out
    record = RunRecord("qc", options={})
    examined = examine_all(find_cases(cases), jobs=jobs, tick=tick)
    write_text(
        target, render(cases.resolve().name, examined, read_failures({"ingest": cases / "failures.csv"}))
    )
    record.finish(target)
    return target


def render(name: str, examined: Sequence[Examined], failures: Sequence[Row]) -> str:
    """The HTML of cases that were examined, in their order."""
    return template("qc.html.j2").render(
        name=name,
        version=__version__,
        examined=examined,
        failures=failures,
        counts=count_levels(examined),
        colors=COLORS,
        chart=_chart,
        marks=[(_x(hu), hu) for hu in (-1000, -500, 0, 500, 1000)],
        width=CHART_WIDTH,
        height=CHART_HEIGHT,
    )


def count_levels(examined: Sequence[Examined]) -> dict[str, int]:
    """How many cases there are of each level of suspicion."""
    counts = [sum(one.suspicion.level == level for one in examined) for level in range(len(LEVELS))]
    return dict(zip(LEVELS, counts, strict=True))


def _x(hu: float) -> float:
    return round(CHART_WIDTH * (hu - float(BINS[0])) / float(BINS[-1] - BINS[0]), 1)


def _chart(histogram: Sequence[int]) -> str:
    """The outline of a histogram as points of a polygon; heights are logarithms, four decades of them."""
    most = max(1, *histogram)
    step = CHART_WIDTH / len(histogram)
    points = [(0.0, float(CHART_HEIGHT))]
    for number, count in enumerate(histogram):
        height = max(0.0, 1 + math.log10(count / most) / 4) if count else 0.0
        y = CHART_HEIGHT * (1 - height)
        points += [(number * step, y), ((number + 1) * step, y)]
    points.append((float(CHART_WIDTH), float(CHART_HEIGHT)))
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
