"""`radiogen cohort run` over made patients: workers, the pool against Dask, and what grows with the cohort.

    python benchmarks/cohort.py [--patients 100] [--broken 5] [--only PART ...] [--home FOLDER]

Makes a cohort of scans of which some are broken (a slice is missing), and takes it through
ingest, segment, extract-features and report with the shipped model. Each run starts from nothing. Parts:

    jobs   1 and 2 processes: cases an hour
    dask   a local Dask cluster of two workers, started before, against 2 processes
    few    a tenth of the patients with 1 process: seconds a case, against all of them
    again  the finished run once more, against a finished run of one patient: what 100 done cases cost

With --home what was made and measured stays, so that parts can run apart; a part that needs a run that is not
there yet makes it. Seconds a case are medians over the first and the last tenth of the cases, as the workers
wrote them down; MB is the largest size that any worker had reached by then; CPU seconds are of all processes,
for Dask with those of starting the cluster, which its wall seconds leave out. 100 patients take about 12
minutes on two quiet processors, no part more than 8.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from radiogen.model.folder import starter_model
from radiogen.phantoms.chest import ChestSize, make_chest
from radiogen.phantoms.cohort import make_phantoms
from radiogen.phantoms.dicom import MISSING_SLICE, write_patient
from radiogen.phantoms.traits import draw_traits

PARTS = {
    "jobs": ("1 job", "2 jobs"),
    "dask": ("2 jobs", "Dask, 2 workers"),
    "few": ("1 job", "1 job, few"),
    "again": ("2 jobs", "one patient", "again", "again, one patient"),
}
AGAIN = 3  # times that a finished run is run again; the median is told
STEPS = "ingest,segment,extract-features,report"


@dataclass(frozen=True)
class Bench:
    """Where everything lies, and how many patients there are."""

    home: Path
    patients: int
    broken: int

    def count(self, run: str) -> int:
        """Patients of a run."""
        if "one patient" in run:
            return 1
        return max(2, self.patients // 10) if "few" in run else self.patients

    def scans(self, run: str) -> Path:
        """The DICOM of the patients of a run; made if it is not there."""
        count = self.count(run)
        broken = self.broken if count == self.patients else 0
        folder = self.home / f"scans-{count}"
        if not (folder / "whole").is_file():
            dicom = make_phantoms(folder, count - broken, 0, ChestSize(), broken=False).dicom
            for number in range(count - broken + 1, count + 1):
                traits = draw_traits(0, number)
                write_patient(make_chest(traits, 0), traits, 0, dicom, MISSING_SLICE)
            (folder / "whole").touch()
        return folder / "dicom"

    def cohort(self, name: str, *options: str) -> float:
        """Run the command; wall seconds."""
        words = ["cohort", "run", self.scans(name), "-o", self.home / name, "--cohort", "phantoms", "--quiet"]
        words += ["--model", starter_model(), "--prior", "box", "--steps", STEPS, *options]
        began = time.perf_counter()
        command = [sys.executable, "-m", "radiogen.cli.main", *map(str, words)]
        code = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode
        if code not in (0, 3):
            raise SystemExit(f"{name} ended with {code}: {' '.join(command)}")
        return time.perf_counter() - began

    def entries(self, name: str) -> list[dict[str, Any]]:
        """What the workers wrote down of the cases that went through, in the order in which they ended."""
        folder = self.home / name / ".cohort" / "cases"
        files = sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
        return [
            entry for entry in (json.loads(path.read_text()) for path in files) if entry["outcome"] == "done"
        ]


@contextmanager
def workers(home: Path, count: int) -> Iterator[str]:
    """A scheduler and workers, as they are started by hand; its address."""
    place = home / "scheduler.json"
    place.unlink(missing_ok=True)
    common = ["--scheduler-file", str(place), "--no-dashboard"]
    kinds = [["dask_scheduler", *common, "--host", "127.0.0.1", "--port", "0"]]
    kinds += [["dask_worker", *common, "--nthreads", "1", "--memory-limit", "0"]] * count
    quiet, started = subprocess.DEVNULL, []
    one_arena = {**os.environ, "MALLOC_ARENA_MAX": "1"}  # docs/cluster.md
    for kind, *words in kinds:
        command = [sys.executable, "-m", f"distributed.cli.{kind}", *words]
        started.append(subprocess.Popen(command, stdout=quiet, stderr=quiet, cwd=home, env=one_arena))
    try:
        from distributed import Client

        while not place.is_file():
            time.sleep(0.1)
        address = json.loads(place.read_text())["address"]
        with Client(address, set_as_default=False) as client:
            client.wait_for_workers(count, timeout=60)
        yield str(address)
    finally:
        for process in reversed(started):
            process.terminate()
            process.wait(20)


def measure(bench: Bench, run: str) -> float:
    """Wall seconds of one of the runs of `PARTS`."""
    if run == "Dask, 2 workers":
        with workers(bench.home, 2) as address:
            return bench.cohort(run, "--scheduler", address, "--jobs", "2")  # of the head, for the page
    ways: dict[str, Callable[[], float]] = {
        "1 job": lambda: bench.cohort("1 job"),
        "2 jobs": lambda: bench.cohort("2 jobs", "--jobs", "2"),
        "1 job, few": lambda: bench.cohort("1 job, few"),
        "one patient": lambda: bench.cohort("one patient"),
        "again": lambda: statistics.median(bench.cohort("2 jobs") for _ in range(AGAIN)),
        "again, one patient": lambda: statistics.median(bench.cohort("one patient") for _ in range(AGAIN)),
    }
    return ways[run]()


def processor_seconds() -> float:
    """Of all processes that were started here and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def row(bench: Bench, run: str, seconds: float, cpu: float) -> str:
    """One row of the table."""
    cells = [run, f"{seconds:.1f}", f"{cpu:.1f}"]
    if not run.startswith("again"):
        entries = bench.entries(run)
        tenth = max(2, len(entries) // 10)
        ends = entries[:tenth], entries[-tenth:]
        took = [statistics.median(sum(each["seconds"].values()) for each in part) for part in ends]
        memory = [max(each["peak_mb"] for each in part) for part in ends]
        cells += [
            f"{3600 * bench.count(run) / seconds:.0f}",
            *(f"{s:.2f}" for s in took),
            *(f"{m:.0f}" for m in memory),
        ]
    return f"| {' | '.join([*cells, *[''] * (8 - len(cells))])} |"


def tell(bench: Bench, walls: dict[str, float], cpus: dict[str, float]) -> None:
    """Print the table, and the ratios that the parts are about."""
    print("| run | s | CPU s | cases an hour | s a case, first | last | MB, first | last |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for run, seconds in walls.items():
        print(row(bench, run, seconds, cpus[run]))

    def seconds_a_case(run: str) -> float:
        return float(statistics.median(sum(each["seconds"].values()) for each in bench.entries(run)))

    if {"1 job", "2 jobs"} <= walls.keys():
        print(f"2 jobs are {walls['1 job'] / walls['2 jobs']:.2f} times as fast as 1")
    if {"2 jobs", "Dask, 2 workers"} <= walls.keys():
        share = walls["Dask, 2 workers"] / walls["2 jobs"]
        print(f"Dask takes {100 * (share - 1):+.1f} % more time than 2 jobs")
    if {"1 job", "1 job, few"} <= walls.keys():
        many, few = seconds_a_case("1 job"), seconds_a_case("1 job, few")
        print(
            f"seconds a case, median: {few:.2f} of {bench.count('few')}, {many:.2f} of {bench.patients} cases"
        )
    if {"again", "again, one patient"} <= walls.keys():
        further = (walls["again"] - walls["again, one patient"]) / (bench.patients - 1)
        print(f"a finished run again: {100 * further:.2f} s for 100 further cases")
    if "1 job" in walls:
        steps = {step: statistics.median(each["seconds"][step] for each in bench.entries("1 job"))
                 for step in STEPS.split(",")[:3]}  # fmt: skip
        alone = walls["1 job"] - sum(sum(each["seconds"].values()) for each in bench.entries("1 job"))
        print(f"of a case, 1 job: {', '.join(f'{step} {s:.2f} s' for step, s in steps.items())};"
              f" beside the cases {alone:.1f} s")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--patients", type=int, default=100)
    parser.add_argument("--broken", type=int, default=5)
    parser.add_argument("--only", choices=PARTS, action="append", help="a part; may be given several times")
    parser.add_argument("--home", type=Path, help="a folder that stays; else a temporary one")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        home = (asked.home or Path(temporary)).resolve()
        home.mkdir(parents=True, exist_ok=True)
        bench = Bench(home, asked.patients, asked.broken)
        known = home / f"measured-{asked.patients}.json"
        walls, cpus = json.loads(known.read_text()) if known.is_file() else ({}, {})
        for part in asked.only or PARTS:
            for run in (run for run in PARTS[part] if run not in walls):
                bench.scans(run)  # not part of the time
                before = processor_seconds()
                walls[run] = measure(bench, run)
                cpus[run] = (processor_seconds() - before) / (AGAIN if run.startswith("again") else 1)
                known.write_text(json.dumps((walls, cpus)))
                print(f"{run}: {walls[run]:.1f} s", file=sys.stderr, flush=True)
        tell(bench, walls, cpus)


if __name__ == "__main__":
    main()
