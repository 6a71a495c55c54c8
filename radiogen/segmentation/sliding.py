"""Slide a window over a case; logits are blended and come out slab by slab along z.

The blend is that of `monai.inferers.sliding_window_inference` (windows that start every half of their size,
Gaussian weights). MONAI keeps the sums of the whole case as float32, 28.5 bytes a voxel, and computes every
window; here windows that hold no lung or box are left out, and memory is that of one row of windows (481 MiB
against 48 for 200 x 260 x 340 voxels). MONAI would also take 3 s to import.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, product
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from radiogen.model.backends import Engine, make_backend
from radiogen.model.network_input import OVERLAP, SIGMA
from radiogen.networks.kernels import fast_cpu, volumes_channels_last
from radiogen.volume import FloatArray

ArrayBox = tuple[slice, slice, slice]  # of (D, H, W); a window may begin before 0 and end behind the array
Read = Callable[[ArrayBox], tuple[FloatArray, FloatArray]]  # image (C, d, h, w) in [0, 1], prior (d, h, w)
Call = Callable[[Tensor, Tensor], Tensor]  # image (B, C, d, h, w), prior (B, 1, d, h, w) -> (B, K, d, h, w)

SMALLEST_WEIGHT = 1e-3
NO_LESION = -30.0  # the logit of voxels that lie in no window
SURE = 1e-6  # probabilities nearer to 0 and 1 than this are taken as that near
FINEST_ZOOM = 0.25  # finer voxels add nothing: a nodule of 3 mm is 8 of them wide by then
COARSEST_ZOOM = 2.0  # beyond that a window slides over the box
FLIPS: tuple[tuple[int, ...], ...] = tuple(
    tuple(axis for axis, is_flipped in zip((-3, -2, -1), flips, strict=True) if is_flipped)
    for flips in product((False, True), repeat=3)
)


@dataclass(frozen=True)
class Slab:
    """The slices `start`, `start + 1`, ... of a case: values (K, d, H, W); the first of K is the logit."""

    start: int
    values: FloatArray


def windows_over(shape: Sequence[int], size: Sequence[int], overlap: float = OVERLAP) -> list[ArrayBox]:
    """List all windows over an array, in the order of z; an axis shorter than the window lies in its middle.

    >>> [(z.start, x.stop) for z, _, x in windows_over((6, 4, 2), (4, 4, 4))]
    [(0, 3), (2, 3)]
    """
    starts = []
    for length, width in zip(shape, size, strict=True):
        step, last = max(1, int(width * (1 - overlap))), length - width
        if last <= 0:
            starts.append([-(-last // 2)])
        else:
            starts.append([min(start, last) for start in range(0, last + step, step)])
    depth, height, width = size
    return [(slice(z, z + depth), slice(y, y + height), slice(x, x + width)) for z, y, x in product(*starts)]


def inside(box: ArrayBox, shape: Sequence[int]) -> ArrayBox:
    """Return the part of a window that lies in an array."""
    z, y, x = (
        slice(max(0, edge.start), min(length, edge.stop)) for edge, length in zip(box, shape, strict=True)
    )
    return z, y, x


def cut(array: npt.NDArray[Any], box: ArrayBox, outside: float) -> npt.NDArray[Any]:
    """Cut a window out of an array (D, H, W); what lies outside the array is filled."""
    part = inside(box, array.shape)
    pad = [(p.start - b.start, b.stop - p.stop) for p, b in zip(part, box, strict=True)]
    return np.pad(array[part], pad, constant_values=outside) if np.any(pad) else array[part]


def logit(probability: float) -> float:
    """Return the logit of a probability; -inf of 0, inf of 1."""
    with np.errstate(divide="ignore"):
        return float(np.log(probability) - np.log1p(-probability))


def window_about(box: ArrayBox, shape: Sequence[int], size: Sequence[int]) -> ArrayBox:
    """Grow a box about its middle to at least `size`, moved into the array where that allows it."""
    slices = []
    for edge, length, wanted in zip(box, shape, size, strict=True):
        width = min(length, max(int(wanted), edge.stop - edge.start))
        first = min(max((edge.start + edge.stop) // 2 - width // 2, 0), length - width)
        slices.append(slice(first, first + width))
    return slices[0], slices[1], slices[2]


def zoom_for(box: ArrayBox, size: Sequence[int], wanted: tuple[float, float] | None) -> float:
    """Return how much coarser (above 1) or finer voxels must be for a box to fill a good share of a window.

    A mass of 10 cm does not fit into a window of 96 mm: the network would see soft tissue without a border.
    A nodule of 8 mm is five voxels wide, so that one voxel more or less all round is a third of its Dice.

    Args:
        box: On the network's grid.
        size: Of the window, (D, H, W).
        wanted: The least and the largest share; None leaves the voxels as they are.

    >>> zoom_for((slice(0, 20), slice(0, 20), slice(0, 20)), (48, 64, 64), (0.3, 0.75))
    1.0
    >>> zoom_for((slice(0, 54), slice(0, 20), slice(0, 20)), (48, 64, 64), (0.3, 0.75))
    1.5
    """
    edges = zip(box, size, strict=True)
    return zoom_to_fill(max((edge.stop - edge.start) / length for edge, length in edges), wanted)


def zoom_to_fill(share: float, wanted: tuple[float, float] | None) -> float:
    """Return the zoom of a box that fills a share of a window, along the side where that share is largest.

    >>> zoom_to_fill(0.15, (0.3, 0.75)), zoom_to_fill(0.9, (0.3, 0.75)), zoom_to_fill(0.9, None)
    (0.5, 1.2, 1.0)
    """
    if wanted is None:
        return 1.0
    least, most = wanted
    zoom = share / most if share > most else min(1.0, share / max(least, 1e-6))
    return round(min(max(zoom, FINEST_ZOOM), COARSEST_ZOOM), 6)


def zoomed(size: Sequence[int], zoom: float) -> tuple[int, ...]:
    """Return how many voxels of the network's grid one window of coarser or finer voxels holds."""
    return tuple(max(1, math.floor(length * zoom)) for length in size)


