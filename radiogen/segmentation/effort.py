"""How long the network will look and how much memory it takes, and what to do when that is too much."""

import copy
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from radiogen.pruning.prunable import measure_cost

SIZE_STEP, SMALLEST = 16, 32  # what RA-Seg takes
COUNTED_TO_TAKEN = 2.0  # memory taken by a forward pass / bytes counted from shapes (docs/decisions/0027)
GENEROUS_BYTES = 2048  # a voxel of the window; the presets take 400 to 900
WORTH_SAYING_S = 60.0


@dataclass(frozen=True)
class Effort:
    """What one case will take, said before the work."""

    windows: int
    size: tuple[int, ...]
    looks: int  # at each window: networks times flips
    seconds: float
    memory_mb: float

    @property
    def is_long(self) -> bool:
        """Whether somebody who waits wants to know."""
        return self.seconds > WORTH_SAYING_S

    def __str__(self) -> str:
        """
        >>> print(Effort(210, (48, 64, 64), 8, 251.0, 1600.0))
        about 4 min and 1.6 GB: 210 windows of 48 x 64 x 64, each looked at 8 times
        """
        long = f"{self.seconds / 60:.0f} min" if self.is_long else f"{self.seconds:.0f} s"
        looks = f", each looked at {self.looks} times" if self.looks > 1 else ""
        size = " x ".join(map(str, self.size))
        return f"about {long} and {self.memory_mb / 1000:.1f} GB: {self.windows} windows of {size}{looks}"


class Pace:
    """Seconds that one batch of windows takes: those of the second one, since the first warms up."""

    def __init__(self, device: torch.device) -> None:
        self.seconds: float | None = None
        self._device, self._calls = device, 0

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Round the work on one batch."""
        began = time.perf_counter()
        yield
        self._calls += 1
        if self._calls <= 2 and self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        if self._calls == 2:
            self.seconds = time.perf_counter() - began


def generous_memory_mb(size: Sequence[int], batch: int) -> float:
    """More MiB than any preset takes for a window; where that much is free, nothing need be counted."""
    return GENEROUS_BYTES * math.prod(size) * batch / 2**20


def window_memory_mb(network: nn.Module, channels: int, size: Sequence[int], batch: int) -> float:
    """MiB that a forward pass takes beside the weights, counted from shapes."""
    shapes = [(batch, channels, *size), (batch, 1, *size)]
    inputs = [torch.empty(shape, device="meta") for shape in shapes]
    cost = measure_cost(lambda: copy.deepcopy(network).to("meta"), inputs)
    return COUNTED_TO_TAKEN * cost.inference_mb


def smaller(size: Sequence[int]) -> tuple[int, ...] | None:
    """A window with its longest axis halved; None where it cannot get smaller.

    >>> smaller((64, 96, 96)), smaller((32, 48, 32)), smaller((32, 32, 32))
    ((64, 48, 96), (32, 32, 32), None)
    """
    axis = max(range(len(size)), key=lambda a: size[a])
    half = max(SMALLEST, size[axis] // 2 // SIZE_STEP * SIZE_STEP)
    return None if half >= size[axis] else tuple(half if a == axis else n for a, n in enumerate(size))


def fitting(
    size: tuple[int, ...], batch: int, needed_mb: Callable[[tuple[int, ...], int], float], free_mb: float
) -> tuple[tuple[int, ...], int]:
    """The largest window and batch that need no more than is free: first fewer at once, then smaller ones.

    Where nothing fits, the smallest window by itself: the estimate may be wrong.
    """
    while needed_mb(size, batch) > free_mb:
        less = smaller(size)
        if batch > 1:
            batch = batch // 2
        elif less:
            size = less
        else:
            break
    return size, batch


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory was not enough, on any device."""
    text = str(error).lower()
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError)
        and any(words in text for words in ("out of memory", "can't allocate memory", "not enough memory"))
    )
