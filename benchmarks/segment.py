"""Seconds of `radiogen segment` on one CT, and where they go.

Run: python benchmarks/segment.py CASE --model FOLDER [--priors box auto] [--threads 1] [--repeats 5]

CASE is a case folder with an outline, such as the 4D-Lung one (99 slices) that `radiogen ingest` makes. Each
run is a process of its own, the priors take turns. Medians are told: wall and CPU seconds of the whole, and
the share of the wall time of each part. `of the peak` is what the convolutions of the network reach of the
multiplications that this machine does in a product of large matrices. Large blocks of memory are kept, as the
command does.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

BEGAN = time.perf_counter()
PARTS = ("imports", "loading", "reading", "resampling", "network", "laying back", "writing")


def watch(place: Any, name: str, spent: dict[str, float], part: str) -> None:
    """Let a function add the seconds that it takes to a part."""
    inner: Callable[..., Any] = getattr(place, name)

    def timed(*given: Any, **named: Any) -> Any:
        began = time.perf_counter()
        try:
            return inner(*given, **named)
        finally:
            spent[part] = spent.get(part, 0.0) + time.perf_counter() - began

    setattr(place, name, timed)


def once(case: Path, out: Path, model: Path | None, prior: str, threads: int) -> dict[str, float]:
    """One run in this process: seconds a part, multiplications of the network, peak of the machine."""
    import torch

    from radiogen.io.cases import Case
    from radiogen.model.folder import load_models, starter_model
    from radiogen.pruning.costs import count_macs
    from radiogen.runtime import keep_large_blocks, peak_memory_mb
    from radiogen.segmentation import segment as segment_case
    from radiogen.segmentation import volume as segmentation
    from radiogen.segmentation.inference import Inference
    from radiogen.segmentation.lesion_map import LesionMap
    from radiogen.segmentation.segment import SegmentOptions, segment

    torch.set_num_threads(threads)
    keep_large_blocks()
    spent = {"imports": time.perf_counter() - BEGAN}
    watch(Case, "ct", spent, "reading")
    watch(Case, "lungs", spent, "reading")
    watch(segment_case, "_write", spent, "writing")
    watch(segmentation, "to_network_grid", spent, "resampling")
    watch(LesionMap, "add", spent, "laying back")
    began = time.perf_counter()
    loaded = load_models([model or starter_model()], torch.device("cpu"))
    spent["loading"] = time.perf_counter() - began
    windows = [0]
    make = Inference._make_calls

    def make_watched(self: Inference) -> None:
        make(self)
        watch(self, "_call", spent, "network")
        inner = self._call

        def counted(image: torch.Tensor, prior: torch.Tensor) -> torch.Tensor:
            windows[0] += len(image)
            return inner(image, prior)

        self._call = counted

    Inference._make_calls = make_watched  # type: ignore[method-assign]
    report = segment(case, out, loaded, SegmentOptions(prior=prior, existing="overwrite"))  # type: ignore[arg-type]
    whole = time.perf_counter() - BEGAN
    cpu = time.process_time()
    seen = loaded.config.preprocessing
    shape = (1, len(seen.windows), *seen.size)
    macs = count_macs(loaded.members[0].network, [torch.zeros(shape), torch.zeros(1, 1, *seen.size)])
    work = {"windows": windows[0], "gflop": 2e-9 * macs * windows[0], "peak_gflop_s": matmul_peak(torch)}
    lesions = sum(len(done.lesions) for done in report.done)
    return {**spent, **work, "wall": whole, "cpu": cpu, "lesions": lesions, "memory_mb": peak_memory_mb()}


def matmul_peak(torch: Any, size: int = 2048) -> float:
    """GFLOP/s of a product of two large matrices, the best of five."""
    a = torch.rand(size, size)
    best = float("inf")
    for _ in range(5):
        began = time.perf_counter()
        a @ a
        best = min(best, time.perf_counter() - began)
    return float(2e-9 * size**3 / best)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("case", type=Path)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--priors", nargs="+", default=["box", "auto"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--once", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.once:
        print(json.dumps(once(given.case, given.out, given.model, given.once, given.threads)))
        return
    runs: dict[str, list[dict[str, float]]] = {prior: [] for prior in given.priors}
    words = [sys.executable, __file__, *sys.argv[1:]]
    where = {**os.environ, "OMP_NUM_THREADS": str(given.threads)}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(given.repeats):
            for prior, rows in runs.items():
                call = [*words, "--once", prior, "--out", folder]
                done = subprocess.run(call, check=True, stdout=subprocess.PIPE, text=True, env=where)
                rows.append(json.loads(done.stdout.splitlines()[-1]))
    print(f"{given.threads} threads, medians of {given.repeats}")
    for prior, rows in runs.items():
        middle = {name: statistics.median(row[name] for row in rows) for name in rows[0]}
        rest = middle["wall"] - sum(middle[part] for part in PARTS)
        shares = ", ".join(f"{part} {middle[part] / middle['wall']:.0%}" for part in PARTS)
        reached = middle["gflop"] / middle["network"] / middle["peak_gflop_s"]
        peak = f"{reached:.0%} of the peak of {middle['peak_gflop_s']:.0f} GFLOP/s"
        print(
            f"{prior}: {middle['wall']:.1f} s wall, {middle['cpu']:.1f} s CPU, {middle['memory_mb']:.0f} MiB"
        )
        print(f"  {shares}, rest {rest / middle['wall']:.0%}")
        print(f"  {middle['windows']:.0f} windows, {middle['gflop']:.0f} GFLOP, {peak}")
        print(f"  {middle['lesions']:.0f} lesions")


if __name__ == "__main__":
    main()
