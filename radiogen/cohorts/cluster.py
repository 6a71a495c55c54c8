"""Cases on the workers of a Dask cluster that somebody else started."""

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

from radiogen.cohorts.ledger import TRIES, Entry
from radiogen.cohorts.one_case import CaseTask, died, run_case
from radiogen.errors import ConfigError
from radiogen.optional import require

CONNECT_S = 20


def run_on_cluster(tasks: Sequence[CaseTask], scheduler: str) -> Iterator[Entry]:
    """Run cases on a Dask cluster; a device of CUDA asks for workers with the resource `GPU`.

    Workers see the run folder under the same path. No more cases are handed out than there are threads, so
    that a worker that dies has not many others waiting in it.

    Yields:
        What became of each case, in the order in which they end.

    Raises:
        ConfigError: No scheduler answers, or it has no worker that could take the cases.
        MissingPackageError: dask.distributed is not installed.
    """
    distributed = require("distributed", extra="cluster")
    try:
        client = distributed.Client(scheduler, timeout=CONNECT_S, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        way_out = "start dask scheduler, and give its address tcp://HOST:8786"
        raise ConfigError(f"--scheduler {scheduler}", "does not answer", way_out) from error
    with client:
        needs = {"GPU": 1} if tasks and tasks[0].settings.device.startswith("cuda") else None
        yield from _run(client, distributed, tasks, _slots(client, scheduler, needs), needs)


def _slots(client: Any, scheduler: str, needs: dict[str, int] | None) -> int:
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    if needs:
        slots = sum(int(worker["resources"].get("GPU", 0)) for worker in workers)
    else:
        slots = sum(int(worker["nthreads"]) for worker in workers)
    if not slots:
        what = "worker with --resources GPU=1" if needs else "worker"
        raise ConfigError(f"--scheduler {scheduler}", f"has no {what}", f"start dask worker {scheduler}")
    return slots


def _run(
    client: Any, distributed: Any, tasks: Sequence[CaseTask], slots: int, needs: dict[str, int] | None
) -> Iterator[Entry]:
    waiting, finished = deque(tasks), distributed.as_completed([], loop=client.loop)
    given: dict[str, CaseTask] = {}
    deaths: dict[str, int] = {}

    def give() -> None:
        while waiting and len(given) < slots:
            task = waiting.popleft()
            future = client.submit(run_case, task, pure=False, resources=needs)
            given[future.key] = task
            finished.add(future)

    give()
    while given:
        future = next(finished)
        task = given.pop(future.key)
        try:
            yield future.result()
        except distributed.KilledWorker:
            deaths[task.case_id] = deaths.get(task.case_id, 0) + 1
            if deaths[task.case_id] < TRIES:  # others may have died beside it; its own marks decide
                waiting.append(task)
            else:
                yield died(task)
        give()
