"""A window that slides over a case: what the networks say is blended and comes out slab by slab along z.

The blend is that of `monai.inferers.sliding_window_inference` (windows that start every half of their size,
Gaussian weights). It is written anew because windows that hold nothing are not computed here, and because
memory is that of one row of windows, not of the whole case (docs/decisions/0040).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, product
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from radiogen.model.network_input import OVERLAP, SIGMA
from radiogen.volume import FloatArray

ArrayBox = tuple[slice, slice, slice]  # of (D, H, W); a window may begin before 0 and end behind the array
Read = Callable[[ArrayBox], tuple[FloatArray, FloatArray]]  # image (C, d, h, w) in [0, 1], prior (d, h, w)
Call = Callable[[Tensor, Tensor], Tensor]  # image (B, C, d, h, w), prior (B, 1, d, h, w) -> (B, K, d, h, w)

SMALLEST_WEIGHT = 1e-3
NO_LESION = -30.0  # the logit of voxels that no window has seen


@dataclass(frozen=True)
class Slab:
    """The slices `start`, `start + 1`, ... of a case: values (K, d, H, W); the first of K is the logit."""

    start: int
    values: FloatArray


def windows_over(shape: Sequence[int], size: Sequence[int], overlap: float = OVERLAP) -> list[ArrayBox]:
    """All windows over an array, in the order of z; an axis shorter than the window lies in its middle.

    >>> [(z.start, x.stop) for z, _, x in windows_over((6, 4, 2), (4, 4, 4))]
    [(0, 3), (2, 3)]
    """
    starts = [_starts(length, width, overlap) for length, width in zip(shape, size, strict=True)]
    depth, height, width = size
    return [(slice(z, z + depth), slice(y, y + height), slice(x, x + width)) for z, y, x in product(*starts)]


def _starts(length: int, width: int, overlap: float) -> list[int]:
    if length <= width:
        return [-((width - length) // 2)]
    step = max(1, int(width * (1 - overlap)))
    return [min(start, length - width) for start in range(0, length - width + step, step)]


def inside(box: ArrayBox, shape: Sequence[int]) -> ArrayBox:
    """The part of a window that lies in an array."""
    z, y, x = (
        slice(max(0, edge.start), min(length, edge.stop)) for edge, length in zip(box, shape, strict=True)
    )
    return z, y, x


def cut(array: npt.NDArray[Any], box: ArrayBox, outside: float) -> npt.NDArray[Any]:
    """A window of an array (D, H, W); what lies outside the array is filled."""
    part = inside(box, array.shape)
    pad = [(p.start - b.start, b.stop - p.stop) for p, b in zip(part, box, strict=True)]
    return np.pad(array[part], pad, constant_values=outside) if np.any(pad) else array[part]


def slide(
    shape: Sequence[int],
    windows: Sequence[ArrayBox],
    read: Read,
    call: Call,
    device: torch.device,
    batch: int = 1,
    channels: int = 1,
) -> Iterator[Slab]:
    """Call the networks on windows and blend what they say.

    Args:
        shape: (D, H, W) of the case.
        windows: All of one size, in the order of z: those of `windows_over` that are worth looking at.
        read: Gives image and prior of a window.
        call: The networks.
        device: Where windows are brought; slabs are on the CPU.
        batch: Windows in one call.
        channels: K, how many values `call` gives a voxel.

    Yields:
        Slabs that together are the whole case. Where no window lies the logit is `NO_LESION`, the rest 0.
    """
    blend = _Blend(shape, windows, channels)
    for start, row in groupby(windows, key=lambda box: box[0].start):
        yield from blend.finish(start)
        for box, values in _answers(list(row), read, call, device, batch):
            blend.add(box, values)
    yield from blend.finish(shape[0])


def _answers(
    boxes: Sequence[ArrayBox], read: Read, call: Call, device: torch.device, batch: int
) -> Iterator[tuple[ArrayBox, FloatArray]]:
    """The answer to each window; a GPU works on one batch while the next is read."""
    waiting: tuple[Sequence[ArrayBox], Tensor] | None = None
    for first in range(0, len(boxes), batch):
        some = boxes[first : first + batch]
        pieces = [read(box) for box in some]
        image = np.stack([image for image, _ in pieces])
        prior = np.stack([prior for _, prior in pieces])[:, None]
        answer = call(_bring(image, device), _bring(prior, device))
        if waiting:
            yield from zip(waiting[0], waiting[1].float().cpu().numpy(), strict=True)
        waiting = some, answer
    if waiting:
        yield from zip(waiting[0], waiting[1].float().cpu().numpy(), strict=True)


def _bring(array: FloatArray, device: torch.device) -> Tensor:
    tensor = torch.from_numpy(array)
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True, memory_format=torch.channels_last_3d)


class _Blend:
    """Weighted sums over as many slices as a window is deep; slices that are finished leave at the top."""

    def __init__(self, shape: Sequence[int], windows: Sequence[ArrayBox], channels: int) -> None:
        self.shape, self.first = tuple(shape), 0
        size = [edge.stop - edge.start for edge in windows[0]] if windows else [1, 1, 1]
        self.weights = gaussian_weights(size)
        rows = (min(size[0], shape[0]), *shape[1:])
        self.sums = np.zeros((channels, *rows), np.float32)
        self.weight = np.zeros(rows, np.float32)

    def add(self, box: ArrayBox, values: FloatArray) -> None:
        """Add what the networks said of a window, (K, d, h, w)."""
        z, y, x = inside(box, self.shape)
        own = tuple(
            slice(part.start - edge.start, part.stop - edge.start)
            for part, edge in zip((z, y, x), box, strict=True)
        )
        here = (slice(z.start - self.first, z.stop - self.first), y, x)
        weights = self.weights[own]
        self.sums[(slice(None), *here)] += values[(slice(None), *own)] * weights
        self.weight[here] += weights

    def finish(self, until: int) -> Iterator[Slab]:
        """Slabs of the slices before `until`, which no further window touches."""
        while self.first < until:
            count = min(until - self.first, len(self.weight))
            sums, weight = self.sums[:, :count], self.weight[:count]
            values = np.zeros_like(sums)
            np.divide(sums, weight, out=values, where=weight > 0)
            values[0][weight == 0] = NO_LESION
            yield Slab(self.first, values)
            for buffer in (self.sums[0:], self.weight[None]):
                buffer[:, : buffer.shape[1] - count] = buffer[:, count:].copy()
                buffer[:, buffer.shape[1] - count :] = 0
            self.first += count


def gaussian_weights(size: Sequence[int]) -> FloatArray:
    """The weight of each voxel of a window: 1 in the middle, less towards the edges; shape `size`."""
    weights = np.ones((), np.float32)
    for width in size:
        away = np.arange(width, dtype=np.float32) - np.float32((width - 1) / 2)
        weights = weights[..., None] * np.exp(-(away**2) / (2 * (SIGMA * width) ** 2)).astype(np.float32)
    return np.maximum(weights, max(float(weights.min()), SMALLEST_WEIGHT)).astype(np.float32)
