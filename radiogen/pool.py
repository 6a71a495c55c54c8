"""Run tasks in processes of one machine that die alone and end with the process that started them."""

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

from radiogen.runtime import cpu_count

T = TypeVar("T")
R = TypeVar("R")


def run_in_processes(
    work: Callable[[T], R], tasks: Sequence[T], jobs: int, died: Callable[[T], R], tries: int
) -> Iterator[R]:
    """Run tasks in `jobs` processes; each holds one task at a time, so that one that dies takes no other.

    Args:
        work: Called with one task, in a process of its own; can be pickled, as the tasks can.
        tasks: What there is to do.
        jobs: Number of processes.
        died: Called here, for the result of a task whose process died `tries` times.
        tries: How often a task is tried whose process dies.

    Yields:
        The result of each task, in the order in which they end.
    """
    waiting = deque(enumerate(tasks))
    deaths = Counter[int]()
    processes = [_Process(jobs) for _ in range(min(jobs, len(tasks)))]
    busy: dict[Future[R], tuple[_Process, int]] = {}
    try:
        while waiting or busy:
            in_use = [process for process, _ in busy.values()]
            idle = [process for process in processes if process not in in_use]
            for process in idle[: len(waiting)]:
                number, task = waiting.popleft()
                busy[process.submit(work, task)] = process, number
            for future in wait(busy, return_when=FIRST_COMPLETED).done:
                process, number = busy.pop(future)
                try:
                    yield future.result()
                except BrokenProcessPool:
                    processes[processes.index(process)] = _Process(jobs)
                    process.end()
                    deaths[number] += 1
                    if deaths[number] < tries:
                        waiting.append((number, tasks[number]))
                    else:
                        yield died(tasks[number])
    finally:
        for process in processes:
            process.end()


class _Process:
    """A process, started when it gets its first task."""

    def __init__(self, jobs: int) -> None:
        context = get_context("spawn")
        theirs, self._alive = context.Pipe(duplex=False)
        self._pool = ProcessPoolExecutor(1, context, _begin, (theirs, max(1, cpu_count() // jobs)))
        self._processes: set[BaseProcess] = set()

    def submit(self, work: Callable[[Any], R], task: Any) -> Future[R]:
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
