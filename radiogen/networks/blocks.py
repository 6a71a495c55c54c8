"""The blocks of RA-Seg's figure: encoder, attention on the prior, decoder."""

from typing import Literal

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
        self.dropout = nn.Dropout(dropout)
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
        self.dropout = nn.Dropout(dropout)
        self.prelu = nn.PReLU()

    def forward(self, x: Tensor) -> Tensor:  # (B, C, D, H, W)
        out: Tensor = self.prelu(self.dropout(self.norm(self.conv(x))))
        return out  # (B, width, 2D, 2H, 2W)


class Attention(nn.Module):
    """Turns the prior into a map in [0, 1] for every channel of one encoder, and gates its skip with it.

    The published gate `e + e a` can only boost (`boost`); `learned` is `e (alpha + a)` with one learned
    alpha that starts at 1, so that a skip can also be turned down. The published `trilinear` reads single
    points of the prior, so that a small box is lost at the deeper levels; `area` takes means and keeps it.
    """

    def __init__(self, width: int, norm: GateNorm, gate: Gate, resize: PriorResize) -> None:
        super().__init__()
        self.conv = nn.Conv3d(1, width, kernel_size=3, padding=1)
        self.norm = nn.BatchNorm3d(width) if norm == "batch" else nn.InstanceNorm3d(width, affine=True)
        self.resize = resize
        self.alpha = nn.Parameter(torch.ones(())) if gate == "learned" else None

    def forward(self, encoded: Tensor, prior: Tensor) -> Tensor:  # (B, C, d, h, w), (B, 1, D, H, W)
        prior = functional.interpolate(prior, size=encoded.shape[2:], mode=self.resize)
        a = torch.sigmoid(self.norm(self.conv(prior)))  # (B, C, d, h, w)
        return encoded + encoded * a if self.alpha is None else encoded * (self.alpha + a)


def up_convolution(in_width: int, width: int) -> nn.ConvTranspose3d:
    """The transposed convolution that doubles the size exactly."""
    return nn.ConvTranspose3d(in_width, width, kernel_size=3, stride=2, padding=1, output_padding=1)
