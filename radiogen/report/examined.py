"""Look at the cases of a page: measure, judge and draw each, several at a time."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import SimpleITK as sitk

from radiogen.errors import CaseError, RadiogenError
from radiogen.io.cases import Case
from radiogen.io.nifti import read_grid, read_mask
from radiogen.ingestion.case_facts import CaseFacts, measure_case, read_masks
from radiogen.drawing.mosaic import as_data, draw_mosaic
from radiogen.ingestion.qc import LEVELS, Finding, Suspicion, judge
from radiogen.runtime import Tick, cpu_count, no_tick
from radiogen.volume import same_grid

UNREADABLE = 10  # weight of a case that cannot be read
SIGNS = ("○", "●", "▲")  # beside the words, so that no level hangs on its colour


@dataclass(frozen=True)
class Examined:
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


def masks_of(case: Case, segmented: Path | None) -> dict[str, sitk.Image]:
    """The masks of a case: `lungs`, `lesion`, and `reference` where both a segmentation and an outline exist.

    Args:
        case: The case.
        segmented: Lesion mask that was made of it, which then is `lesion`.

    Raises:
        RadiogenError: One is damaged or does not lie on the CT.
    """
    masks = read_masks(case)
    if segmented is None:
        return masks
    found = read_mask(segmented)
    known = masks.pop("lesion", None)
    if not same_grid(found, read_grid(case.ct_path)):
        raise CaseError(segmented, "does not lie on the grid of ct.nii.gz", "segment the case again")
    return {**masks, **({"reference": known} if known is not None else {}), "lesion": found}


def examine(case: Case, segmented: Path | None = None) -> Examined:
    """Measure, judge and draw one case; a case that cannot be read is the most suspicious of all."""
    try:
        about = case.about()
        ct, masks = case.ct(), masks_of(case, segmented)
        facts = measure_case(ct, masks)
        scanner = dict(about.get("scanner") or {})
        decisions = [str(said) for said in about.get("decisions") or ()]
        thickness = scanner.get("slice_thickness_mm")
        suspicion = judge(facts, decisions, thickness, was_segmented=segmented is not None)
        return Examined(case, suspicion, facts, as_data(draw_mosaic(ct, masks, case.case_id)), scanner)
    except RadiogenError as error:
        finding = Finding(UNREADABLE, f"cannot be read: {error.reason} ({error.way_out})")
        return Examined(case, Suspicion((finding,)))


def examine_all(
    cases: Sequence[Case],
    segmented: Mapping[str, Path] | None = None,
    jobs: int = 1,
    tick: Tick = no_tick,
) -> list[Examined]:
    """Look at cases, the most suspicious first.

    Args:
        cases: Any number.
        segmented: Lesion masks that were made of them, by case id.
        jobs: Cases looked at at the same time.
        tick: Is told the number of cases done and of all.
    """
    examined: list[Examined] = []
    tick("qc", 0, len(cases))
    for one in _each(cases, segmented or {}, jobs):
        examined.append(one)
        tick("qc", len(examined), len(cases))
    examined.sort(key=lambda one: (one.facts is not None, -one.suspicion.score, one.case.case_id))
    return examined


def _each(cases: Sequence[Case], segmented: Mapping[str, Path], jobs: int) -> Iterator[Examined]:
    if jobs == 1 or len(cases) < 2:
        yield from (examine(case, segmented.get(case.case_id)) for case in cases)
        return
    threads = max(1, cpu_count() // jobs)
    with ProcessPoolExecutor(min(jobs, len(cases)), get_context("spawn"), _use_threads, (threads,)) as pool:
        futures = [pool.submit(examine, case, segmented.get(case.case_id)) for case in cases]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _use_threads(count: int) -> None:
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(count)
