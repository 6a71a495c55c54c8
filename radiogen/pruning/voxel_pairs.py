"""Convolutions of volumes that end in few channels, two voxels at once.

oneDNN works on 16 channels together and fills fewer up with zeros. Here two neighbours along x are channels
of one voxel: with channels innermost they lie in memory as they should, and only a third of the products is
with zeros.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from radiogen.pruning.memory_order import channels_last, said_channels_last

VECTOR = 16  # channels that oneDNN works on together


@dataclass(frozen=True)
class Geometry:
    """How the kernel of a convolution goes over a volume, each as (z, y, x)."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    output_padding: tuple[int, ...] = (0, 0, 0)  # of a transposed one


def can_keep(x: Tensor, weight: Tensor, how: Geometry) -> bool:
    """Whether a convolution keeps the size along x and gives so few channels that those of two voxels fit."""
    along_x = (weight.shape[4], how.stride[2], how.padding[2], how.dilation[2])
    return _are_few(weight.shape[0]) and along_x == (3, 1, 1, 1) and x.shape[4] % 2 == 0


def keep(x: Tensor, weight: Tensor, bias: Tensor | None, how: Geometry) -> Tensor:
    """A convolution: of four voxels a pair's left one sees the first three, its right one the last three.

    Args:
        x: (B, in, D, H, W), channels innermost.
        weight: (out, in, kd, kh, 3)
        bias: (out,)
        how: What `can_keep` says yes to.
    """
    out = weight.shape[0]
    wide = weight.new_zeros(2 * out, *weight.shape[1:4], 4)
    wide[:out, ..., :3] = weight
    wide[out:, ..., 1:] = weight
    steps = (*how.stride[:2], 2)
    return _parted(F.conv3d(x, said_channels_last(wide), _twice(bias), steps, how.padding, how.dilation))


def can_double(weight: Tensor, how: Geometry) -> bool:
    """Whether a transposed convolution doubles the size along x and ends in few channels likewise."""
    along_x = (weight.shape[4], how.stride[2], how.padding[2], how.output_padding[2], how.dilation[2])
    return _are_few(weight.shape[1]) and along_x == (3, 2, 1, 1, 1)


def double(x: Tensor, weight: Tensor, bias: Tensor | None, how: Geometry) -> Tensor:
    """A transposed convolution: a pair's left voxel sees one voxel of the input, its right one two.

    Args:
        x: (B, in, D, H, W), channels innermost.
        weight: (in, out, kd, kh, 3)
        bias: (out,)
        how: What `can_double` says yes to.
    """
    out = weight.shape[1]
    wide = weight.new_zeros(len(weight), 2 * out, *weight.shape[2:4], 2)
    wide[:, :out, ..., 1] = weight[..., 1]
    wide[:, out:] = weight[..., ::2]
    steps, beyond, padding = (*how.stride[:2], 1), (*how.output_padding[:2], 0), (*how.padding[:2], 1)
    x = channels_last(F.pad(x, [0, 1]))
    pairs = F.conv_transpose3d(x, channels_last(wide), _twice(bias), steps, padding, beyond, 1, how.dilation)
    return _parted(pairs)


def _are_few(channels: int) -> bool:
    return VECTOR // 4 < channels <= VECTOR // 2


def _twice(bias: Tensor | None) -> Tensor | None:
    return None if bias is None else bias.repeat(2)


def _parted(pairs: Tensor) -> Tensor:
    """The voxels of pairs, side by side again."""
    pairs = channels_last(pairs)
    rows, channels, depth, height, width = pairs.shape
    voxels = pairs.permute(0, 2, 3, 4, 1).reshape(rows, depth, height, 2 * width, channels // 2)
    return voxels.permute(0, 4, 1, 2, 3)
