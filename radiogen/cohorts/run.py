"""Take a whole cohort through all steps, unattended: plan a task a case, run them, write the tables."""

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from radiogen import __version__
from radiogen.cohorts.ledger import LOCK, Ledger, LedgerEntry
from radiogen.cohorts.one_case import CASES, CaseTask, is_settled, read_networks, run_case
from radiogen.cohorts.settings import CohortSettings
from radiogen.cohorts.tables import Failure, SettledRun, write_run_tables
from radiogen.cohorts.workers import CaseFunction, WorkerOptions, entries_of_workers
from radiogen.config import check_settings
from radiogen.errors import ConfigError, OutputError
from radiogen.features.settings import FeatureOptions
from radiogen.ingestion.case_folder import CasePlan
from radiogen.ingestion.plans import Clinical, plan_cases, read_patients
from radiogen.ingestion.sources import find_sources
from radiogen.io.cases import cases_of_split, is_case_source
from radiogen.io.dicom.zip import unpacked
from radiogen.locks import held, waited_for
from radiogen.model.folder import check_prior
from radiogen.provenance import remove_if_refused, short_hash
from radiogen.resources import cohort_card
from radiogen.runtime import Progress, no_progress
from radiogen.segmentation.segment import chosen_prior


@dataclass(frozen=True)
class CohortReport:
    """What came of a run.

    Attributes:
        run: Its folder.
        done: Cases done now.
        kept: Cases that were settled before.
        failures: Rows of failures.csv.
        missing: Cases that other parts of a job array still work on.
    """

    run: Path
    done: int
    kept: int
    failures: tuple[Failure, ...]
    missing: int = 0


@dataclass(frozen=True)
class CohortPlan:
    """The tasks of a run by case id, sorted, and the clinical rows that go into the manifest."""

    tasks: dict[str, CaseTask]
    clinical: Clinical = field(default_factory=dict)


def plan_tasks(
    settings: CohortSettings, folder: Path, run: Path, token: str, progress: Progress
) -> CohortPlan:
    """Look through the source, and plan what is to be done with each case.

    Args:
        settings: Of the run.
        folder: The source, or where it was unpacked.
        run: Folder of the run.
        token: Stands for this start of the run.
        progress: Told of headers read.

    Raises:
        RadiogenError: The source holds no case or scan, a manifest is damaged, or the model does not do what
            is asked of it.
    """
    key = _settings_key(settings)
    if is_case_source(settings.source):
        if "ingest" in settings.steps:
            hint = "leave it out: --steps segment,extract-features,..."
            raise ConfigError("--steps ingest", f"is asked of cases: {settings.source}", hint)
        cases = sorted(cases_of_split(settings.source, settings.split), key=lambda case: case.case_id)
        tasks = {
            case.case_id: CaseTask(run, case.case_id, settings, short_hash(f"{key} {case}"), token, case=case)
            for case in cases
        }
        return CohortPlan(tasks)
    if "ingest" not in settings.steps:
        raise ConfigError(settings.source, "holds no cases", "add the step ingest, or ingest it first")
    if settings.split:
        raise ConfigError(f"--split {settings.split}", "is given for scans", "ingest and split them first")
    plans, clinical = _plans(settings, folder, run, progress)
    archive = None if folder == settings.source else settings.source
    return CohortPlan(
        {
            plan.case_id: CaseTask(
                run,
                plan.case_id,
                settings,
                short_hash(f"{key} {plan.source.id} {_problem(plan)} {plan.options.get('cohort_rule', '')}"),
                token,
                plan=plan,
                archive=archive,
            )
            for plan in sorted(plans, key=lambda plan: plan.case_id)
        },
        clinical,
    )


def _plans(
    settings: CohortSettings, folder: Path, run: Path, progress: Progress
) -> tuple[list[CasePlan], Clinical]:
    options = settings.ingest
    card = cohort_card(options.cohort) if options.cohort else None
    clinical = read_patients(options, card)
    kinds = card.outline.kinds if card else ()
    found = find_sources(folder, run / CASES, options, kinds, progress)
    plans = plan_cases(found.sources, options, card, clinical)
    if folder != settings.source:
        plans = [replace(plan, source=replace(plan.source, where=settings.source)) for plan in plans]
    return plans, clinical


def _problem(plan: CasePlan) -> str:
    return plan.source.problem.wrong if plan.source.problem else ""


def _settings_key(settings: CohortSettings) -> str:
    """Return the hash of all that decides the results of every case; the model is checked on the way."""
    deciding = {"settings": settings.described(), "radiogen": __version__, "model": ""}
    if settings.model:
        config, deciding["model"] = read_networks(settings.model)
        if "segment" in settings.steps:
            check_prior(config, chosen_prior(settings.segment, config), settings.model[0])
    return short_hash(json.dumps(deciding, sort_keys=True))


