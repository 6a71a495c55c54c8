"""Turn scans of any source into checked case folders and a manifest."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from radiogen.errors import OutputError, RadiogenError
from radiogen.ingestion.case_folder import CasePlan, is_done, make_case, was_made_alike
from radiogen.ingestion.options import IngestOptions
from radiogen.ingestion.plans import Clinical, plan_cases, read_patients
from radiogen.ingestion.sources import find_sources
from radiogen.io.cases import MANIFEST, read_manifest, write_manifest
from radiogen.io.dicom.zip import unpacked
from radiogen.pool import run_in_processes
from radiogen.provenance import write_failures
from radiogen.resources import cohort_card
from radiogen.runtime import Progress, no_progress

FAILURES = "failures.csv"
KEPT = "kept, but it was made with other options; --existing overwrite makes it anew"
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class IngestedCase:
    """A case that is there: what it was made from, and what was decided."""

    case_id: str
    patient_id: str
    where: Path
    is_new: bool
    decisions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Failure:
    """A case that could not be made, why, and the way out."""

    case_id: str
    where: Path
    reason: str
    hint: str


@dataclass(frozen=True)
class IngestReport:
    """What came of a source: cases, failures, and how many files of which kind were left out."""

    cases: tuple[IngestedCase, ...]
    failures: tuple[Failure, ...]
    ignored: dict[str, int]


def ingest(
    source: Path, cases: Path, options: IngestOptions | None = None, progress: Progress = no_progress
) -> IngestReport:
    """Write a case folder for every patient of a source, and the manifest of all.

    Args:
        source: DICOM folder (any number of patients and series) or zip of one, volume file, or folder of
            volume files.
        cases: Where case folders, `manifest.csv` and, if some failed, `failures.csv` go.
        options: See `IngestOptions`.
        progress: Is told of headers read and of cases done.

    Returns:
        Cases and failures. A source of one case raises its error instead, and nothing is written.

    Raises:
        RadiogenError: The source holds no CT, an option does not fit, or the one case cannot be made.
    """
    options = options or IngestOptions()
    if cases.is_file():
        raise OutputError(cases, "is a file", "choose a folder")
    card = cohort_card(options.cohort) if options.cohort else None
    clinical = read_patients(options, card)
    kinds = card.outline.kinds if card else ()
    with unpacked(source, cases) as folder:
        found = find_sources(folder, cases, options, kinds, progress)
        plans = plan_cases(found.sources, options, card, clinical)
        if folder != source:
            plans = [replace(plan, source=replace(plan.source, where=source)) for plan in plans]
        return _ingest(plans, cases, options, clinical, found.ignored, progress)


def _ingest(
    plans: Sequence[CasePlan],
    cases: Path,
    options: IngestOptions,
    clinical: Clinical,
    ignored: dict[str, int],
    progress: Progress,
) -> IngestReport:
    made: list[IngestedCase] = []
    failures: list[Failure] = []
    for result in _make_all(plans, cases, options):
        if isinstance(result, Failure):
            failures.append(result)
        else:
            made.append(result)
        progress("ingest", len(made) + len(failures), len(plans))
    order = {plan.case_id: n for n, plan in enumerate(plans)}
    made.sort(key=lambda case: order[case.case_id])
    failures.sort(key=lambda failure: order[failure.case_id])
    list_cases(cases, [plan for plan in plans if plan.case_id in {case.case_id for case in made}], clinical)
    reasons = ((failure.case_id, failure.reason, failure.hint) for failure in failures)
    write_failures(cases / FAILURES, "ingest", reasons)
    return IngestReport(tuple(made), tuple(failures), ignored)


def _make_all(
    plans: Sequence[CasePlan], cases: Path, options: IngestOptions
) -> Iterator[IngestedCase | Failure]:
    if options.existing == "fail":
        for plan in plans:
            if is_done(plan, cases):
                raise OutputError(
                    cases / plan.case_id, "is there already", "take --existing skip or overwrite"
                )
    keep = options.existing == "skip"
    if len(plans) == 1:
        yield _make(plans[0], cases, keep)
    elif options.jobs == 1:
        yield from (_attempt(plan, cases, keep) for plan in plans)
    else:
        attempt = partial(_attempt, cases=cases, keep=keep)
        yield from run_in_processes(attempt, plans, options.jobs, _died, tries=2)


def _make(plan: CasePlan, cases: Path, keep: bool) -> IngestedCase:
    where = plan.source.where
    if keep and plan.source.problem is None and is_done(plan, cases):
        said = () if was_made_alike(plan, cases) else (KEPT,)
        return IngestedCase(plan.case_id, plan.patient_id, where, is_new=False, decisions=said)
    decisions = make_case(plan, cases)
    return IngestedCase(plan.case_id, plan.patient_id, where, is_new=True, decisions=decisions)


def ingest_one(plan: CasePlan, cases: Path, keep: bool) -> IngestedCase:
    """Make one planned case, or keep the one that is there and was made with the same options.

    Args:
        plan: The case.
        cases: Folder of the cases; its manifest is not touched.
        keep: Whether one that is there may be kept; else it is made anew.

    Raises:
        RadiogenError: The case cannot be made.
    """
    return _make(plan, cases, keep and is_done(plan, cases) and was_made_alike(plan, cases))


def _attempt(plan: CasePlan, cases: Path, keep: bool) -> IngestedCase | Failure:
    try:
        return _make(plan, cases, keep)
    except OutputError:
        raise
    except RadiogenError as error:
        return Failure(plan.case_id, plan.source.where, error.reason, error.hint)
    except Exception as error:  # one bad case never stops a cohort
        log.exception("case %s", plan.case_id)
        reason = f"unexpected {type(error).__name__}: {error}"
        return Failure(plan.case_id, plan.source.where, reason, "report it with the log")


def _died(plan: CasePlan) -> Failure:
    reason = "the process that read it died, of memory or of a decoder"
    return Failure(plan.case_id, plan.source.where, reason, "take fewer jobs, or copy the files again")


def list_cases(cases: Path, plans: Sequence[CasePlan], clinical: Clinical) -> None:
    """Write the manifest: the planned cases, and those that it had and that are still there."""
    if not plans:
        return
    before = read_manifest(cases) if (cases / MANIFEST).is_file() else []
    rows = {row["case_id"]: row for row in before if (cases / row["case_id"]).is_dir()}
    for plan in plans:
        old = rows.get(plan.case_id, {})
        files = {
            name: f"{plan.case_id}/{name}.nii.gz"
            if (cases / plan.case_id / f"{name}.nii.gz").is_file()
            else ""
            for name in ("ct", "lesion", "lungs")
        }
        known = {"case_id": plan.case_id, "patient_id": plan.patient_id, "cohort": plan.cohort, **files}
        empty = {"split": "", "egfr": ""}
        rows[plan.case_id] = {**empty, **old, **known, **clinical.get(plan.source.patient, {})}
    write_manifest(cases, [rows[case_id] for case_id in sorted(rows)])
