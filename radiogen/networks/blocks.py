"""The blocks of RA-Seg's figure: encoder, attention on the prior, recurrence over slices, decoder."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

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
        out: Tensor = self.prelu(self.dropout(self.norm(self.conv(x))))
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
        out: Tensor = self.prelu(self.dropout(self.norm(self.conv(x))))
        return out  # (B, width, 2D, 2H, 2W)


def up_convolution(in_width: int, width: int) -> nn.ConvTranspose3d:
    """Return the transposed convolution that doubles the size exactly."""
    return nn.ConvTranspose3d(in_width, width, kernel_size=3, stride=2, padding=1, output_padding=1)


class Attention(nn.Module):
    """The gate on one skip connection: the prior becomes a map in [0, 1] for every channel of the encoder.

    The published gate `e + e a` can only boost (`boost`); `learned` is `e (alpha + a)` with one learned
    alpha that starts at 1, so that a skip can also be turned down. With `predicted` the map that the network
    itself predicts is a second channel beside the prior: it does not replace the prior, so that a tight box
    can overrule the guess while the lungs leave it the word.
    """

    def __init__(
        self, width: int, norm: GateNorm, gate: Gate, resize: PriorResize, predicted: bool = False
    ) -> None:
        super().__init__()
        self.conv = nn.Conv3d(2 if predicted else 1, width, kernel_size=3, padding=1)
        # The published batch norm learns little from nearly binary maps in batches of one.
        self.norm = nn.BatchNorm3d(width) if norm == "batch" else nn.InstanceNorm3d(width, affine=True)
        self.resize = resize
        self.alpha = nn.Parameter(torch.ones(())) if gate == "learned" else None

    def forward(self, encoded: Tensor, prior: Tensor, predicted: Tensor | None = None) -> Tensor:
        size = encoded.shape[2:]  # (d, h, w)
        x = resize_prior(prior, size, self.resize)  # (B, 1, d, h, w)
        if predicted is not None:
            finer = functional.interpolate(predicted, size=size, mode="trilinear")
            x = torch.cat([x, finer], dim=1)  # (B, 2, d, h, w)
        a = torch.sigmoid(self.norm(self.conv(x)))  # (B, C, d, h, w)
        return torch.addcmul(encoded, encoded, a) if self.alpha is None else encoded * (self.alpha + a)


def resize_prior(prior: Tensor, size: torch.Size, mode: PriorResize) -> Tensor:
    """Resize a prior to the size (d, h, w) of an encoder's output, which divides its own.

    The published `trilinear` reads single points, so that a small box between two of them is lost at the
    deeper levels; `area` takes means, and every box leaves a trace, weaker the smaller it is.
    """
    if mode == "trilinear":
        return functional.interpolate(prior, size=size, mode=mode)
    # The same as interpolate(mode="area"), in the words of pooling windows, which ONNX knows.
    window = [int(n) // int(m) for n, m in zip(prior.shape[2:], size, strict=True)]
    return functional.avg_pool3d(prior, window)


class ConvLSTM(nn.Module):
    """One convolutional LSTM layer without peepholes (Shi et al. 2015), starting from zero.

    The gates input, forget, output and candidate come from one 3x3 convolution over [input, hidden]. A
    convolution over a concatenation is the sum of two, so its halves are stored apart: the input half of all
    slices is one call, and only the hidden half waits for the slice before. Cutting one stored weight at
    every slice would make oneDNN repack 75 MB each time (1.3 to 2.9 times slower at 96 cubed).
    """

    def __init__(self, in_width: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.input_gates = nn.Conv2d(in_width, 4 * width, kernel_size=3, padding=1)
        self.hidden_gates = nn.Conv2d(width, 4 * width, kernel_size=3, padding=1, bias=False)

    def forward(self, slices: Tensor) -> Tensor:  # (D, B, C, H, W)
        depth, batch = slices.shape[:2]
        rows = slices.transpose(0, 1).flatten(0, 1)  # (B D, C, H, W), the slices of a sample side by side
        from_input = self.input_gates(rows).unflatten(0, (batch, depth))  # (B, D, 4 width, H, W)
        hidden_states: list[Tensor] = []
        cell: Tensor | None = None
        for gates in from_input.unbind(1):  # (B, 4 width, H, W)
            if hidden_states:  # the first slice starts from zero and has no hidden half
                gates = gates + self.hidden_gates(hidden_states[-1])
            let_in, keep, let_out, candidate = gates.chunk(4, dim=1)  # (B, width, H, W) each
            new = torch.sigmoid(let_in) * torch.tanh(candidate)
            cell = new if cell is None else torch.sigmoid(keep) * cell + new
            hidden_states.append(torch.sigmoid(let_out) * torch.tanh(cell))
        return torch.stack(hidden_states)  # (D, B, width, H, W)


class BidirectionalConvLSTM(nn.Module):
    """Two ConvLSTMs, one from the feet to the head and one back, each with half of the width."""

    def __init__(self, in_width: int, width: int) -> None:
        super().__init__()
        self.up = ConvLSTM(in_width, width // 2)
        self.down = ConvLSTM(in_width, width - width // 2)

    def forward(self, slices: Tensor) -> Tensor:  # (D, B, C, H, W)
        return torch.cat([self.up(slices), self.down(slices.flip(0)).flip(0)], dim=2)  # (D, B, width, H, W)


class Recurrence(nn.Module):
    """Layers of ConvLSTM over the slices of a volume; the last layer's hidden state at every slice."""

    def __init__(self, in_width: int, widths: Sequence[int], both_ways: bool) -> None:
        super().__init__()
        layer = BidirectionalConvLSTM if both_ways else ConvLSTM
        pairs = zip([in_width, *widths], widths, strict=False)
        self.layers = nn.ModuleList([layer(before, width) for before, width in pairs])

    def forward(self, x: Tensor) -> Tensor:  # (B, C, D, H, W)
        slices = x.movedim(2, 0).contiguous()  # (D, B, C, H, W)
        for layer in self.layers:
            slices = layer(slices)  # (D, B, width, H, W)
        return slices.movedim(0, 2)  # (B, width, D, H, W)


class SampleDropout(nn.Dropout):
    """Dropout; inside `sample_seeds`, what a sample loses depends on its own seed and the layer alone.

    So a network learns the same from a mini-batch that is cut in parts, over processes or in time, and a
    part that is run twice (activation checkpointing) draws the same twice. torch.compile cannot follow
    generators: a compiled network draws from torch's own.
    """

    seeds: Sequence[int] = ()  # of this layer, one a sample of the mini-batch

    def forward(self, x: Tensor) -> Tensor:  # (B, ...)
        if not self.training or self.p == 0 or not self.seeds or torch.compiler.is_compiling():
            return super().forward(x)
        kept = torch.empty_like(x, dtype=torch.bool)  # one byte a voxel is what waits for the gradient
        for sample, seed in zip(kept, self.seeds, strict=True):
            sample.bernoulli_(1 - self.p, generator=torch.Generator(x.device).manual_seed(seed))
        return torch.where(kept, x, 0.0).div_(1 - self.p)


@contextmanager
def sample_seeds(network: nn.Module, samples: Sequence[Sequence[int]]) -> Iterator[None]:
    """Let the dropout of a network draw from seeds, for forward and backward passes of one mini-batch.

    Args:
        network: Any network.
        samples: For each sample of the mini-batch some whole numbers that its draws depend on.
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
    """Return one seed for some whole numbers; neighbouring numbers give unrelated seeds."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)
