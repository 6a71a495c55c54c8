"""Run tasks in processes of this machine: a task whose process dies is retried alone and harms no other."""

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
from typing import Any, TypeVar

from radiogen.runtime import cpu_count, keep_large_blocks

T = TypeVar("T")
R = TypeVar("R")
_worker = 0  # number of this process in its pool


def run_in_processes(
    work: Callable[[T], R], tasks: Sequence[T], jobs: int, died: Callable[[T], R], tries: int = 1
) -> Iterator[R]:
    """Run tasks in several processes.

    A `ProcessPoolExecutor`, like joblib's, fails all its tasks when one process dies, and a scan that a
    decoder crashes on, or that is too large for the memory, would take its neighbours with it. So each
    process is a pool of one, and holds one task at a time.

    Args:
        work: Called with one task in one of the processes; can be pickled, as the tasks can.
        tasks: What there is to do.
        jobs: Number of processes; SimpleITK gets an equal share of the processors in each.
        died: Called here, for the result of a task whose process died `tries` times.
        tries: How often a task is tried whose process dies.

    Yields:
        The result of each task, in the order in which they end.

    Raises:
        Exception: Whatever `work` raises; the other processes are ended then.
    """
    waiting = deque(enumerate(tasks))
    deaths = Counter[int]()
    jobs = min(jobs, len(tasks))
    processes = [_Process(number, jobs) for number in range(jobs)]
    busy: dict[Future[R], tuple[_Process, int]] = {}
    try:
        while waiting or busy:
            in_use = [process for process, _ in busy.values()]
            idle = [process for process in processes if process not in in_use]
            for process in idle[: len(waiting)]:
                place, task = waiting.popleft()
                busy[process.submit(work, task)] = process, place
            for future in wait(busy, return_when=FIRST_COMPLETED).done:
                process, place = busy.pop(future)
                try:
                    yield future.result()
                except BrokenProcessPool:
                    process.end()
                    processes[process.number] = _Process(process.number, jobs)
                    deaths[place] += 1
                    if deaths[place] < tries:
                        waiting.append((place, tasks[place]))
                    else:
                        yield died(tasks[place])
    finally:
        for process in processes:
            process.end()


def worker_number() -> int:
    """Return the number of this process in its pool, from 0; outside of a pool it is 0."""
    return _worker


class _Process:
    """A pool of one process, which starts when it gets its first task."""

    def __init__(self, number: int, jobs: int) -> None:
        self.number = number
        context = get_context("spawn")  # fork would copy locks of torch's threads in whatever state they are
        theirs, self._alive = context.Pipe(duplex=False)
        threads = max(1, cpu_count() // jobs)
        self._pool = ProcessPoolExecutor(1, context, _begin, (theirs, number, threads))
        self._processes: set[BaseProcess] = set()

    def submit(self, work: Callable[[Any], R], task: Any) -> Future[R]:
        """Start a task, and note which process the executor started for it."""
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


def _begin(alive: Connection, number: int, threads: int) -> None:
    """Prepare a new process, and let it end with the one that started it, even if that is killed."""
    global _worker
    _worker = number
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the first process, which ends this one
    threading.Thread(target=_end_with, args=(alive,), daemon=True).start()
    import SimpleITK as sitk

    keep_large_blocks()
    # The number of ITK's threads changes no byte of a result; torch's may, and is set by who runs networks.
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)


def _end_with(alive: Connection) -> None:
    """Wait until the other side of the pipe is gone, then end this process."""
    with suppress(EOFError, OSError):
        alive.recv()
    os._exit(1)
