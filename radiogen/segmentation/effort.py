"""Estimate the time and memory of a case, and find windows that fit into memory."""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

SIZE_STEP, SMALLEST = 16, 32  # what RA-Seg takes
COUNTED_TO_TAKEN = 2.0  # memory taken by a forward pass / bytes counted from shapes, as measured
GENEROUS_BYTES = 2048  # a voxel of the window; the presets take 400 to 900
LONG_S = 60.0  # from here on a user is told how long a case takes


@dataclass(frozen=True)
class Effort:
    """What one case will take, estimated from its first windows."""

    windows: int
    size: tuple[int, ...]
    passes: int  # over each window: networks times flips
    seconds: float
    memory_mb: float

    @property
    def is_long(self) -> bool:
        """Whether a user who waits wants to know."""
        return self.seconds > LONG_S

    def __str__(self) -> str:
        """
        >>> print(Effort(210, (48, 64, 64), 8, 251.0, 1600.0))
        about 4 min and 1.6 GB: 210 windows of 48 x 64 x 64, each computed 8 times
        """
        long = f"{self.seconds / 60:.0f} min" if self.is_long else f"{self.seconds:.0f} s"
        passes = f", each computed {self.passes} times" if self.passes > 1 else ""
        size = " x ".join(map(str, self.size))
        return f"about {long} and {self.memory_mb / 1000:.1f} GB: {self.windows} windows of {size}{passes}"


def generous_memory_mb(size: Sequence[int], batch: int) -> float:
    """Return more MiB than any preset takes for a window; where that is free, nothing need be counted."""
    return GENEROUS_BYTES * math.prod(size) * batch / 2**20


def window_memory_mb(network: nn.Module, channels: int, size: Sequence[int], batch: int) -> float:
    """Count from shapes how many MiB a forward pass takes beside the weights."""
    from radiogen.pruning.costs import measure_cost  # rarely needed: only where memory is short

    shapes = [(batch, channels, *size), (batch, 1, *size)]
    inputs = [torch.empty(shape, device="meta") for shape in shapes]
    cost = measure_cost(lambda: copy.deepcopy(network).to("meta"), inputs)
    return COUNTED_TO_TAKEN * cost.inference_mb


def smaller(size: Sequence[int]) -> tuple[int, ...] | None:
    """Halve the longest axis of a window; None where it cannot get smaller.

    >>> smaller((64, 96, 96)), smaller((32, 48, 32)), smaller((32, 32, 32))
    ((64, 48, 96), (32, 32, 32), None)
    """
    axis = max(range(len(size)), key=lambda a: size[a])
    half = max(SMALLEST, size[axis] // 2 // SIZE_STEP * SIZE_STEP)
    return None if half >= size[axis] else tuple(half if a == axis else n for a, n in enumerate(size))


def fitting(
    size: tuple[int, ...], batch: int, needed_mb: Callable[[tuple[int, ...], int], float], free_mb: float
) -> tuple[tuple[int, ...], int]:
    """Find the largest window and batch that need no more memory than is free.

    Fewer windows at once come first, then smaller ones. Where nothing fits, it is the smallest window by
    itself: the estimate may be wrong.
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
    """Tell whether an error means that memory was not enough, on any device."""
    text = str(error).lower()
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError)
        and any(words in text for words in ("out of memory", "can't allocate memory", "not enough memory"))
    )
