"""Turn scans of any source into checked case folders and a manifest."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from radiogen.errors import OutputError, RadiogenError
from radiogen.ingestion.case_folder import CasePlan, has_same_options, is_done, write_case
from radiogen.ingestion.options import IngestOptions
from radiogen.ingestion.plans import Clinical, plan_cases, read_patients
from radiogen.ingestion.sources import find_sources
from radiogen.io.cases import MANIFEST, read_manifest, write_manifest
from radiogen.io.dicom.zip import unpacked
from radiogen.pool import run_in_processes
from radiogen.provenance import write_failures
from radiogen.resources import cohort_card
from radiogen.runtime import AnyPath, Progress, no_progress

FAILURES = "failures.csv"
KEPT = "kept, but it was made with other options; --existing overwrite makes it anew"
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class IngestedCase:
    """A case that was written or kept: its source, and what was decided."""

    case_id: str
    patient_id: str
    where: Path
    is_new: bool
    decisions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Failure:
    """A case that could not be written, the reason, and a hint."""

    case_id: str
    where: Path
    reason: str
    hint: str


@dataclass(frozen=True)
class IngestReport:
    """The cases and failures of a source, and how many files of which kind were left out."""

    cases: tuple[IngestedCase, ...]
    failures: tuple[Failure, ...]
    ignored: dict[str, int]


def ingest(
    source: AnyPath, cases: AnyPath, options: IngestOptions | None = None, progress: Progress = no_progress
) -> IngestReport:
    """Write a case folder for every patient of a source, and the manifest of all.

    Args:
        source: DICOM folder (any number of patients and series) or zip of one, volume file, or folder of
            volume files.
        cases: Where case folders, `manifest.csv` and, if some failed, `failures.csv` go.
        options: See `IngestOptions`.
        progress: Called with headers read and cases done.

    Returns:
        Cases and failures. A source of one case raises its error instead, and nothing is written.

    Raises:
        RadiogenError: The source holds no CT, an option does not fit, or the one case cannot be written.
    """
    source, cases, options = Path(source), Path(cases), options or IngestOptions()
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
    done: list[IngestedCase] = []
    failures: list[Failure] = []
    for result in _ingest_all(plans, cases, options):
        if isinstance(result, Failure):
            failures.append(result)
        else:
            done.append(result)
        progress("ingest", len(done) + len(failures), len(plans))
    # Processes finish in any order; reports and tables keep that of the source.
    order = {plan.case_id: n for n, plan in enumerate(plans)}
    done.sort(key=lambda case: order[case.case_id])
    failures.sort(key=lambda failure: order[failure.case_id])
    done_ids = {case.case_id for case in done}
    list_cases(cases, [plan for plan in plans if plan.case_id in done_ids], clinical)
    reasons = ((failure.case_id, failure.reason, failure.hint) for failure in failures)
    write_failures(cases / FAILURES, "ingest", reasons)
    return IngestReport(tuple(done), tuple(failures), ignored)


def _ingest_all(
    plans: Sequence[CasePlan], cases: Path, options: IngestOptions
) -> Iterator[IngestedCase | Failure]:
    if options.existing == "fail":
        for plan in plans:
            if is_done(plan, cases):
                hint = "take --existing skip or overwrite"
                raise OutputError(cases / plan.case_id, "is there already", hint)
    keep = options.existing == "skip"
    # One case raises its error for the command line; of a cohort each failure becomes a row of a table.
    if len(plans) == 1:
        yield _ingest_case(plans[0], cases, keep)
    elif options.jobs == 1:
        yield from (_attempt(plan, cases, keep) for plan in plans)
    else:
        attempt = partial(_attempt, cases=cases, keep=keep)
        # Twice, since a process that died of memory may succeed when fewer cases run beside it.
        yield from run_in_processes(attempt, plans, options.jobs, _died, tries=2)


def _ingest_case(plan: CasePlan, cases: Path, keep: bool) -> IngestedCase:
    where = plan.source.where
    if keep and plan.source.problem is None and is_done(plan, cases):
        kept = () if has_same_options(plan, cases) else (KEPT,)
        return IngestedCase(plan.case_id, plan.patient_id, where, is_new=False, decisions=kept)
    decisions = write_case(plan, cases)
    return IngestedCase(plan.case_id, plan.patient_id, where, is_new=True, decisions=decisions)


def ingest_one(plan: CasePlan, cases: Path, keep: bool) -> IngestedCase:
    """Write one planned case, or keep the one that is there and has the same options.

    Args:
        plan: The case.
        cases: Folder of the cases; its manifest is not touched.
        keep: Whether an existing one may be kept; else it is written again.

    Raises:
        RadiogenError: The case cannot be written.
    """
    return _ingest_case(plan, cases, keep and is_done(plan, cases) and has_same_options(plan, cases))


def _attempt(plan: CasePlan, cases: Path, keep: bool) -> IngestedCase | Failure:
    try:
        return _ingest_case(plan, cases, keep)
    # A full disk or a missing permission concerns every case that follows.
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
        old = rows.get(plan.case_id, {})  # a split or a column of the user stays
        files = {}
        for name in ("ct", "lesion", "lungs"):
            path = f"{plan.case_id}/{name}.nii.gz"
            files[name] = path if (cases / path).is_file() else ""
        known = {"case_id": plan.case_id, "patient_id": plan.patient_id, "cohort": plan.cohort, **files}
        empty = {"split": "", "egfr": ""}
        rows[plan.case_id] = {**empty, **old, **known, **clinical.get(plan.source.patient, {})}
    write_manifest(cases, [rows[case_id] for case_id in sorted(rows)])
