"""Cases on the workers of a Dask cluster that somebody else started."""

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from radiogen.cohorts.ledger import TRIES, Entry
from radiogen.cohorts.one_case import CaseTask, died, run_case
from radiogen.errors import ConfigError
from radiogen.optional import require
from radiogen.runtime import keep_large_blocks

CONNECT_S = 20
LOOK_S = 5  # how often is looked whether there are workers at all
ALONE_S = 600  # without any worker; batch systems bring new ones after minutes

Work = Callable[[CaseTask], Entry]


def run_on_cluster(tasks: Sequence[CaseTask], scheduler: str, work: Work = run_case) -> Iterator[Entry]:
    """Run cases on a Dask cluster; a device of CUDA asks for workers with the resource `GPU`.

    Workers see the run folder under the same path, and may come and go. No more cases are handed out than
    there are threads, so that a worker that dies has not many others waiting in it.

    Yields:
        What became of each case, in the order in which they end.

    Raises:
        ConfigError: No scheduler answers or it is lost, or no worker can take the cases.
        MissingPackageError: dask.distributed is not installed.
    """
    distributed = require("distributed", extra="cluster")
    what = f"--scheduler {scheduler}"
    try:
        client = distributed.Client(scheduler, timeout=CONNECT_S, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        hint = "start dask scheduler, and give its address tcp://HOST:8786"
        raise ConfigError(what, "does not answer", hint) from error
    with client:
        needs = {"GPU": 1} if tasks and tasks[0].settings.device.startswith("cuda") else None
        cluster = _Cluster(client, what, needs, work)
        if not cluster.slots():
            missing = "worker with --resources GPU=1" if needs else "worker"
            raise ConfigError(what, f"has no {missing}", f"start dask worker {scheduler}")
        yield from cluster.run(deque(tasks))


class _Cluster:
    """A scheduler with its workers, and the cases that they have."""

    def __init__(self, client: Any, what: str, needs: dict[str, int] | None, work: Work) -> None:
        self.client, self.what, self.needs, self.work = client, what, needs, work
        self.distributed = require("distributed", extra="cluster")
        self.given: dict[Any, CaseTask] = {}
        self.deaths = Counter[str]()

    def slots(self) -> int:
        """Cases that the workers of this moment can have at the same time."""
        try:
            workers = self.client.scheduler_info(n_workers=-1)["workers"].values()
        except OSError as error:
            raise self._lost() from error
        if self.needs:
            return sum(int(worker["resources"].get("GPU", 0)) for worker in workers)
        return sum(int(worker["nthreads"]) for worker in workers)

    def run(self, waiting: deque[CaseTask]) -> Iterator[Entry]:
        """Hand out cases one after the other; what became of them."""
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
        """Futures that are done or lost; waits for one."""
        seen = time.monotonic()
        while self.given:
            try:
                with self.client.as_current():
                    return list(self.distributed.wait([*self.given], LOOK_S, "FIRST_COMPLETED").done)
            except TimeoutError:
                now = time.monotonic()
                seen = now if self.slots() else seen
                if now - seen > ALONE_S:
                    hint = "start workers; the same command goes on"
                    raise ConfigError(self.what, f"has had no worker for {ALONE_S} s", hint) from None
            except (self.distributed.CancelledError, OSError) as error:
                raise self._lost() from error
        return []

    def _entry(self, future: Any, task: CaseTask) -> Entry | None:
        """What became of a case; None if it has to be tried again."""
        try:
            entry: Entry = future.result()
            return entry
        except self.distributed.KilledWorker:
            self.deaths[task.case_id] += 1
            # others may have died beside it; its own marks decide
            return None if self.deaths[task.case_id] < TRIES else died(task)
        except self.distributed.CancelledError as error:
            raise self._lost() from error
        except Exception as error:  # run_case raises nothing: the worker could not even begin
            wrong = f"has a worker that cannot take a case: {type(error).__name__}: {error}"
            raise ConfigError(self.what, wrong, "install the same radiogen on every worker") from error

    def _lost(self) -> ConfigError:
        return ConfigError(self.what, "was lost", "start it again; the same command goes on")


def _run(work: Work, task: CaseTask) -> Entry:
    """On a worker: a case with the worker's share of the processors."""
    import SimpleITK as sitk
    from distributed import get_worker

    keep_large_blocks()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(get_worker().state.nthreads)
    return work(task)
