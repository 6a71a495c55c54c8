"""Write one page that shows every case of a folder, the most suspicious first."""

import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from radiogen import __version__
from radiogen.errors import RadiogenError
from radiogen.io.cases import Case, find_cases
from radiogen.io.panels import COLORS
from radiogen.provenance import RunRecord, write_text
from radiogen.report.case_facts import BINS, CaseFacts, measure_case, read_masks
from radiogen.report.mosaic import as_data, draw_mosaic
from radiogen.report.page import template
from radiogen.report.reading import Row, read_failures
from radiogen.report.suspicion import LEVELS, Finding, Suspicion, judge
from radiogen.runtime import Tick, cpu_count, no_tick

PAGE = "qc.html"
UNREADABLE = 10  # weight of a case that cannot be read
SIGNS = ("○", "●", "▲")  # beside the words, so that no level hangs on its colour
CHART_WIDTH, CHART_HEIGHT = 240, 56


@dataclass(frozen=True)
class Examined:
    """One case as the page shows it; without facts and picture where it could not be read."""

    case: Case
    suspicion: Suspicion
    facts: CaseFacts | None = None
    picture: str = ""
    scanner: Mapping[str, Any] = field(default_factory=dict)

    @property
    def level(self) -> str:
        return f"{SIGNS[self.suspicion.level]} {LEVELS[self.suspicion.level]}"

    @property
    def findings(self) -> tuple[Finding, ...]:
        return self.suspicion.findings

    @property
    def lesions_ml(self) -> float:
        return sum(lesion.volume_ml for lesion in self.facts.lesions) if self.facts else 0.0

    @property
    def made(self) -> str:
        """How the scan was made, as far as it is known."""
        known = self.scanner
        kernel, kvp, contrast, phase = (
            known.get(key) for key in ("kernel", "kvp", "contrast", "phase_percent")
        )
        said = [
            known.get("vendor"),
            known.get("model"),
            f"kernel {kernel}" if kernel else "",
            f"{kvp:g} kV" if kvp else "",
            "" if contrast is None else "contrast medium" if contrast else "no contrast medium",
            f"phase {phase:g} %" if phase is not None else "",
            known.get("year"),
        ]
        return ", ".join(str(each) for each in said if each)


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
    found = find_cases(cases)
    examined = []
    tick("qc", 0, len(found))
    for one in _examine_all(found, jobs):
        examined.append(one)
        tick("qc", len(examined), len(found))
    examined.sort(key=lambda one: (one.facts is not None, -one.suspicion.score, one.case.case_id))
    write_text(
        target, render(cases.resolve().name, examined, read_failures({"ingest": cases / "failures.csv"}))
    )
    record.finish(target)
    return target


def examine(case: Case) -> Examined:
    """Measure, judge and draw one case; a case that cannot be read is the most suspicious of all."""
    try:
        about = case.about()
        ct, masks = case.ct(), read_masks(case)
        facts = measure_case(ct, masks)
        scanner = dict(about.get("scanner") or {})
        decisions = [str(said) for said in about.get("decisions") or ()]
        suspicion = judge(facts, decisions, scanner.get("slice_thickness_mm"))
        return Examined(case, suspicion, facts, as_data(draw_mosaic(ct, masks)), scanner)
    except RadiogenError as error:
        finding = Finding(UNREADABLE, f"cannot be read: {error.reason} ({error.way_out})")
        return Examined(case, Suspicion((finding,)))


def render(name: str, examined: Sequence[Examined], failures: Sequence[Row]) -> str:
    """The HTML of cases that were examined, in their order."""
    counts = [sum(one.suspicion.level == level for one in examined) for level in range(len(LEVELS))]
    return template("qc.html.j2").render(
        name=name,
        version=__version__,
        examined=examined,
        failures=failures,
        counts=dict(zip(LEVELS, counts, strict=True)),
        colors=COLORS,
        chart=_chart,
        marks=[(_x(hu), hu) for hu in (-1000, -500, 0, 500, 1000)],
        width=CHART_WIDTH,
        height=CHART_HEIGHT,
    )


def _examine_all(cases: Sequence[Case], jobs: int) -> Iterator[Examined]:
    if jobs == 1 or len(cases) < 2:
        yield from map(examine, cases)
        return
    threads = max(1, cpu_count() // jobs)
    with ProcessPoolExecutor(min(jobs, len(cases)), get_context("spawn"), _use_threads, (threads,)) as pool:
        futures = [pool.submit(examine, case) for case in cases]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _use_threads(count: int) -> None:
    import SimpleITK as sitk

    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(count)


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