def run_cohort(
    settings: CohortSettings,
    run: Path,
    workers: WorkerOptions | None = None,
    progress: Progress = no_progress,
    report: Callable[[str], None] = lambda _message: None,
    retry: bool = False,
    work: CaseFunction = run_case,
) -> CohortReport:
    """Take every case of a source through the steps, each as one task; then write the tables of all cases.

    Kill it at any moment: the same call does what is left and ends with the same bytes. A case that failed
    is tried again when its files or the settings have changed, or with `retry`.

    Args:
        settings: Source, steps, models.
        run: Folder of the run.
        workers: Which workers take the cases.
        progress: Called with what is done and how much there is.
        report: Told of what was decided about the run.
        retry: Try what failed again.
        work: What a worker does with a case.

    Raises:
        OutputError: Somebody else holds the folder, it holds something else, or nothing can be written.
        RadiogenError: The source or the models cannot be used.
    """
    workers = workers or WorkerOptions()
    settings = _with_absolute_paths(settings)
    if run.is_file():
        raise OutputError(run, "is a file", "choose a folder")
    run = run.absolute()
    ledger = Ledger(run)
    with ExitStack() as stack:
        with remove_if_refused(run):  # only of input that is refused: what was computed stays
            stack.enter_context(_hold_folder(ledger, workers.part))
            folder = stack.enter_context(_unpacked(settings.source, run, workers.part))
            plan = plan_tasks(settings, folder, run, f"{os.getpid()}-{time.time_ns()}", progress)
            keys = {name: task.key for name, task in plan.tasks.items()}
            ledger.store_plan(json.loads(settings.model_dump_json()), keys)
        entries = {name: ledger.read(name) for name in plan.tasks}
        todo = [task for name, task in plan.tasks.items() if _is_to_do(task, entries[name], retry)]
        todo = _part_of(todo, list(plan.tasks), workers.part)
        kept = len(plan.tasks) - len(todo)
        done = 0
        new_entries = stack.enter_context(closing(entries_of_workers(todo, workers, report, work)))
        for number, entry in enumerate(new_entries, start=1):
            if entry.outcome == "stopped":
                raise OutputError(run, entry.reason, entry.hint)
            if entry.worker == 0:
                ledger.write(entry)  # of a worker that cannot any more
            done += entry.outcome == "done"
            progress("cohort", number, len(todo))
        return _close(ledger, plan, settings, run, (done, kept), progress, workers.jobs)


def _close(
    ledger: Ledger,
    plan: CohortPlan,
    settings: CohortSettings,
    run: Path,
    counts: tuple[int, int],
    progress: Progress,
    jobs: int,
) -> CohortReport:
    """Write the tables, if every case of every part is settled; parts that end together take turns."""
    with waited_for(ledger.home / "gathering"):
        read = {name: ledger.read(name) for name in plan.tasks}
        entries = {
            name: entry for name, entry in read.items() if entry and is_settled(plan.tasks[name], entry)
        }
        missing = len(plan.tasks) - len(entries)
        failures: Sequence[Failure] = ()
        if not missing:
            settled = SettledRun(run, settings, plan.tasks, entries, plan.clinical, jobs)
            failures = write_run_tables(settled, progress)
        return CohortReport(run, *counts, tuple(failures), missing)


def _is_to_do(task: CaseTask, entry: LedgerEntry | None, retry: bool) -> bool:
    return not is_settled(task, entry) or (retry and entry is not None and entry.outcome == "failed")


def _part_of(todo: Sequence[CaseTask], names: Sequence[str], part: tuple[int, int] | None) -> list[CaseTask]:
    """Return every n-th case by the order of ids, whatever is done already."""
    if part is None:
        return list(todo)
    number, count = part
    mine = set(sorted(names)[number - 1 :: count])
    return [task for task in todo if task.case_id in mine]


@contextmanager
def _hold_folder(ledger: Ledger, part: tuple[int, int] | None) -> Iterator[None]:
    """Hold the folder of the run: alone, or with the other parts of a job array."""
    if ledger.home.parent.is_dir() and not ledger.home.is_dir() and any(ledger.home.parent.iterdir()):
        raise OutputError(ledger.home.parent, "holds something else", "choose another folder")
    with ExitStack() as stack:
        enter: Callable[[AbstractContextManager[None]], None] = stack.enter_context
        enter(held(ledger.home / LOCK, shared=part is not None))
        if part is not None:
            enter(held(ledger.home / f"{LOCK}.{part[0]}-of-{part[1]}"))
        yield


def _unpacked(source: Path, run: Path, part: tuple[int, int] | None) -> AbstractContextManager[Path]:
    """Return the folder to look into; members of an archive lie there as long as the run lasts.

    The parts of a job array would each unpack it.
    """
    if part is not None and source.is_file():
        raise ConfigError(
            f"--part {part[0]}/{part[1]}", f"is given for one file: {source}", "unpack it first"
        )
    return unpacked(source, run / CASES)


def _with_absolute_paths(settings: CohortSettings) -> CohortSettings:
    """Make paths absolute, so that workers and a later retry find them; take the EGFR model's features."""
    paths = {name: getattr(settings, name) for name in ("source", "egfr", "clinical", "clinical_mapping")}
    update: dict[str, object] = {name: path.absolute() for name, path in paths.items() if path}
    update["model"] = tuple(folder.absolute() for folder in settings.model)
    changed: dict[str, object] = {}
    if settings.clinical is not None and "ingest" in settings.steps:
        changed = {"clinical": update["clinical"], "clinical_mapping": update.get("clinical_mapping")}
    if (settings.ingest.cohort or "").endswith((".yaml", ".yml")):
        changed["cohort"] = str(Path(str(settings.ingest.cohort)).absolute())
    update["ingest"] = settings.ingest.model_copy(update=changed)
    if settings.egfr is not None and "classify-egfr" in settings.steps:
        from radiogen.egfr.persistence import load_model

        wanted = load_model(settings.egfr).config["extractor"] or {}
        update["features"] = FeatureOptions.like(wanted, outside=settings.features.outside)
    return settings.model_copy(update=update)


def settings_of_run(run: Path) -> CohortSettings:
    """Read the settings of a run that was started.

    Raises:
        ConfigError: The folder holds no run, or one of another version.
    """
    return check_settings(CohortSettings, Ledger(run).settings(), source=str(run))
