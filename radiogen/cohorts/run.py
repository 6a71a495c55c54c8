"""Run the road over a whole cohort, unattended: what `radiogen cohort run` does."""

import json
import os
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path

from radiogen.cohorts.cluster import Work, run_on_cluster
from radiogen.cohorts.gather import Failure, Gathering, gather
from radiogen.cohorts.ledger import LOCK, TRIES, Entry, Ledger
from radiogen.cohorts.one_case import CASES, CaseTask, died, is_settled, run_case
from radiogen.cohorts.planning import Plan, plan_tasks
from radiogen.cohorts.settings import CohortSettings
from radiogen.config import check_settings
from radiogen.errors import ConfigError, OutputError, RadiogenError
from radiogen.features.settings import FeatureOptions
from radiogen.io.dicom.zip import unpacked
from radiogen.io.nifti import read_grid
from radiogen.locks import held, waited_for
from radiogen.model.ensemble import all_members
from radiogen.model.folder import WEIGHTS, read_model_config
from radiogen.pool import run_in_processes
from radiogen.provenance import remove_if_refused
from radiogen.runtime import Progress, free_memory_mb, no_progress
from radiogen.segmentation.effort import generous_memory_mb

IMPORTS_MB = 550.0  # a worker with torch, MONAI and ITK, and what it keeps between cases
# Peaks of a worker in MiB, shipped model: 930 at 0.4 million voxels, 1234 at 26 million (99 slices),
# 2534 at 78 million, all in ingest; segment alone 2700 at 262 million (docs/segmentation.md).
INGEST_BYTES, CASE_BYTES = 30, 15  # a voxel of the scanner's grid: with ingest, and of cases that are there


def worker_memory_mb(tasks: Iterable[CaseTask]) -> float:
    """MiB that one worker needs for the largest of these cases; steps use the same memory in turn."""
    tasks = list(tasks)
    if not tasks:
        return IMPORTS_MB
    settings = tasks[0].settings
    bytes_a_voxel = INGEST_BYTES if "ingest" in settings.steps else CASE_BYTES
    volumes = max(_voxels(task) for task in tasks) * bytes_a_voxel / 2**20
    members = all_members(settings.model)
    if not members:
        return IMPORTS_MB + volumes
    weights = sum((member / WEIGHTS).stat().st_size for member in members) / 2**20
    window = generous_memory_mb(read_model_config(members[0]).preprocessing.size, 1)
    return IMPORTS_MB + 2 * weights + max(volumes, window)


