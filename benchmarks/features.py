"""Cases an hour of extract-features on the CPU with the preset `small`, and what share is the network.

Run: PYTHONPATH=tests python benchmarks/features.py [--cases 4] [--repeats 5] [--threads 2]

Phantoms at the size of a clinical CT (512 x 512 x 100 is too slow to make; 320 x 320 x 120 with 1.1 x 1.1 x
2.5 mm is the default here) go through the whole of `measure_case`: reading, resampling, network, pooling,
signs. CPU time stands beside wall time, since a shared machine stretches the latter.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch
from tiny_cases import tiny_cases

from radiogen.features.case import measure_case
from radiogen.features.settings import FeatureOptions
from radiogen.io.cases import Case
from radiogen.model.folder import Model, ModelConfig
from radiogen.networks.raseg import build_raseg
from radiogen.phantoms.chest import ChestSize
from radiogen.runtime import keep_large_blocks
from radiogen.training.settings import load_preset

CLINICAL = ChestSize((320, 320, 120), (1.1, 1.1, 2.5))
WAYS = {
    "lesion and control (default)": FeatureOptions(),
    "lesion alone": FeatureOptions(outside=False),
    "with ring 2 to 10 mm": FeatureOptions(ring_mm=(2, 10)),
    "with both lungs": FeatureOptions(lungs=True),
}


def small_model() -> Model:
    settings = load_preset("small")
    network = build_raseg(settings.network, seed=0).eval()
    config = ModelConfig(
        preset="small",
        network=settings.network,
        preprocessing=settings.preprocessing,
        priors=settings.training.priors,
    )
    return Model(network, config, "benchmark", Path())


class NetworkTime:
    """CPU and wall seconds spent in the network's levels."""

    def __init__(self, model: Model) -> None:
        self.cpu = self.wall = 0.0
        inner = model.network.levels

        def timed(image: torch.Tensor, prior: torch.Tensor) -> dict[str, torch.Tensor]:
            cpu, wall = time.process_time(), time.perf_counter()
            found = inner(image, prior)
            self.cpu += time.process_time() - cpu
            self.wall += time.perf_counter() - wall
            return found

        model.network.levels = timed  # type: ignore[method-assign]


def measure(cases: list[Case], model: Model, options: FeatureOptions, spent: NetworkTime) -> list[float]:
    cpu, wall = time.process_time(), time.perf_counter()
    spent.cpu = spent.wall = 0.0
    for case in cases:
        measure_case(case, case.lesion_path, model, options, None)
    cpu, wall = (time.process_time() - cpu) / len(cases), (time.perf_counter() - wall) / len(cases)
    return [cpu, wall, spent.cpu / len(cases) / cpu, spent.wall / len(cases) / wall]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    print(f"memory kept: {keep_large_blocks()}; {given.threads} threads; medians of {given.repeats}")
    model = small_model()
    spent = NetworkTime(model)
    with tempfile.TemporaryDirectory() as folder:
        cases = tiny_cases(Path(folder), given.cases, size=CLINICAL)
        measure(cases[:1], model, FeatureOptions(), spent)
        rows: dict[str, list[list[float]]] = {name: [] for name in WAYS}
        for _ in range(given.repeats):  # interleaved, so that a busy minute hits all alike
            for name, options in WAYS.items():
                rows[name].append(measure(cases, model, options, spent))
    for name, found in rows.items():
        cpu, wall, share, wall_share = (statistics.median(values) for values in zip(*found, strict=True))
        print(
            f"{name}: {cpu:.2f} s CPU and {wall:.2f} s wall a case, {3600 / wall:.0f} cases an hour; "
            f"network {share:.0%} of the CPU time, {wall_share:.0%} of the wall time"
        )


if __name__ == "__main__":
    main()
