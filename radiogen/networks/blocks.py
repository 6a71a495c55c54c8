"""The blocks of RA-Seg's figure: encoder, attention on the prior, decoder."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from radiogen.networks.tracing import is_traced


class SampleDropout(nn.Dropout):
    """Dropout as ever; inside `sample_seeds`, what a sample loses depends on its own seed and the layer.

    So a network learns the same from a mini-batch that is cut in pieces, over processes or in time, and a
    part that is run twice (activation checkpointing) draws the same twice. torch.compile cannot follow
    generators: a compiled network draws from torch's own.
    """

    seeds: Sequence[int] = ()  # of this layer, one a sample of the mini-batch

    def forward(self, x: Tensor) -> Tensor:  # (B, ...)
        if not self.training or self.p == 0 or not self.seeds or torch.compiler.is_compiling():
            return super().forward(x)
        kept = torch.empty_like(x, dtype=torch.bool)  # a byte a voxel is what waits for the gradient
        for sample, seed in zip(kept, self.seeds, strict=True):
            sample.bernoulli_(1 - self.p, generator=torch.Generator(x.device).manual_seed(seed))
        return torch.where(kept, x, 0.0).div_(1 - self.p)


@contextmanager
def sample_seeds(network: nn.Module, samples: Sequence[Sequence[int]]) -> Iterator[None]:
    """Let the dropout of a network draw from seeds, for forward and backward passes of one mini-batch.

    Args:
        network: Any network.
        samples: What each sample of the mini-batch draws from: some whole numbers.
    """
    layers = [module for module in network.modules() if isinstance(module, SampleDropout) and module.p > 0]
    for place, layer in enumerate(layers):
        layer.seeds = [seed_of(*sample, place) for sample in samples]
    try:
        yield
    finally:
        for layer in layers:
            layer.seeds = ()


def seed_of(*numbers: int) -> int:
    """One seed for some whole numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


GateNorm = Literal["batch", "instance"]
Gate = Literal["boost", "learned"]
PriorResize = Literal["trilinear", "area"]


class ConvBlock(nn.Module):
    """Convolution, instance norm, dropout, PReLU; `stride` 2 halves the size (RA-Seg's encoder)."""

    def __init__(self, in_width: int, width: int, dropout: float, stride: int = 2) -> None:
        super().__init__()
        self.conv = nn.Conv3d(in_width, width, kernel_size=3, stride=stride, padding=1)
        self.norm = nn.InstanceNorm3d(width)
        self.dropout = SampleDropout(dropout)
        self.prelu = nn.PReLU()

    def forward(self, x: Tensor) -> Tensor:  # (B, C, D, H, W)
        out: Tensor = self.prelu(self.dropout(normed(self.conv(x), self.norm)))
        return out  # (B, width, D/stride, H/stride, W/stride)


class UpBlock(nn.Module):
    """Transposed convolution that doubles the size, instance norm, dropout, PReLU (RA-Seg's decoder)."""

    def __init__(self, in_width: int, width: int, dropout: float) -> None:
        super().__init__()
        self.conv = up_convolution(in_width, width)
        self.norm = nn.InstanceNorm3d(width)
        self.dropout = SampleDropout(dropout)
        self.prelu = nn.PReLU()

    def forward(self, x: Tensor) -> Tensor:  # (B, C, D, H, W)
        out: Tensor = self.prelu(self.dropout(normed(self.conv(x), self.norm)))
        return out  # (B, width, 2D, 2H, 2W)


