"""Cases on the processors of one machine: processes that die alone and end with the one that started them."""

import os
import signal
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from multiprocessing import active_children, get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

from radiogen.cohorts.ledger import TRIES, Entry
from radiogen.cohorts.one_case import CaseTask, died, run_case
from radiogen.runtime import cpu_count

Work = Callable[[CaseTask], Entry]


def run_in_lanes(tasks: Sequence[CaseTask], jobs: int, work: Work = run_case) -> Iterator[Entry]:
    """Run cases in so many processes; each holds one case at a time, so that one that dies takes no other.

    Yields:
        What became of each case, in the order in which they end.
    """
    waiting, deaths = deque(tasks), Counter[str]()
    lanes = [_Lane(jobs) for _ in range(min(jobs, len(tasks)))]
    busy: dict[Future[Entry], tuple[_Lane, CaseTask]] = {}
    try:
        while waiting or busy:
            idle = [lane for lane in lanes if lane not in [used for used, _ in busy.values()]]
            for lane in idle[: len(waiting)]:
                task = waiting.popleft()
                busy[lane.submit(work, task)] = lane, task
            for future in wait(busy, return_when=FIRST_COMPLETED).done:
                lane, task = busy.pop(future)
                try:
                    yield future.result()
                except BrokenProcessPool:
                    lanes[lanes.index(lane)] = _Lane(jobs)
                    lane.end()
                    deaths[task.case_id] += 1
                    if deaths[task.case_id] < TRIES:
                        waiting.append(task)
                    else:
                        yield died(task)
    finally:
        for lane in lanes:
            lane.end()


class _Lane:
    """One process, started when it gets its first case."""

    def __init__(self, jobs: int) -> None:
        context = get_context("spawn")
        theirs, self._alive = context.Pipe(duplex=False)
        self._pool = ProcessPoolExecutor(1, context, _begin, (theirs, max(1, cpu_count() // jobs)))
        self._processes: set[BaseProcess] = set()

    def submit(self, work: Work, task: CaseTask) -> Future[Entry]:
        before = set(active_children())
        future = self._pool.submit(work, task)
        self._processes |= set(active_children()) - before
        return future

    def end(self) -> None:
        """End the process at once, whatever it does; its files are whole or not there."""
        self._alive.close()
        for process in self._processes:
            process.kill()
        self._pool.shutdown(wait=False, cancel_futures=True)


def _begin(alive: Connection, threads: int) -> None:
    """In the process: end when the other side of the pipe is gone, even if it was killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the head
    threading.Thread(target=_end_with, args=(alive,), daemon=True).start()
    import SimpleITK as sitk

    from radiogen.runtime import keep_large_blocks

    keep_large_blocks()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)  # changes no byte; torch has its own number


def _end_with(alive: Connection) -> None:
    with suppress(EOFError, OSError):
        alive.recv()
    os._exit(1)