def fitting_jobs(tasks: Iterable[CaseTask], jobs: int) -> tuple[int, str]:
    """As many workers as were asked for, or fewer if memory is short, and then a line that says so."""
    if jobs == 1:
        return 1, ""
    one_mb, free_mb = worker_memory_mb(tasks), free_memory_mb()
    fit = max(1, min(jobs, int(free_mb // one_mb)))
    if fit == jobs:
        return jobs, ""
    lowered = f"{fit} {'job' if fit == 1 else 'jobs'} instead of {jobs}"
    return fit, f"{lowered}: each may need {one_mb:.0f} MB, {free_mb:.0f} MB are free"


def _voxels(task: CaseTask) -> int:
    ct = task.case.ct_path if task.case else task.plan.source.ct if task.plan else None
    if isinstance(ct, Path):
        try:
            return prod(read_grid(ct).GetSize())
        except RadiogenError:
            return 0
    return sum(prod(one.size) for one in ct.slices) if ct else 0


@dataclass(frozen=True)
class Spread:
    """Who does the work: processes of this machine, a Dask cluster, or one part of a job array.

    Attributes:
        jobs: Processes.
        scheduler: Address of a Dask scheduler, instead of processes.
        part: Which part of how many, from 1; the last one that ends writes the tables.
    """

    jobs: int = 1
    scheduler: str | None = None
    part: tuple[int, int] | None = None


@dataclass(frozen=True)
class CohortReport:
    """What came of a run: cases done, done before, failures, and whether other parts are still at work."""

    run: Path
    done: int
    kept: int
    failures: tuple[Failure, ...]
    missing: int = 0


def run_cohort(
    settings: CohortSettings,
    run: Path,
    spread: Spread | None = None,
    progress: Progress = no_progress,
    say: Callable[[str], None] = lambda _line: None,
    retry: bool = False,
    work: Work = run_case,
) -> CohortReport:
    """Take every case of a source through the steps, each as one task; then write what stands over all.

    Kill it at any moment: the same call does what is left and ends with the same bytes. A case that failed
    is tried again when its files or the settings have changed, or with `retry`.

    Args:
        settings: Source, steps, models.
        run: Folder of the run.
        spread: Who does the work.
        progress: Called with what is done and how much there is.
        say: Told of what was decided about the run.
        retry: Try what failed again.
        work: What a worker does with a case.

    Raises:
        OutputError: Somebody else holds the folder, it holds something else, or nothing can be written.
        RadiogenError: The source or the models cannot be used.
    """
    spread, settings = spread or Spread(), _settled(settings)
    if run.is_file():
        raise OutputError(run, "is a file", "choose a folder")
    run = run.absolute()
    ledger = Ledger(run)
    with ExitStack() as holding:
        with remove_if_refused(run):  # only of input that is refused: what was computed stays
            holding.enter_context(_room(ledger, spread.part))
            folder = holding.enter_context(_unpacked(settings.source, run, spread.part))
            plan = plan_tasks(settings, folder, run, f"{os.getpid()}-{time.time_ns()}", progress)
            keys = {name: task.key for name, task in plan.tasks.items()}
            ledger.remember(json.loads(settings.model_dump_json()), keys)
        entries = {name: ledger.read(name) for name in plan.tasks}
        todo = [task for name, task in plan.tasks.items() if _is_open(task, entries[name], retry)]
        todo = _part_of(todo, list(plan.tasks), spread.part)
        kept = len(plan.tasks) - len(todo)
        done = 0
        entries_now = holding.enter_context(closing(_results(todo, spread, say, work)))
        for number, entry in enumerate(entries_now, start=1):
            if entry.outcome == "stopped":
                raise OutputError(run, entry.reason, entry.hint)
            if entry.worker == 0:
                ledger.write(entry)  # of a worker that cannot any more
            done += entry.outcome == "done"
            progress("cohort", number, len(todo))
        return _close(ledger, plan, settings, run, (done, kept), progress, spread.jobs)


def _results(
    todo: Sequence[CaseTask], spread: Spread, say: Callable[[str], None], work: Work
) -> Generator[Entry, None, None]:
    if not todo:
        return
    if spread.scheduler:
        yield from run_on_cluster(todo, spread.scheduler, work)
        return
    jobs, line = fitting_jobs(todo, spread.jobs)
    if line:
        say(line)
    yield from run_in_processes(work, todo, jobs, died, TRIES)


def _close(
    ledger: Ledger,
    plan: Plan,
    settings: CohortSettings,
    run: Path,
    counts: tuple[int, int],
    progress: Progress,
    jobs: int,
) -> CohortReport:
    """Gather, if every case of every part is settled; parts that end together take turns."""
    with waited_for(ledger.home / "gathering"):
        read = {name: ledger.read(name) for name in plan.tasks}
        entries = {
            name: entry for name, entry in read.items() if entry and is_settled(plan.tasks[name], entry)
        }
        missing = len(plan.tasks) - len(entries)
        failures: Sequence[Failure] = ()
        if not missing:
            failures = gather(Gathering(run, settings, plan.tasks, entries, plan.clinical, jobs), progress)
        return CohortReport(run, *counts, tuple(failures), missing)


def _is_open(task: CaseTask, entry: Entry | None, retry: bool) -> bool:
    return not is_settled(task, entry) or (retry and entry is not None and entry.outcome == "failed")


def _part_of(todo: Sequence[CaseTask], names: Sequence[str], part: tuple[int, int] | None) -> list[CaseTask]:
    """Every n-th case by the order of ids, whatever is done already."""
    if part is None:
        return list(todo)
    number, count = part
    mine = set(sorted(names)[number - 1 :: count])
    return [task for task in todo if task.case_id in mine]


@contextmanager
def _room(ledger: Ledger, part: tuple[int, int] | None) -> Iterator[None]:
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
    """The folder to look into; members of an archive lie there as long as the run lasts."""
    if part is not None and source.is_file():
        raise ConfigError(
            f"--part {part[0]}/{part[1]}", f"is given for one file: {source}", "unpack it first"
        )
    return unpacked(source, run / CASES)


def _settled(settings: CohortSettings) -> CohortSettings:
    """Paths made absolute, so that workers and a later retry find them; features as the EGFR model wants."""
    names = ("source", "egfr", "clinical", "clinical_mapping")
    places = {name: getattr(settings, name) for name in names}
    update: dict[str, object] = {name: path.absolute() for name, path in places.items() if path}
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


def remembered(run: Path) -> CohortSettings:
    """The settings of a run that was started.

    Raises:
        ConfigError: The folder holds no run, or one of another version.
    """
    return check_settings(CohortSettings, Ledger(run).settings(), source=str(run))
