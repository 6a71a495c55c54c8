"""What a network costs on this machine: MACs, time and memory of a forward pass and of a training step."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

import torch
from torch import Tensor

from radiogen.engines.benchmark.live_memory import peak_tensor_mb
from radiogen.engines.losses import SegmentationBatch, segmentation_loss
from radiogen.networks.raseg import RASeg
from radiogen.pruning.macs import count_macs
from radiogen.runtime import Tick, no_tick

REPEATS = 5


@dataclass(frozen=True)
class Cost:
    """Times are medians over the repeats; memory is that of the tensors made on the way, in MiB."""

    macs: int  # as the machine computes them, zeros included
    forward_ms: float
    step_ms: float
    forward_mb: float
    step_mb: float  # with gradients, without weights and the optimiser's moments


@dataclass
class _Times:
    forward: list[float] = field(default_factory=list)
    step: list[float] = field(default_factory=list)


def measure_costs(
    networks: Mapping[str, RASeg],
    window: Sequence[int],
    batch_size: int,
    device: torch.device,
    repeats: int = REPEATS,
    tick: Tick = no_tick,
) -> dict[str, Cost]:
    """Measure networks in turn, so that whatever else the machine does falls on all of them alike.

    Args:
        networks: RA-Seg by name; their weights are moved by the training steps.
        window: Size (D, H, W) of the window of a forward pass in evaluation mode, one sample.
        batch_size: Samples in a training step: forward, backward, AdamW.
        device: Where.
        repeats: Rounds, after one that tells the memory and is not timed.
        tick: Told of the rounds.
    """
    passes = {name: _passes(network, window, batch_size, device) for name, network in networks.items()}
    for both in passes.values():
        for call in both:
            call()
    memory = {name: [peak_tensor_mb(call) for call in both] for name, both in passes.items()}
    times = {name: _Times() for name in networks}
    for repeat in range(repeats):
        tick("measure", repeat, repeats)
        for name, (forward, step) in passes.items():
            times[name].forward.append(_seconds(forward, device))
            times[name].step.append(_seconds(step, device))
    tick("measure", repeats, repeats)
    return {
        name: Cost(
            macs=count_macs(network, _inputs(network, window, 1, device)),
            forward_ms=round(1000 * median(times[name].forward), 2),
            step_ms=round(1000 * median(times[name].step), 2),
            forward_mb=memory[name][0],
            step_mb=memory[name][1],
        )
        for name, network in networks.items()
    }


def _inputs(network: RASeg, window: Sequence[int], count: int, device: torch.device) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(count, network.settings.in_channels, *window, generator=generator)
    return [image.to(device), torch.ones(count, 1, *window, device=device)]


def _passes(
    network: RASeg, window: Sequence[int], batch_size: int, device: torch.device
) -> tuple[Callable[[], None], Callable[[], None]]:
    network.to(device)
    optimizer = torch.optim.AdamW(network.parameters(), 1e-6)
    loss = segmentation_loss()
    one, many = (_inputs(network, window, count, device) for count in (1, batch_size))
    target = (many[0][:, :1] > 0.9).float()
    batch: SegmentationBatch = (*many, target)

    def forward() -> None:
        network.eval()
        with torch.inference_mode():
            network(*one)

    def step() -> None:
        network.train()
        optimizer.zero_grad(set_to_none=True)
        loss(network, batch).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return forward, step


def _seconds(call: Callable[[], None], device: torch.device) -> float:
    _wait(device)
    started = time.perf_counter()
    call()
    _wait(device)
    return time.perf_counter() - started


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
