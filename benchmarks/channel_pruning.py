"""Time RA-Seg with all its channels against what `radiogen prune --structure channel` leaves of it.

    python benchmarks/channel_pruning.py [--preset paper] [--size 96] [--keep 0.5 0.3] [--repeats 5]
                                         [--threads 1] [--small-blocks]

For each network one forward pass of one patch: seconds (wall and processor, medians over the repeats, the
networks in turn), the ratio of the dense network's wall seconds to its own, MACs, weights, the estimate of
the activations' memory, and the memory that a process of its own really took beyond what it held before the
pass. States threads and whether glibc keeps large blocks.
"""

import argparse
import multiprocessing
import platform
import statistics
import time
from functools import partial

import torch
from torch import Tensor

from radiogen.networks.raseg import RASeg, RASegSettings, build_raseg
from radiogen.pruning.channel_choice import ChannelSettings
from radiogen.pruning.channel_pruning import prune_channels
from radiogen.pruning.costs import measure_cost
from radiogen.pruning.settings import CriterionSettings
from radiogen.runtime import keep_large_blocks, peak_memory_mb
from radiogen.training.raseg_channels import raseg_channels
from radiogen.training.settings import load_preset
from radiogen.training.step import segmentation_loss


def patch(settings: RASegSettings, size: int) -> list[Tensor]:
    """An image and a prior; which values they have does not matter for the time."""
    rng = torch.Generator().manual_seed(0)
    return [torch.rand(1, n, size, size, size, generator=rng) for n in (settings.in_channels, 1)]


def narrowed(settings: RASegSettings, share: float) -> RASeg:
    """RA-Seg with a share of its channels; all layers alike, so that the criterion decides no width."""
    network = build_raseg(settings, seed=0)
    batch = (*patch(settings, 32), torch.ones(1, 1, 32, 32, 32))
    done = prune_channels(
        network,
        [batch],
        segmentation_loss(),
        raseg_channels(network),
        ChannelSettings(share=share),
        CriterionSettings(criterion="magnitude"),
        torch.Generator().manual_seed(0),
    )
    smaller = done.network
    if not isinstance(smaller, RASeg):
        raise TypeError(type(smaller))
    return smaller


def forward(network: RASeg, inputs: list[Tensor]) -> tuple[float, float]:
    """Wall and processor seconds of one pass."""
    wall, processor = time.perf_counter(), time.process_time()
    with torch.no_grad():
        network(*inputs)
    return time.perf_counter() - wall, time.process_time() - processor


def taken_mb(settings: RASegSettings, size: int, threads: int, keep: bool) -> float:
    """MiB that a pass takes beyond what the process held before it; run in a process of its own."""
    torch.set_num_threads(threads)
    if keep:
        keep_large_blocks()
    network, inputs = build_raseg(settings, seed=0).eval(), patch(settings, size)
    before = peak_memory_mb()
    forward(network, inputs)
    return peak_memory_mb() - before


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="paper")
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--keep", type=float, nargs="+", default=[0.5, 0.3])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--small-blocks", action="store_true", help="leave glibc as it is")
    asked = parser.parse_args()
    context = multiprocessing.get_context("forkserver")
    context.Pool(1).terminate()  # starts the server while this process is small: children begin at its size
    torch.set_num_threads(asked.threads)
    kept = not asked.small_blocks and keep_large_blocks()
    print(f"torch {torch.__version__}, {platform.machine()}, {asked.threads} threads, blocks kept: {kept}")
    print(f"{asked.preset} at {asked.size} cubed, medians of {asked.repeats}")
    settings = load_preset(asked.preset).network
    networks = {"dense": build_raseg(settings, seed=0)}
    networks |= {f"keep {share:g}": narrowed(settings, share) for share in asked.keep}
    inputs = patch(settings, asked.size)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in networks}
    for network in networks.values():
        forward(network.eval(), inputs)
    for _ in range(asked.repeats):
        for name, network in networks.items():
            times[name].append(forward(network, inputs))
    dense = statistics.median(wall for wall, _ in times["dense"])
    with context.Pool(1, maxtasksperchild=1) as pool:
        for name, network in networks.items():
            wall, processor = (statistics.median(column) for column in zip(*times[name], strict=True))
            cost = measure_cost(partial(RASeg, network.settings), inputs)
            mb = pool.apply(taken_mb, (network.settings, asked.size, asked.threads, kept))
            print(f"{name:<10} wall {wall:6.2f} s  processor {processor:6.2f} s  {dense / wall:5.2f}x  "
                  f"{cost.macs / 1e9:6.2f} GMAC  {cost.weights / 1e6:6.2f} M weights  "
                  f"estimated {cost.inference_mb:5.0f} MiB, taken {mb:5.0f} MiB")  # fmt: skip


if __name__ == "__main__":
    main()
