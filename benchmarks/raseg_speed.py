"""Time RA-Seg `paper` against a plain reading of the published network (benchmarks/plain_raseg.py).

    python benchmarks/raseg_speed.py [--sizes 96 128] [--step-sizes 96] [--threads 1 2] [--repeats 5]
                                     [--engines openvino] [--tables forward recurrence step]

Each side works in a process of its own, in turn with the others; medians over the repeats after two rounds
that do not count. "plain, as it comes" leaves glibc as it is, as a user would have run it; the other sides
keep large blocks (runtime.keep_large_blocks), as the commands of radiogen do. Ratios are processor seconds
(wall seconds in brackets) of a plain side to those of the row; on a busy machine the former say more. Faults
are minor page faults of one repeat; MiB is the peak beyond what the process held before the network was made,
weights included; tensors is the MiB of new tensors that were there at once, whatever the heap made of them;
peak share is the work (2 operations a MAC) against a matrix product of 2048 x 2048, by processor seconds.
Equal probabilities are checked first. Prints a Markdown table for each piece of work.
"""

import argparse
import platform
from collections.abc import Callable

import torch
from plain_raseg import WIDTHS, PlainRASeg
from side_by_side import Measured, Side, gflops, matrix_product, side_by_side
from torch import Tensor, nn

from radiogen.model.importing import load_published
from radiogen.networks.raseg import RASeg, RASegSettings, build_raseg
from radiogen.pruning.costs import count_macs
from radiogen.segmentation.sliding import network_call

CPU = torch.device("cpu")
AS_IT_COMES, KEPT, OURS = "plain, as it comes", "plain, blocks kept", "radiogen"


def inputs(size: int) -> tuple[Tensor, Tensor]:
    """An image and a box as prior."""
    image = torch.rand(1, 1, size, size, size, generator=torch.Generator().manual_seed(0))
    prior = torch.zeros_like(image)
    prior[..., size // 4 : size // 2, size // 4 : size // 2, size // 4 : size // 2] = 1.0
    return image, prior


def plain() -> PlainRASeg:
    """The plain reading; the same weights every time."""
    torch.manual_seed(0)
    return PlainRASeg()


def network(ours: bool) -> nn.Module:
    """One of the two."""
    return build_raseg(RASegSettings(), seed=0) if ours else plain()


def forward(ours: bool, size: int, engine: str) -> Callable[[], object]:
    """One window through the network."""
    call, given = network_call(network(ours).eval(), CPU, engine), inputs(size)  # type: ignore[arg-type]
    return lambda: call(*given)


def recurrence(ours: bool, size: int, _engine: str) -> Callable[[], object]:
    """The three ConvLSTM layers."""
    whole = network(ours).eval()
    part = whole.get_submodule("recurrence" if ours else "bottom")
    x = torch.rand(1, WIDTHS[-1], *[size // 16] * 3)

    def once() -> None:
        with torch.inference_mode():
            part(x)

    return once


def step(ours: bool, size: int, _engine: str) -> Callable[[], object]:
    """A step of training: forward, cross-entropy, backward, AdamW."""
    whole, given = network(ours).train(), inputs(size)
    optimizer = torch.optim.AdamW(whole.parameters(), lr=1e-4)

    def once() -> None:
        optimizer.zero_grad(set_to_none=True)
        nn.functional.binary_cross_entropy_with_logits(whole(*given), given[1]).backward()
        optimizer.step()

    return once


WORK = {"forward": forward, "recurrence": recurrence, "step": step}


def gmacs(work: str, size: int) -> float:
    """10^9 MACs of a piece of work; gradients take twice those of the forward pass."""
    with torch.device("meta"):
        whole = RASeg(RASegSettings())
        if work == "recurrence":
            return count_macs(whole.recurrence, [torch.zeros(1, WIDTHS[-1], *[size // 16] * 3)]) / 1e9
        given = [torch.zeros(1, 1, size, size, size)] * 2
        return count_macs(whole, given) * (3 if work == "step" else 1) / 1e9


def check_equal(engines: list[str]) -> None:
    """Say how far apart probabilities are."""
    given = inputs(32)
    wanted = torch.sigmoid(network_call(plain().eval(), CPU)(*given))
    for engine in ("torch", *engines):
        call = network_call(load_published(plain().state_dict()).eval(), CPU, engine)  # type: ignore[arg-type]
        apart = (torch.sigmoid(call(*given)) - wanted).abs().max().item()
        print(f"{engine}: probabilities differ from the plain reading's by at most {apart:.1e} (32 cubed)")


def print_table(work: str, size: int, threads: int, found: dict[str, Measured]) -> None:
    """One Markdown table."""
    peak, by_cpu = gflops(found.pop("matrix product"))
    cost = gmacs(work, size)
    print(f"\n{work} at {size} cubed, {threads} threads, {cost:.1f} GMAC; "
          f"matrix product {peak:.0f} GFLOP/s (wall), {by_cpu:.0f} (processor)\n")  # fmt: skip
    titles = "side|wall s|processor s|against as it comes|against blocks kept"
    titles += "|faults|MiB|tensors|peak share|first s"
    print(f"| {titles.replace('|', ' | ')} |\n|{' --- |' * (titles.count('|') + 1)}")
    for name, side in found.items():
        ratios = [
            f"{found[base].cpu / side.cpu:.2f} ({found[base].wall / side.wall:.2f})"
            for base in (AS_IT_COMES, KEPT)
        ]
        share = 2 * cost / side.cpu / by_cpu
        print(f"| {name} | {side.wall:.2f} | {side.cpu:.2f} | {' | '.join(ratios)} | {max(side.faults)} "
              f"| {side.peak_mb:.0f} | {side.tensors_mb:.0f} | {share:.0%} | {side.first_s:.1f} |",
              flush=True)  # fmt: skip


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="*", default=[96, 128])
    parser.add_argument("--step-sizes", type=int, nargs="*", default=[96])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--engines", nargs="*", choices=["openvino", "compile"], default=["openvino"])
    parser.add_argument("--tables", nargs="+", choices=list(WORK), default=list(WORK))
    asked = parser.parse_args()
    print(f"torch {torch.__version__}, {platform.machine()}, medians of {asked.repeats}")
    check_equal(asked.engines)
    for threads in asked.threads:
        for work in asked.tables:
            for size in asked.step_sizes if work == "step" else asked.sizes:
                make = WORK[work]
                sides = [
                    Side("matrix product", matrix_product),
                    Side(AS_IT_COMES, make, (False, size, "torch"), keeps_blocks=False),
                    Side(KEPT, make, (False, size, "torch")),
                    Side(OURS, make, (True, size, "torch")),
                ]
                if work == "forward":
                    sides += [Side(f"{OURS}, {name}", make, (True, size, name)) for name in asked.engines]
                print_table(work, size, threads, side_by_side(sides, threads, asked.repeats))


if __name__ == "__main__":
    main()