def slide(
    shape: Sequence[int],
    windows: Sequence[ArrayBox],
    read: Read,
    call: Call,
    device: torch.device,
    batch: int = 1,
    channels: int = 1,
) -> Iterator[Slab]:
    """Call the networks on windows and blend their values.

    Args:
        shape: (D, H, W) of the case.
        windows: All of one size, in the order of z: those of `windows_over` that are worth computing.
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
        for box, values in _compute(list(row), read, call, device, batch):
            blend.add(box, values)
    yield from blend.finish(shape[0])


def _compute(
    boxes: Sequence[ArrayBox], read: Read, call: Call, device: torch.device, batch: int
) -> Iterator[tuple[ArrayBox, FloatArray]]:
    """Compute the values of each window; a GPU works on one batch while the next is read."""
    waiting: tuple[Sequence[ArrayBox], Tensor] | None = None
    for first in range(0, len(boxes), batch):
        some = boxes[first : first + batch]
        windows = [read(box) for box in some]
        image = np.stack([image for image, _ in windows])
        prior = np.stack([prior for _, prior in windows])[:, None]
        values = call(_to_device(image, device), _to_device(prior, device))
        if waiting:
            yield from zip(waiting[0], waiting[1].float().cpu().numpy(), strict=True)
        waiting = some, values
    if waiting:
        yield from zip(waiting[0], waiting[1].float().cpu().numpy(), strict=True)


def _to_device(array: FloatArray, device: torch.device) -> Tensor:
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
        """Add the values of a window, (K, d, h, w)."""
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
        """Yield the slices before `until`, which no further window touches."""
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
    """Return the weight of each voxel of a window: 1 in the middle, less towards the edges; shape `size`."""
    weights = np.ones((), np.float32)
    for width in size:
        away = np.arange(width, dtype=np.float32) - np.float32((width - 1) / 2)
        weights = weights[..., None] * np.exp(-(away**2) / (2 * (SIGMA * width) ** 2)).astype(np.float32)
    return np.maximum(weights, max(float(weights.min()), SMALLEST_WEIGHT)).astype(np.float32)


def network_call(network: nn.Module, device: torch.device, engine: Engine = "torch") -> Call:
    """Prepare a network to be called; half precision and channels last on CUDA, fast kernels on a CPU."""
    if device.type == "cuda":
        volumes_channels_last(network)
    elif device.type == "cpu" and engine == "torch":
        fast_cpu(network)
    run = network if engine == "torch" else make_backend(engine, network, device)

    def call(image: Tensor, prior: Tensor) -> Tensor:
        with torch.inference_mode(), torch.autocast(device.type, enabled=device.type == "cuda"):
            logits = run(image, prior)
        return logits.float()

    return call


def averaged(calls: Sequence[Call], flips: bool) -> Call:
    """Make one call of several networks, or of one network and the mirror images of its window.

    Probabilities are averaged, not logits and not masks: a member that is sure then weighs as much as it is
    sure.

    Returns:
        A call with two channels: the logit of the mean probability, and the standard deviation of the
        probability between the passes. With one pass only, that call itself, with one channel.
    """
    if len(calls) == 1 and not flips:
        return calls[0]
    passes = [(call, axes) for call in calls for axes in (FLIPS if flips else FLIPS[:1])]

    def call_all(image: Tensor, prior: Tensor) -> Tensor:
        with torch.inference_mode():
            total = squares = torch.zeros((), device=image.device)
            for call, axes in passes:
                probability = torch.sigmoid(call(image.flip(axes), prior.flip(axes)).flip(axes))
                total, squares = total + probability, squares + probability.square()
            mean = total / len(passes)
            spread = (squares / len(passes) - mean.square()).clamp(min=0).sqrt()
            return torch.cat([torch.logit(mean, eps=SURE), spread], dim=1)

    return call_all


def predict(
    network: nn.Module,
    image: FloatArray,
    prior: FloatArray,
    window: Sequence[int],
    device: torch.device,
    batch: int = 1,
) -> FloatArray:
    """Predict the probability of lesion at every voxel of arrays that are scaled already.

    Args:
        network: RA-Seg in evaluation mode, on `device`.
        image: (C, D, H, W), scaled to [0, 1].
        prior: (D, H, W), in [0, 1].
        window: Size of the window (D, H, W); an axis shorter than it is padded.
        device: Where the network runs; windows are brought there one batch at a time.
        batch: Windows in one call.

    Returns:
        (D, H, W), float32 in [0, 1].
    """

    def read(box: ArrayBox) -> tuple[FloatArray, FloatArray]:
        return np.stack([cut(channel, box, 0.0) for channel in image]), cut(prior, box, 0.0)

    probability = np.empty(prior.shape, np.float32)
    boxes = windows_over(prior.shape, window)
    for slab in slide(prior.shape, boxes, read, network_call(network, device), device, batch):
        here = slice(slab.start, slab.start + slab.values.shape[1])
        probability[here] = torch.sigmoid(torch.from_numpy(slab.values[0])).numpy()
    return probability
