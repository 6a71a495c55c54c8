"""How volumes lie in memory: with their channels outermost, as torch has them, or innermost."""

import torch
from torch import Tensor


def channels_last(tensor: Tensor) -> Tensor:
    """A volume with its channels innermost."""
    return tensor.contiguous(memory_format=torch.channels_last_3d) if tensor.dim() == 5 else tensor


def said_channels_last(volume: Tensor) -> Tensor:
    """The same; of a single channel, which lies both ways, the strides say that it is innermost.

    torch looks at them to choose how the result of a convolution shall lie.
    """
    found = channels_last(volume)
    if found.shape[1] > 1:
        return found
    depth, height, width = found.shape[2:]
    return found.as_strided(found.shape, (depth * height * width, 1, height * width, width, 1))


def has_channels_last(tensor: Tensor) -> bool:
    """Whether a tensor is a volume with its channels innermost, and could lie in memory otherwise."""
    if tensor.dim() != 5 or tensor.is_contiguous():
        return False
    return tensor.permute(0, 2, 3, 4, 1).is_contiguous()
