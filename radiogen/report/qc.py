"""Write one page that shows every case of a folder, the most suspicious first."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import SimpleITK as sitk

from radiogen import __version__
from radiogen.drawing.panels import COLORS
from radiogen.drawing.pictures import data_address, draw_mosaic
from radiogen.errors import CaseError, RadiogenError
from radiogen.ingestion.case_facts import BINS, CaseFacts, measure_case, read_masks
from radiogen.ingestion.qc import LEVELS, Oddity, Suspicion, judge
from radiogen.io.cases import Case, find_cases
from radiogen.io.nifti import read_grid, read_mask
from radiogen.pool import run_in_processes
from radiogen.provenance import RunRecord, write_text
from radiogen.report.figures import template
from radiogen.report.reading import Row, read_failures
from radiogen.runtime import Progress, no_progress
from radiogen.volume import same_grid

PAGE = "qc.html"
CHART_WIDTH, CHART_HEIGHT = 240, 56
UNREADABLE = 10  # weight of a case that cannot be read
SIGNS = ("○", "●", "▲")  # beside the words, so that no level depends on its colour


@dataclass(frozen=True)
class ExaminedCase:
    """One case as a page shows it; without facts and picture where it could not be read."""

    case: Case
    suspicion: Suspicion
    facts: CaseFacts | None = None
    picture: str = ""
    scanner: Mapping[str, Any] = field(default_factory=dict)

    @property
    def level(self) -> str:
        return f"{SIGNS[self.suspicion.level]} {LEVELS[self.suspicion.level]}"

    @property
    def oddities(self) -> tuple[Oddity, ...]:
        return self.suspicion.oddities

    @property
    def lesions_ml(self) -> float:
        return sum(lesion.volume_ml for lesion in self.facts.lesions) if self.facts else 0.0

    @property
    def acquisition(self) -> str:
        """Scanner and protocol, as far as they are known."""
        scanner = self.scanner
        kernel, kvp = scanner.get("kernel"), scanner.get("kvp")
        contrast, phase = scanner.get("contrast"), scanner.get("phase_percent")
        parts = [
            scanner.get("vendor"),
            scanner.get("model"),
            f"kernel {kernel}" if kernel else "",
            f"{kvp:g} kV" if kvp else "",
            "" if contrast is None else "contrast medium" if contrast else "no contrast medium",
            f"phase {phase:g} %" if phase is not None else "",
            scanner.get("year"),
        ]
        return ", ".join(str(part) for part in parts if part)


def masks_of(case: Case, segmented: Path | None) -> dict[str, sitk.Image]:
    """Read the masks of a case: `lungs`, `lesion`, and `reference` where it is segmented and has an outline.

    Args:
        case: The case.
        segmented: Lesion mask of `radiogen segment`, which then is `lesion`; the outline is `reference`.

    Raises:
        RadiogenError: One is damaged or does not lie on the CT.
    """
    masks = read_masks(case)
    if segmented is None:
        return masks
    lesion = read_mask(segmented)
    # A prediction takes the colour of a lesion, the outline that of a reference.
    outline = masks.pop("lesion", None)
    if not same_grid(lesion, read_grid(case.ct_path)):
        raise CaseError(segmented, "does not lie on the grid of ct.nii.gz", "segment the case again")
    if outline is not None:
        masks["reference"] = outline
    return {**masks, "lesion": lesion}


def examine(case: Case, segmented: Path | None = None) -> ExaminedCase:
    """Measure, judge and draw one case; a case that cannot be read is the most suspicious of all."""
    try:
        about = case.about()
        ct, masks = case.ct(), masks_of(case, segmented)
        facts = measure_case(ct, masks, is_crop=bool(about.get("crop", False)))
        scanner = dict(about.get("scanner") or {})
        decisions = [str(sentence) for sentence in about.get("decisions") or ()]
        thickness = scanner.get("slice_thickness_mm")
        suspicion = judge(facts, decisions, thickness, was_segmented=segmented is not None)
        mosaic = data_address(draw_mosaic(ct, masks, case.case_id))
        return ExaminedCase(case, suspicion, facts, mosaic, scanner)
    except RadiogenError as error:
        return _unreadable(case, f"{error.reason} ({error.hint})")


def _unreadable(case: Case, reason: str) -> ExaminedCase:
    return ExaminedCase(case, Suspicion((Oddity(UNREADABLE, f"cannot be read: {reason}"),)))


def examine_all(
    cases: Sequence[Case],
    segmented: Mapping[str, Path] | None = None,
    jobs: int = 1,
    progress: Progress = no_progress,
) -> list[ExaminedCase]:
    """Examine cases, the most suspicious first.

    Args:
        cases: Any number.
        segmented: Lesion masks of `radiogen segment`, by case id.
        jobs: Cases examined at the same time.
        progress: Called with the number of cases done and of all.
    """
    examined: list[ExaminedCase] = []
    progress("qc", 0, len(cases))
    for one in _examine_each(cases, segmented or {}, jobs):
        examined.append(one)
        progress("qc", len(examined), len(cases))
    # Unreadable cases first, then by suspicion; the id makes the order, and so the page, the same every time.
    examined.sort(key=lambda one: (one.facts is not None, -one.suspicion.score, one.case.case_id))
    return examined


def _examine_each(cases: Sequence[Case], segmented: Mapping[str, Path], jobs: int) -> Iterator[ExaminedCase]:
    tasks = [(case, segmented.get(case.case_id)) for case in cases]
    # For one case the start of a process would take longer than the case.
    if jobs == 1 or len(cases) < 2:
        return map(_examine_pair, tasks)
    # A process that died is tried once more: memory may have been short for a moment.
    return run_in_processes(_examine_pair, tasks, jobs, _died, tries=2)


def _examine_pair(task: tuple[Case, Path | None]) -> ExaminedCase:
    return examine(*task)


def _died(task: tuple[Case, Path | None]) -> ExaminedCase:
    return _unreadable(task[0], "its process died, perhaps of too little memory (take fewer --jobs)")


def qc(cases: Path, out: Path, jobs: int = 1, progress: Progress = no_progress) -> Path:
    """Write the page: an overview, then for each case a mosaic and its oddities.

    Sorted by suspicion. The page needs no network and no other file; the same cases give the same bytes.

    Args:
        cases: Folder of cases, or one case folder.
        out: HTML file to write, or a folder that is there already, which receives `qc.html`.
        jobs: Cases examined at the same time.
        progress: Called with the number of cases done and of all.

    Returns:
        The HTML file.

    Raises:
        CaseError: There are no cases.
        OutputError: The page cannot be written.
    """
    target = out / PAGE if out.is_dir() else out
    record = RunRecord("qc", options={})
    examined = examine_all(find_cases(cases), jobs=jobs, progress=progress)
    write_text(
        target, render(cases.resolve().name, examined, read_failures({"ingest": cases / "failures.csv"}))
    )
    record.finish(target)
    return target


def render(name: str, examined: Sequence[ExaminedCase], failures: Sequence[Row]) -> str:
    """Return the HTML of examined cases, in their order."""
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


def count_levels(examined: Sequence[ExaminedCase]) -> dict[str, int]:
    """Count the cases of each level of suspicion."""
    counts = [sum(one.suspicion.level == level for one in examined) for level in range(len(LEVELS))]
    return dict(zip(LEVELS, counts, strict=True))


def _x(hu: float) -> float:
    return round(CHART_WIDTH * (hu - float(BINS[0])) / float(BINS[-1] - BINS[0]), 1)


def _chart(histogram: Sequence[int]) -> str:
    """Return the outline of a histogram as points of a polygon.

    Heights are logarithms over four decades: a lesion or a metal clip is a thousandth of the voxels.
    """
    most = max(1, *histogram)
    step = CHART_WIDTH / len(histogram)
    points = [(0.0, float(CHART_HEIGHT))]
    for number, count in enumerate(histogram):
        height = max(0.0, 1 + math.log10(count / most) / 4) if count else 0.0
        y = CHART_HEIGHT * (1 - height)
        points += [(number * step, y), ((number + 1) * step, y)]
    points.append((float(CHART_WIDTH), float(CHART_HEIGHT)))
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
