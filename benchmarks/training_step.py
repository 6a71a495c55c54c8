"""Time one training step and take its memory: a batch whole, in parts, and with activations computed twice.

    python benchmarks/training_step.py [--preset small] [--batch 2] [--repeats 5] [--threads 1]

The sides, in turn: `whole` (one batch), `parts` (training.accumulate, mini-batches of one), `twice`
(training.checkpoint_activations), `parts, twice` (both), and `torch dropout`, the whole batch with
nn.Dropout in the place of draws by sample. Processor and wall seconds of a step (medians), their ratio to
`whole`, and what a process of its own took at its peak beyond the network, its gradients and moments.
States threads; glibc keeps large blocks, as under the command.
"""

import argparse
import multiprocessing
import platform
import statistics
import time

import torch
from torch import nn

from radiogen.networks.blocks import SampleDropout
from radiogen.networks.raseg import build_raseg, weight_count
from radiogen.runtime import keep_large_blocks, peak_memory_mb
from radiogen.training.batches import MiniBatch
from radiogen.training.settings import load_preset
from radiogen.training.step import TrainingStep, make_optimizer

SIDES = {
    "whole": (False, ()),
    "parts": (True, ()),
    "twice": (False, ("training.checkpoint_activations=true",)),
    "parts, twice": (True, ("training.checkpoint_activations=true",)),
    "torch dropout": (False, ()),
}


class Side:
    """One way to take a step, with its network and patches."""

    def __init__(self, name: str, preset: str, batch: int) -> None:
        in_parts, overrides = SIDES[name]
        settings = load_preset(preset, overrides=overrides)
        network = build_raseg(settings.network, seed=0).train()
        if name == "torch dropout":
            for module in network.modules():
                if isinstance(module, SampleDropout):
                    module.__class__ = nn.Dropout
        optimizer = make_optimizer(network, settings.training)
        self.weights = weight_count(network)
        self.step = TrainingStep(network, optimizer, settings.training, 0, torch.device("cpu"))
        rng = torch.Generator().manual_seed(0)
        size = settings.preprocessing.size
        image = torch.rand(batch, settings.network.in_channels, *size, generator=rng)
        patches = (image, torch.ones(batch, 1, *size), (image[:, :1] > 0.9).float())
        cuts = [slice(n, n + 1) for n in range(batch)] if in_parts else [slice(0, batch)]
        draws = [(0, n) for n in range(batch)]
        self.batches = [
            MiniBatch((patches[0][cut], patches[1][cut], patches[2][cut]), draws[cut]) for cut in cuts
        ]

    def seconds(self) -> tuple[float, float]:
        """Wall and processor seconds of one step."""
        wall, processor = time.perf_counter(), time.process_time()
        self.step(self.batches, 0, 0)
        return time.perf_counter() - wall, time.process_time() - processor


def peak_mb(name: str, preset: str, batch: int, threads: int) -> float:
    """MiB beyond weights, gradients and moments at the peak of two steps; in a process of its own."""
    keep_large_blocks()
    torch.set_num_threads(threads)
    side = Side(name, preset, batch)
    before = peak_memory_mb()
    for _ in range(2):
        side.seconds()
    return peak_memory_mb() - before - 3 * 4 * side.weights / 2**20


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--preset", default="small")
    options.add_argument("--batch", type=int, default=2)
    options.add_argument("--repeats", type=int, default=5)
    options.add_argument("--threads", type=int, default=1)
    asked = options.parse_args()
    kept = keep_large_blocks()
    torch.set_num_threads(asked.threads)
    print(
        f"{asked.preset}, batch {asked.batch}, {asked.threads} threads, torch {torch.__version__}, ", end=""
    )
    print(f"{platform.machine()}, glibc keeps large blocks: {kept}")
    fresh = multiprocessing.get_context("spawn")
    peaks = {}
    for name in SIDES:  # first: a new process inherits the peak of this one
        with fresh.Pool(1) as pool:
            peaks[name] = pool.apply(peak_mb, (name, asked.preset, asked.batch, asked.threads))
    sides = {name: Side(name, asked.preset, asked.batch) for name in SIDES}
    took: dict[str, list[tuple[float, float]]] = {name: [] for name in SIDES}
    for repeat in range(-1, asked.repeats):
        for name, side in sides.items():
            seconds = side.seconds()
            if repeat >= 0:
                took[name].append(seconds)
    whole = statistics.median(processor for _, processor in took["whole"])
    print("side\twall s\tprocessor s\tratio\tpeak MiB")
    for name in SIDES:
        wall, processor = (statistics.median(column) for column in zip(*took[name], strict=True))
        print(f"{name}\t{wall:.2f}\t{processor:.2f}\t{processor / whole:.2f}\t{peaks[name]:.0f}")


if __name__ == "__main__":
    main()
