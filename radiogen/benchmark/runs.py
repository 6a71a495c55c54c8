"""Do the runs of a benchmark in one process or in several, and go on with a benchmark that was stopped."""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, Protocol, TypeVar

import torch

from radiogen.errors import ConfigError, OutputError, RadiogenError
from radiogen.pool import run_in_processes, worker_number
from radiogen.provenance import clear_drafts, record_path, write_json
from radiogen.runtime import Progress, no_progress, pick_device

Failure = tuple[str, str, str]  # name of the run, reason, hint


class NamedRun(Protocol):
    """One run of a benchmark."""

    @property
    def name(self) -> str:
        """The name of its files, of no other run."""


RunT = TypeVar("RunT", bound=NamedRun)


def check_devices(names: str) -> list[str]:
    """Return the devices of a list such as `cuda:0,cuda:1`, each checked to be there.

    Raises:
        DeviceError: One is not there.
        ConfigError: One is named twice.
    """
    devices = [str(pick_device(name.strip())) for name in names.split(",")]
    if len(set(devices)) < len(devices):
        raise ConfigError(f"--device {names}", "names a device twice", "take --jobs for several runs on one")
    return devices


def perform_all(
    runs: Sequence[RunT],
    perform: Callable[[RunT, torch.device], None],
    devices: Sequence[str],
    jobs: int,
    progress: Progress = no_progress,
) -> list[Failure]:
    """Perform every run; one that is refused, or whose process dies, does not stop the others.

    Args:
        runs: The runs that are still to do.
        perform: Does one run and writes its result; with several jobs it must be picklable.
        devices: Shared out among the worker processes, round robin.
        jobs: Worker processes; with one, the runs are done in this process.
        progress: Called with the number of runs done and of all.

    Returns:
        The failures, in the order of the runs.
    """
    progress("runs", 0, len(runs))
    jobs = min(jobs, len(runs))
    # Workers share the threads of this process, or several would each use every processor.
    attempt = _Attempt(perform, tuple(devices), max(1, torch.get_num_threads() // jobs) if jobs > 1 else None)
    outcomes: Iterator[tuple[str, Failure | None]]
    outcomes = run_in_processes(attempt, runs, jobs, _died) if jobs > 1 else map(attempt, runs)
    failures: dict[str, Failure] = {}
    for number, (name, failure) in enumerate(outcomes, start=1):
        if failure is not None:
            failures[name] = failure
        progress("runs", number, len(runs))
    # By the order of the runs, not of their end, which differs from machine to machine.
    return [failures[run.name] for run in runs if run.name in failures]


@dataclass(frozen=True)
class _Attempt(Generic[RunT]):
    """Performs a run on the device of its worker process, and catches the errors that a user can act on."""

    perform: Callable[[RunT, torch.device], None]
    devices: tuple[str, ...]
    threads: int | None  # of torch in each worker; None leaves them

    def __call__(self, run: RunT) -> tuple[str, Failure | None]:
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        device = torch.device(self.devices[worker_number() % len(self.devices)])
        try:
            # cuDNN would else choose its kernels by trial, and two runs of one seed would differ.
            with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True):
                self.perform(run, device)
        except RadiogenError as error:
            return run.name, (run.name, error.reason, error.hint)
        return run.name, None


def _died(run: NamedRun) -> tuple[str, Failure]:
    reason = "a worker process died, perhaps of too little memory"
    return run.name, (run.name, reason, "take fewer --jobs; the same command goes on")


BENCHMARK, RUNS = "benchmark.json", "runs"
Existing = Literal["skip", "overwrite", "fail"]


def open_benchmark(out: Path, options: Mapping[str, Any], existing: Existing) -> Path:
    """Make the folder of a benchmark, or go on with one of the same options.

    Args:
        out: Its folder.
        options: Everything its numbers depend on; a folder with other options is refused.
        existing: Whether a benchmark that is there is continued (`skip`), overwritten or refused.

    Returns:
        The folder of its runs.

    Raises:
        OutputError: The folder holds something else, or a benchmark and `existing` is fail.
    """
    # As the file gives them back: tuples become lists, paths text.
    wanted = json.loads(json.dumps(options, default=str))
    if out.is_dir() and any(out.iterdir()):
        _check_folder(out, wanted, existing)
    # Half-written files of a benchmark that was killed.
    clear_drafts(out / RUNS)
    if out.is_dir():
        record_path(out).unlink(missing_ok=True)
    write_json(out / BENCHMARK, wanted)
    (out / RUNS).mkdir(exist_ok=True)
    return out / RUNS


def _check_folder(out: Path, wanted: dict[str, Any], existing: Existing) -> None:
    """Refuse a folder that cannot be gone on with; empty it with `overwrite`."""
    if not (out / BENCHMARK).is_file():
        raise OutputError(out, "holds something else", "choose another folder")
    if existing == "fail":
        raise OutputError(out, "holds a benchmark", "choose another folder or --existing overwrite")
    if existing == "overwrite":
        shutil.rmtree(out)
        return
    options = _read(out / BENCHMARK)
    if options != wanted:
        changed = ", ".join(name for name in wanted if options.get(name) != wanted[name])
        hint = "choose another folder or --existing overwrite"
        raise OutputError(out, f"holds a benchmark with another {changed}", hint)


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise OutputError(path, "cannot be read", "take --existing overwrite") from error
