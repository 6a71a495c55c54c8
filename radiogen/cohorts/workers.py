"""Hand cases to workers: processes of this machine, or a Dask cluster that somebody else started."""

import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from radiogen.cohorts.ledger import TRIES, LedgerEntry
from radiogen.cohorts.one_case import CaseTask, died, run_case
from radiogen.errors import ConfigError, RadiogenError
from radiogen.io.nifti import read_grid
from radiogen.model.folder import WEIGHTS, all_members, read_model_config
from radiogen.optional import require
from radiogen.pool import run_in_processes
from radiogen.runtime import free_memory_mb, keep_large_blocks
from radiogen.segmentation.inference import generous_memory_mb

CONNECT_S = 20
CHECK_S = 5  # how often to check that there are workers at all
NO_WORKER_S = 600  # batch systems bring new workers after minutes

CaseFunction = Callable[[CaseTask], LedgerEntry]
IMPORTS_MB = 550.0  # a worker with torch, MONAI and ITK, and what it keeps between cases
# Peaks of a worker in MiB, shipped model: 930 at 0.4 million voxels, 1234 at 26 million (99 slices),
# 2534 at 78 million, all in ingest; segment alone 2700 at 262 million (docs/segmentation.md).
INGEST_BYTES, CASE_BYTES = 30, 15  # a voxel of the scanner's grid: with ingest, and of cases that are there


