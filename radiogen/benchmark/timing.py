"""How long a network takes on this machine, for a forward pass and for a training step."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

import torch
from torch import Tensor

from radiogen.training.losses import SegmentationBatch, segmentation_loss
from radiogen.networks.raseg import RASeg, RASegSettings
from radiogen.runtime import Tick, no_tick

REPEATS = 5


@dataclass
class Seconds:
    """What each round took."""

    forward: list[float] = field(default_factory=list)
    step: list[float] = field(default_factory=list)

    @property
    def forward_ms(self) -> float:
        """Median of the forward passes, in milliseconds."""
        return round(1000 * median(self.forward), 2)

    @property
    def step_ms(self) -> float:
        """Median of the training steps, in milliseconds."""
        return round(1000 * median(self.step), 2)


def time_networks(
    networks: Mapping[str, RASeg],
    window: Sequence[int],
    batch_size: int,
    device: torch.device,
    repeats: int = REPEATS,
    tick: Tick = no_tick,
) -> dict[str, Seconds]:
    """Time networks in turn, so that whatever else the machine does falls on all of them alike.

    Args:
        networks: RA-Seg by name; their weights are moved by the training steps.
        window: Size (D, H, W) of the window of a forward pass in evaluation mode, one sample.
        batch_size: Samples in a training step: forward, backward, AdamW.
        device: Where.
        repeats: Rounds, after one that is not timed.
        tick: Told of the rounds.
    """
    passes = {name: _passes(network, window, batch_size, device) for name, network in networks.items()}
    seconds = {name: Seconds() for name in networks}
    for repeat in range(-1, repeats):
        tick("measure", repeat + 1, repeats + 1)
        for name, (forward, step) in passes.items():
            took = _seconds(forward, device), _seconds(step, device)
            if repeat >= 0:
                seconds[name].forward.append(took[0])
                seconds[name].step.append(took[1])
    tick("measure", repeats + 1, repeats + 1)
    return seconds


def example_inputs(settings: RASegSettings, window: Sequence[int], count: int = 1) -> list[Tensor]:
    """Random images (B, C, D, H, W) and priors of ones (B, 1, D, H, W)."""
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(count, settings.in_channels, *window, generator=generator)
    return [image, torch.ones(count, 1, *window)]


def _passes(
    network: RASeg, window: Sequence[int], batch_size: int, device: torch.device
) -> tuple[Callable[[], None], Callable[[], None]]:
    network.to(device)
    optimizer = torch.optim.AdamW(network.parameters(), 1e-6)
    loss = segmentation_loss()
    one, many = (
        [tensor.to(device) for tensor in example_inputs(network.settings, window, count)]
        for count in (1, batch_size)
    )
    batch: SegmentationBatch = (*many, (many[0][:, :1] > 0.9).float())

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
