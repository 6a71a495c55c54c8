"""List what a source holds before voxels are read: every CT series, which would be taken, and why."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from radiogen.errors import RadiogenError
from radiogen.ingestion.case_folder import CasePlan
from radiogen.ingestion.options import IngestOptions
from radiogen.ingestion.plans import plan_cases
from radiogen.ingestion.sources import find_sources
from radiogen.io.dicom.series import Series, check_series
from radiogen.io.dicom.zip import unpacked
from radiogen.resources import cohort_card
from radiogen.runtime import Progress, no_progress

ONLY = "the only CT of the patient"
VOLUME_FILE = "each volume file is a case"


@dataclass(frozen=True)
class ListedSeries:
    """One CT series of a source, or a volume file. Names no patient.

    Attributes:
        case_id: Id of its case; series of one patient share it.
        folder: Where its files lie.
        series: SeriesInstanceUID, with `#2` for the second volume of it; for a volume file its name.
        taken: Whether ingest would read this one.
        why: Why it is taken or not, or why it would be refused.
        outline: Kind of the outline that goes with it, empty without one.
    """

    case_id: str
    folder: Path
    series: str
    taken: bool
    why: str
    slices: int | None = None
    size: tuple[int, int] | None = None  # columns, rows
    spacing_mm: tuple[float, float, float] | None = None
    thickness_mm: float | None = None
    kernel: str = ""
    contrast: bool | None = None
    image_type: str = ""
    outline: str = ""


@dataclass(frozen=True)
class Listing:
    """All series, those of one case together, and how many files of which kind are something else."""

    candidates: tuple[ListedSeries, ...]
    ignored: dict[str, int]


def list_sources(
    source: Path, options: IngestOptions, cases: Path | None = None, progress: Progress = no_progress
) -> Listing:
    """Return the series of a source that `ingest` would take or leave; reads headers and writes no case.

    Args:
        source: As for `ingest`.
        options: As for `ingest`.
        cases: Folder of cases, where the index of a large tree is kept.
        progress: Called with the headers read.

    Raises:
        RadiogenError: The source holds no CT, or an option does not fit.
    """
    card = cohort_card(options.cohort) if options.cohort else None
    kinds = card.outline.kinds if card else ()
    with unpacked(source, cases or Path(tempfile.gettempdir())) as folder:
        found = find_sources(folder, cases, options, kinds, progress)
        # No clinical table: a list shows the scans whether or not a table fits them.
        plans = plan_cases(found.sources, options, card, {})
        candidates = [one for plan in plans for one in _of_case(plan, options)]
        # Messages name the archive: the unpacked folder is gone when they are read.
        if folder != source:
            candidates = [replace(one, folder=source) for one in candidates]
        return Listing(tuple(candidates), found.ignored)


def _of_case(plan: CasePlan, options: IngestOptions) -> Iterator[ListedSeries]:
    source = plan.source
    outline = source.outline.kind if source.outline else ""
    problem = str(source.problem) if source.problem else ""
    if isinstance(source.ct, Series):
        why = "; ".join(source.decisions) or ONLY
        try:
            check_series(source.ct, options.rules)
        except RadiogenError as error:
            problem = str(error)
        yield _listed(plan.case_id, source.ct, not problem, problem or why, outline)
    elif source.ct is not None or not source.passed_over:
        name = source.ct.name if source.ct is not None else source.where.name
        why = problem or "; ".join(source.decisions) or VOLUME_FILE
        yield ListedSeries(plan.case_id, source.where.parent, name, not problem, why, outline=outline)
    for series, why in source.passed_over:
        yield _listed(plan.case_id, series, False, problem if source.ct is None else why, "")


def _listed(case_id: str, series: Series, taken: bool, why: str, outline: str) -> ListedSeries:
    first, stack = series.slices[0], series.stack
    x, y = first.pixel_spacing_mm
    return ListedSeries(
        case_id=case_id,
        folder=series.folder,
        series=series.name,
        taken=taken,
        why=why,
        slices=len(series.slices),
        size=first.size,
        spacing_mm=(round(x, 4), round(y, 4), round(stack.median_spacing_mm, 4)),
        thickness_mm=first.thickness_mm,
        kernel=first.kernel,
        contrast=first.has_contrast,
        image_type="/".join(first.image_type),
        outline=outline,
    )
