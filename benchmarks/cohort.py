"""Time `cohort run` over made patients: workers, pool against Dask, memory and time from first to last.

    python benchmarks/cohort.py [--patients 100] [--broken 5] [--spacing 3,3,5] [--part NAME]

Makes a cohort of scans of which some are broken (a slice is taken away), trains a tiny network for a second,
and runs ingest, segment and extract-features in turn with 1 and 2 processes and on a local Dask cluster of
two workers, each from the start. Then the finished run once more. Says cases an hour, their ratios, seconds
and peak memory of the workers over the first and the last tenth of their cases. Parts beside the pool: dask,
again.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from radiogen.engines.presets import load_preset
from radiogen.engines.train import TrainOptions, train
from radiogen.phantoms.cases import tiny_cases
from radiogen.phantoms.chest import ChestSize
from radiogen.phantoms.cohort import make_phantoms

QUICK = (
    *("preprocessing.spacing_mm=[3, 3, 5]", "preprocessing.size=[32, 48, 48]"),
    *("training.epochs=1", "training.patches_per_case=1"),
)


def prepare(home: Path, patients: int, broken: int, spacing: tuple[float, ...]) -> None:
    cohort = make_phantoms(home / "scans", patients, 0, ChestSize.of_spacing(spacing), broken=False)
    for folder in sorted(cohort.dicom.iterdir())[-broken:] if broken else ():
        slices = sorted(path for path in folder.rglob("*.dcm") if path.stat().st_size < 10**6)
        slices[len(slices) // 2].unlink()
    tiny_cases(home / "few", 2)
    settings = load_preset("small", overrides=list(QUICK))
    train(home / "few", home / "model", settings, TrainOptions(preset="small"), torch.device("cpu"))
    config = home / "model" / "config.json"  # a network of one epoch is sure of nothing
    config.write_text(json.dumps({**json.loads(config.read_text()), "threshold": 0.01}))


def run(home: Path, name: str, *options: str) -> float:
    words = ["-m", "radiogen.cli.main", "cohort", "run", home / "scans" / "dicom", "-o", home / name]
    words += ["--cohort", "phantoms", "--model", home / "model", "--prior", "box", "--quiet", *options]
    words += ["--steps", "ingest,segment,extract-features"]
    began = time.perf_counter()
    code = subprocess.run(
        [sys.executable, *map(str, words)], stdout=subprocess.DEVNULL, check=False
    ).returncode
    if code not in (0, 3):
        raise SystemExit(f"{name} ended with {code}")
    return time.perf_counter() - began


def told(home: Path, name: str, seconds: float, patients: int) -> None:
    """One line: cases an hour; time a case and memory of a worker, first tenth against last tenth."""
    files = sorted(
        (home / name / ".cohort" / "cases").glob("*.json"), key=lambda path: path.stat().st_mtime_ns
    )
    entries = [entry for entry in (json.loads(path.read_text()) for path in files) if entry["seconds"]]
    entries = [entry for entry in entries if entry["outcome"] == "done"]
    tenth = max(2, len(entries) // 10)
    first, last = entries[2 : 2 + tenth], entries[-tenth:]
    rate = 3600 * patients / seconds
    took = [statistics.median(sum(each["seconds"].values()) for each in part) for part in (first, last)]
    memory = [max(each["peak_mb"] for each in part) for part in (first, last)]
    print(f"{name:8s} {seconds:7.1f} s  {rate:7.0f} cases an hour  s a case {took[0]:.2f} -> {took[1]:.2f}"
          f"  peak MB {memory[0]:.0f} -> {memory[1]:.0f}")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--patients", type=int, default=100)
    parser.add_argument("--broken", type=int, default=5)
    parser.add_argument("--spacing", default="3,3,5")
    parser.add_argument("--part", choices=("dask", "again"), action="append")
    asked = parser.parse_args()
    parts = asked.part or ["dask", "again"]
    with tempfile.TemporaryDirectory() as place:
        home = Path(place)
        prepare(home, asked.patients, asked.broken, tuple(map(float, asked.spacing.split(","))))
        walls = {"1 job": run(home, "1 job"), "2 jobs": run(home, "2 jobs", "--jobs", "2")}
        if "dask" in parts:
            from distributed import LocalCluster

            began = time.perf_counter()
            with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
                run(home, "dask", "--scheduler", cluster.scheduler_address)
                walls["dask"] = time.perf_counter() - began
        for name, seconds in walls.items():
            told(home, name, seconds, asked.patients)
        print(f"2 jobs against 1: {walls['1 job'] / walls['2 jobs']:.2f} times as fast")
        if "dask" in walls:
            print(f"Dask against 2 jobs: {walls['dask'] / walls['2 jobs']:.2f} times as long")
        if "again" in parts:
            empty = time.perf_counter()
            start = "import radiogen.cohorts.run"
            subprocess.run([sys.executable, "-c", start], check=True)
            empty = time.perf_counter() - empty
            print(f"again {run(home, '2 jobs', '--jobs', '2'):.1f} s, of which start-up {empty:.1f} s")


if __name__ == "__main__":
    main()
