"""Do many runs, one after another or on several processes and devices; what is done stays done."""

import json
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import active_children, get_context, parent_process
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

import torch

from radiogen.errors import ConfigError, OutputError, RadiogenError
from radiogen.provenance import clear_drafts, record_path, write_json
from radiogen.runtime import Progress, keep_large_blocks, no_progress, pick_device

Failure = tuple[str, str, str]  # run, reason, way out
_mine: list[str] = []  # the device of this worker process


class Plan(Protocol):
    """One run of a benchmark."""

    @property
    def name(self) -> str:
        """The name of its files, of no other run."""


P = TypeVar("P", bound=Plan)


def check_devices(names: str) -> list[str]:
    """The devices of a list such as `cuda:0,cuda:1`, each checked to be there.

    Raises:
        DeviceError: One is not there.
        ConfigError: One is named twice.
    """
    devices = [str(pick_device(name.strip())) for name in names.split(",")]
    if len(set(devices)) < len(devices):
        raise ConfigError(f"--device {names}", "names a device twice", "take --jobs for several runs on one")
    return devices


def perform_all(
    plans: Sequence[P],
    perform: Callable[[P, torch.device], None],
    devices: Sequence[str],
    jobs: int,
    progress: Progress = no_progress,
) -> list[Failure]:
    """Perform every plan; a run that is refused does not stop the others.

    Args:
        plans: The runs that are still to do.
        perform: Does one run and writes its result; with several jobs it must be picklable.
        devices: Worker after worker takes the next one, round robin.
        jobs: Worker processes; with one, the runs are done in this process.
        progress: Told of each finished run.

    Returns:
        What failed, in the order of the plans.
    """
    progress("runs", 0, len(plans))
    jobs = min(jobs, len(plans))
    outcomes = _together(plans, perform, devices, jobs) if jobs > 1 else _in_turn(plans, perform, devices[0])
    failures: dict[str, Failure] = {}
    for number, (plan, failure) in enumerate(outcomes, start=1):
        if failure is not None:
            failures[plan.name] = failure
        progress("runs", number, len(plans))
    return [failures[plan.name] for plan in plans if plan.name in failures]


def _in_turn(
    plans: Sequence[P], perform: Callable[[P, torch.device], None], device: str
) -> Iterator[tuple[P, Failure | None]]:
    for plan in plans:
        yield plan, _attempt(perform, plan, device)


def _attempt(perform: Callable[[P, torch.device], None], plan: P, device: str) -> Failure | None:
    try:
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True):
            perform(plan, torch.device(device))
    except RadiogenError as error:
        return plan.name, error.reason, error.hint
    return None


def _together(
    plans: Sequence[P], perform: Callable[[P, torch.device], None], devices: Sequence[str], jobs: int
) -> Iterator[tuple[P, Failure | None]]:
    context = get_context("spawn")
    queue: Queue[str] = context.Queue()
    for worker in range(jobs):
        queue.put(devices[worker % len(devices)])
    threads = max(1, torch.get_num_threads() // jobs)
    with ProcessPoolExecutor(jobs, context, _start_worker, (queue, threads)) as pool:
        try:
            futures = {pool.submit(_attempt_here, perform, plan): plan for plan in plans}
            for future in as_completed(futures):
                plan = futures[future]
                try:
                    yield plan, future.result()
                except BrokenProcessPool:
                    reason = "a worker process died, perhaps of too little memory"
                    yield plan, (plan.name, reason, "take fewer --jobs; the same command goes on")
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for child in active_children():
                child.terminate()
            raise


def _attempt_here(perform: Callable[[P, torch.device], None], plan: P) -> Failure | None:
    return _attempt(perform, plan, _mine[0])


def _start_worker(queue: "Queue[str]", threads: int) -> None:
    _mine[:] = [queue.get()]
    torch.set_num_threads(threads)
    keep_large_blocks()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears Ctrl-C and ends its workers
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


ABOUT, RUNS = "benchmark.json", "runs"
Existing = Literal["skip", "overwrite", "fail"]


def open_benchmark(out: Path, about: Mapping[str, Any], existing: Existing) -> Path:
    """Make the folder of a benchmark, or go on with one of the same kind.

    Args:
        out: Its folder.
        about: What decides every number of it; a folder made with something else is refused.
        existing: What happens to a benchmark that is there; `skip` goes on with it.

    Returns:
        The folder of its runs.

    Raises:
        OutputError: The folder holds something else, or a benchmark and `existing` is fail.
    """
    wanted = json.loads(json.dumps(about, default=str))
    if out.is_dir() and any(out.iterdir()):
        if not (out / ABOUT).is_file():
            raise OutputError(out, "holds something else", "choose another folder")
        if existing == "fail":
            raise OutputError(out, "holds a benchmark", "choose another folder or --existing overwrite")
        if existing == "overwrite":
            shutil.rmtree(out)
        elif (there := _read(out / ABOUT)) != wanted:
            changed = ", ".join(name for name in wanted if there.get(name) != wanted[name])
            hint = "choose another folder or --existing overwrite"
            raise OutputError(out, f"holds a benchmark with another {changed}", hint)
    clear_drafts(out / RUNS)
    if out.is_dir():
        record_path(out).unlink(missing_ok=True)
    write_json(out / ABOUT, wanted)
    (out / RUNS).mkdir(exist_ok=True)
    return out / RUNS


def _read(path: Path) -> dict[str, Any]:
    try:
        there: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return dict(there)
    except (OSError, ValueError, TypeError) as error:
        raise OutputError(path, "cannot be read", "take --existing overwrite") from error