class Attention(nn.Module):
    """Turns the prior into a map in [0, 1] for every channel of one encoder, and gates its skip with it.

    The published gate `e + e a` can only boost (`boost`); `learned` is `e (alpha + a)` with one learned
    alpha that starts at 1, so that a skip can also be turned down. The published `trilinear` reads single
    points of the prior, so that a small box is lost at the deeper levels; `area` takes means and keeps it.
    With `predicted` the map that the network itself predicts is a second channel beside the prior.
    """

    def __init__(
        self, width: int, norm: GateNorm, gate: Gate, resize: PriorResize, predicted: bool = False
    ) -> None:
        super().__init__()
        self.conv = nn.Conv3d(2 if predicted else 1, width, kernel_size=3, padding=1)
        self.norm = nn.BatchNorm3d(width) if norm == "batch" else nn.InstanceNorm3d(width, affine=True)
        self.resize = resize
        self.alpha = nn.Parameter(torch.ones(())) if gate == "learned" else None

    def forward(self, encoded: Tensor, prior: Tensor, predicted: Tensor | None = None) -> Tensor:
        size = encoded.shape[2:]  # (d, h, w)
        where = resized(prior, size, self.resize)  # (B, 1, d, h, w)
        if predicted is not None:
            finer = functional.interpolate(predicted, size=size, mode="trilinear")
            where = torch.cat([where, finer], dim=1)  # (B, 2, d, h, w)
        a = torch.sigmoid(normed(self.conv(where), self.norm))  # (B, C, d, h, w)
        return torch.addcmul(encoded, encoded, a) if self.alpha is None else encoded * (self.alpha + a)


def resized(prior: Tensor, size: torch.Size, how: PriorResize) -> Tensor:
    """A prior at the size (d, h, w) of an encoder, which divides its own.

    ONNX knows no pooling to a size: a recording takes the same means by their windows.
    """
    if how == "area" and is_traced():
        window = [int(n) // int(m) for n, m in zip(prior.shape[2:], size, strict=True)]
        return functional.avg_pool3d(prior, window)
    return functional.interpolate(prior, size=size, mode=how)


def normed(x: Tensor, norm: nn.Module) -> Tensor:
    """What a norm makes of a volume; instance norm on a CPU by torch's group norm, one channel a group.

    Values are the same, in less than half of the time; who watches the norm or took its place is heard.
    """
    watched = "forward" in vars(norm) or bool(norm._forward_hooks) or is_traced()
    if x.device.type != "cpu" or watched or not isinstance(norm, nn.InstanceNorm3d):
        found: Tensor = norm(x)
        return found
    return functional.group_norm(x, x.shape[1], norm.weight, norm.bias, norm.eps)


class UpToOne(nn.ConvTranspose3d):
    """The transposed convolution that doubles the size and ends in one channel, for a CPU.

    oneDNN fills one channel up to 16. As one matrix product, the 27 values that each voxel hands to its
    surroundings, which are then laid over each other axis by axis, it takes a seventh of the time.
    """

    computes_as = nn.ConvTranspose3d  # so that its gradients may be taken as those of one

    def __init__(self, in_width: int) -> None:
        super().__init__(in_width, 1, kernel_size=3, stride=2, padding=1, output_padding=1)

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:  # (B, C, D, H, W)
        if x.device.type != "cpu" or is_traced():
            return super().forward(x, output_size)
        kernel = self.weight.flatten(1).t()  # (27, C)
        parts = torch.stack([kernel @ volume for volume in x.flatten(2)])  # (B, 27, D H W)
        parts = parts.view(-1, 3, 3, 3, *x.shape[2:])
        for _ in range(3):
            parts = _laid_over(parts)
        found = parts[:, None]  # (B, 1, 2D, 2H, 2W)
        return found if self.bias is None else found + self.bias


def _laid_over(parts: Tensor) -> Tensor:
    """Lay the three parts of the first kernel axis over each other, which doubles one axis of the image.

    From (B, 3, 3, 3, D, H, W) to (B, 3, 3, 2D, H, W) to (B, 3, 2D, 2H, W) to (B, 2D, 2H, 2W): once the first
    kernel axis has left, the axis that it belongs to is the fourth.
    """
    first, middle, last = parts.unbind(1)
    odd = torch.cat([last[:, :, :, :-1] + first[:, :, :, 1:], last[:, :, :, -1:]], dim=3)
    return torch.stack([middle, odd], dim=4).flatten(3, 4)


def up_convolution(in_width: int, width: int) -> nn.ConvTranspose3d:
    """The transposed convolution that doubles the size exactly."""
    if width == 1:
        return UpToOne(in_width)
    return nn.ConvTranspose3d(in_width, width, kernel_size=3, stride=2, padding=1, output_padding=1)