def worker_memory_mb(tasks: Iterable[CaseTask]) -> float:
    """Return the MiB that a worker needs for the largest of these cases; its steps use them in turn."""
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
    """Return the number of workers that memory allows, at most `jobs`, and a message if they are fewer."""
    if jobs == 1:
        return 1, ""
    one_mb, free_mb = worker_memory_mb(tasks), free_memory_mb()
    fit = max(1, min(jobs, int(free_mb // one_mb)))
    if fit == jobs:
        return jobs, ""
    fewer = f"{fit} {'job' if fit == 1 else 'jobs'} instead of {jobs}"
    return fit, f"{fewer}: each may need {one_mb:.0f} MB, {free_mb:.0f} MB are free"


def _voxels(task: CaseTask) -> int:
    """Count the voxels of a scan from its headers; 0 where they cannot be read, as ingest will report."""
    ct = task.case.ct_path if task.case else task.plan.source.ct if task.plan else None
    if isinstance(ct, Path):
        try:
            return prod(read_grid(ct).GetSize())
        except RadiogenError:
            return 0
    return sum(prod(one.size) for one in ct.slices) if ct else 0


@dataclass(frozen=True)
class WorkerOptions:
    """Which workers take the cases: processes of this machine, a Dask cluster, or one part of a job array.

    Attributes:
        jobs: Processes.
        scheduler: Address of a Dask scheduler, instead of processes.
        part: Which part of how many, from 1; the last one that ends writes the tables.
    """

    jobs: int = 1
    scheduler: str | None = None
    part: tuple[int, int] | None = None


def entries_of_workers(
    tasks: Sequence[CaseTask], options: WorkerOptions, report: Callable[[str], None], work: CaseFunction
) -> Generator[LedgerEntry, None, None]:
    """Let workers take cases; yields what became of each, in the order in which they end.

    Args:
        tasks: The cases.
        options: Which workers.
        report: Told if there are fewer workers than were asked for.
        work: What a worker does with a case.
    """
    if not tasks:
        return
    if options.scheduler:
        yield from run_on_cluster(tasks, options.scheduler, work)
        return
    jobs, message = fitting_jobs(tasks, options.jobs)
    if message:
        report(message)
    yield from run_in_processes(work, tasks, jobs, died, TRIES)


def run_on_cluster(
    tasks: Sequence[CaseTask], scheduler: str, work: CaseFunction = run_case
) -> Iterator[LedgerEntry]:
    """Run cases on a Dask cluster; a device of CUDA asks for workers with the resource `GPU`.

    Workers see the run folder under the same path, and may come and go. No more cases are handed out than
    there are threads: with `Client.map` a worker that dies would take its queue along, and each case of it
    would count one death.

    Yields:
        What became of each case, in the order in which they end.

    Raises:
        ConfigError: No scheduler answers or it is lost, or no worker can take the cases.
        MissingPackageError: dask.distributed is not installed.
    """
    distributed = require("distributed", extra="cluster")
    option = f"--scheduler {scheduler}"
    try:
        client = distributed.Client(scheduler, timeout=CONNECT_S, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        hint = "start dask scheduler, and give its address tcp://HOST:8786"
        raise ConfigError(option, "does not answer", hint) from error
    with client:
        needs = {"GPU": 1} if tasks and tasks[0].settings.device.startswith("cuda") else None
        cluster = _Cluster(client, option, needs, work)
        if not cluster.slots():
            missing = "worker with --resources GPU=1" if needs else "worker"
            raise ConfigError(option, f"has no {missing}", f"start dask worker {scheduler}")
        yield from cluster.run(deque(tasks))


class _Cluster:
    """A scheduler with its workers, and the cases that they have."""

    def __init__(self, client: Any, option: str, needs: dict[str, int] | None, work: CaseFunction) -> None:
        self.client, self.option, self.needs, self.work = client, option, needs, work
        self.distributed = require("distributed", extra="cluster")
        self.given: dict[Any, CaseTask] = {}
        self.deaths = Counter[str]()

    def slots(self) -> int:
        """Return how many cases the workers of this moment can have at the same time."""
        try:
            workers = self.client.scheduler_info(n_workers=-1)["workers"].values()
        except OSError as error:
            raise self._lost() from error
        if self.needs:
            return sum(int(worker["resources"].get("GPU", 0)) for worker in workers)
        return sum(int(worker["nthreads"]) for worker in workers)

    def run(self, waiting: deque[CaseTask]) -> Iterator[LedgerEntry]:
        """Hand out cases one after the other; yields what became of them."""
        while waiting or self.given:
            for _ in range(min(len(waiting), self.slots() - len(self.given))):
                task = waiting.popleft()
                future = self.client.submit(_run, self.work, task, pure=False, resources=self.needs)
                self.given[future] = task
            for future in self._ended():
                task = self.given.pop(future)
                entry = self._entry(future, task)
                if entry is None:
                    waiting.append(task)
                else:
                    yield entry

    def _ended(self) -> list[Any]:
        """Wait for one future that is done or lost; returns all that are."""
        last_worker = time.monotonic()
        while self.given:
            try:
                with self.client.as_current():
                    return list(self.distributed.wait([*self.given], CHECK_S, "FIRST_COMPLETED").done)
            except TimeoutError:
                now = time.monotonic()
                last_worker = now if self.slots() else last_worker
                if now - last_worker > NO_WORKER_S:
                    hint = "start workers; the same command goes on"
                    raise ConfigError(self.option, f"has had no worker for {NO_WORKER_S} s", hint) from None
            except (self.distributed.CancelledError, OSError) as error:
                raise self._lost() from error
        return []

    def _entry(self, future: Any, task: CaseTask) -> LedgerEntry | None:
        """Return what became of a case; None if it has to be tried again."""
        try:
            entry: LedgerEntry = future.result()
            return entry
        except self.distributed.KilledWorker:
            self.deaths[task.case_id] += 1
            # It may have died of a neighbour: once a worker takes it again, the marks on disk decide.
            return None if self.deaths[task.case_id] < TRIES else died(task)
        except self.distributed.CancelledError as error:
            raise self._lost() from error
        except Exception as error:  # run_case raises nothing: the worker could not even begin
            wrong = f"has a worker that cannot take a case: {type(error).__name__}: {error}"
            raise ConfigError(self.option, wrong, "install the same radiogen on every worker") from error

    def _lost(self) -> ConfigError:
        return ConfigError(self.option, "was lost", "start it again; the same command goes on")


def _run(work: CaseFunction, task: CaseTask) -> LedgerEntry:
    """Do a case on a worker, with the worker's share of the processors."""
    import SimpleITK as sitk
    from distributed import get_worker

    keep_large_blocks()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(get_worker().state.nthreads)
    return work(task)
