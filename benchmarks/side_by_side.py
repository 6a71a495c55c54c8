"""Time pieces of work in turn, each in a process of its own, since malloc is set for a whole process."""

import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from radiogen.runtime import keep_large_blocks, peak_memory_mb

MATRIX = 2048


@dataclass(frozen=True)
class Side:
    """Work to be timed: `make(*given)` prepares it and gives a function that does it once."""

    name: str
    make: Callable[..., Callable[[], object]]
    given: tuple[Any, ...] = ()
    keeps_blocks: bool = True  # glibc does not give large blocks back (runtime.keep_large_blocks)


@dataclass
class Measured:
    """What a side took: one number a repeat; the first time by itself."""

    wall_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    faults: list[int] = field(default_factory=list)  # minor page faults
    first_s: float = 0.0  # wall seconds of making it and doing it once
    peak_mb: float = 0.0  # MiB at the peak, beyond what the process held before the work was made
    tensors_mb: float = 0.0  # MiB of new tensors that one repeat held at once

    @property
    def wall(self) -> float:
        """Median wall seconds."""
        return statistics.median(self.wall_s)

    @property
    def cpu(self) -> float:
        """Median processor seconds of all threads."""
        return statistics.median(self.cpu_s)


def matrix_product() -> Callable[[], object]:
    """The machine's limit: one product of square float32 matrices."""
    a, b = torch.rand(MATRIX, MATRIX), torch.rand(MATRIX, MATRIX)
    return lambda: a @ b


def gflops(measured: Measured) -> tuple[float, float]:
    """10^9 operations a second of `matrix_product`, by wall and by processor seconds."""
    return 2 * MATRIX**3 / measured.wall / 1e9, 2 * MATRIX**3 / measured.cpu / 1e9


def side_by_side(sides: Sequence[Side], threads: int, repeats: int, warm: int = 2) -> dict[str, Measured]:
    """Do every side `warm` times, then all in turn `repeats` times."""
    context = multiprocessing.get_context("spawn")
    workers = []
    for side in sides:
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(side, threads, theirs), daemon=True)
        process.start()
        workers.append((side.name, process, ours))
    found = {side.name: Measured() for side in sides}
    try:
        for name, _, pipe in workers:  # made one after the other, so that they do not disturb each other
            pipe.send("begin")
            found[name].first_s = pipe.recv()
        for number in range(warm - 1 + repeats):
            for name, _, pipe in workers:
                pipe.send("once")
                wall, cpu, faults, peak = pipe.recv()
                if number >= warm - 1:
                    found[name].wall_s.append(wall)
                    found[name].cpu_s.append(cpu)
                    found[name].faults.append(faults)
                found[name].peak_mb = peak
        for name, _, pipe in workers:
            pipe.send("tensors")
            found[name].tensors_mb = pipe.recv()
    finally:
        for _, process, _ in workers:
            process.terminate()
            process.join()
    return found


def _serve(side: Side, threads: int, pipe: Connection) -> None:
    torch.set_num_threads(threads)
    if side.keeps_blocks:
        keep_large_blocks()
    pipe.recv()
    before = peak_memory_mb()
    began = time.perf_counter()
    work = side.make(*side.given)
    work()
    pipe.send(time.perf_counter() - began)
    while pipe.recv() == "once":
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults
        pipe.send((wall, cpu, faults, peak_memory_mb() - before))
    pipe.send(most_tensors_mb(work))


def most_tensors_mb(work: Callable[[], object]) -> float:
    """MiB of tensors made by some work that were there at once, at most, whatever the heap makes of them."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watched:
        work()
    events: Any = watched.profiler.kineto_results.events()  # type: ignore[union-attr]
    sizes = sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]")
    return max(accumulate((size for _, size in sizes), initial=0)) / 2**20
