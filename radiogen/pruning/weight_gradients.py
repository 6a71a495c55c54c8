"""Weight gradients of one convolution or linear layer, by torch's own kernels."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from radiogen.pruning.layer_kernels import (
    FEW,
    convolution_backward,
    has_channels_last,
    is_plain_float,
    padding_of,
)
from radiogen.pruning.moments import MomentSums

Use = tuple[Tensor, Tensor]
"""What went into a layer, and the gradient of what came out: (mini-batches, rows, channels, ...)."""

TOGETHER = 8  # mini-batches whose gradients one grouped convolution gives
_GROUPED_UP_TO = 2**18  # weights; above that the time goes into writing gradients, not into finding them
_SLABS = 4


def add_gradients(sums: MomentSums, name: str, module: nn.Module, uses: list[Use]) -> None:
    """Add the gradient of each mini-batch in one layer to the sums.

    Args:
        sums: Receive the gradients and their squares.
        name: The layer's parameter.
        module: A convolution or linear layer.
        uses: All uses of the layer in one pass, one entry for each shape.
    """
    x, dy = uses[0]
    if len(uses) == 1 and isinstance(module, nn.Linear) and x.dim() == 3 and x.shape[1] == 1:
        sums.total[name].addmm_(dy[:, 0].t(), x[:, 0])
        sums.squares[name].addmm_(dy[:, 0].t().square(), x[:, 0].square())
    elif len(uses) == 1 and _pays_grouped(module, x):
        for start in range(0, len(x), TOGETHER):
            gradients = _grouped(module, x[start : start + TOGETHER], dy[start : start + TOGETHER])
            sums.total[name].add_(gradients.sum(0))
            sums.squares[name].add_(gradients.square_().sum(0))
    else:
        for number in range(len(x)):
            gradient = _weight_gradient(module, *_rows_of(uses[0], number))
            for more in uses[1:]:
                gradient += _weight_gradient(module, *_rows_of(more, number))
            sums.add(name, gradient)


def _rows_of(use: Use, number: int) -> Use:
    """The rows of one mini-batch, with strides by which torch still sees that channels come last."""
    rows = use[0].shape[1]
    x, dy = (tensor.flatten(0, 1)[number * rows : (number + 1) * rows] for tensor in use)
    return x, dy


def _pays_grouped(module: Any, x: Tensor) -> bool:
    if isinstance(module, nn.Linear) or not is_plain_float(x) or has_channels_last(x.flatten(0, 1)):
        return False
    return _narrowest(module) >= FEW and module.weight.numel() <= _GROUPED_UP_TO


def _narrowest(module: Any) -> int:
    return int(min(module.in_channels, module.out_channels) // module.groups)


def _grouped(module: Any, x: Tensor, dy: Tensor) -> Tensor:
    """Gradients (mini-batches, ...) from one convolution in which each mini-batch is a group of channels.

    It needs the same arithmetic as one call for each, and avoids the slow kernel that torch takes for a
    single volume.
    """
    parts, shape = len(x), module.weight.shape
    weight = module.weight.new_empty(()).expand(parts * shape[0], *shape[1:])  # only its shape is read
    # (rows, mini-batches * channels, ...)
    x, dy = (t.transpose(0, 1).flatten(1, 2).contiguous() for t in (x, dy))
    return convolution_backward(module, x, dy, weight, parts, [False, True, False])[1].view(parts, *shape)


def _weight_gradient(module: Any, x: Tensor, dy: Tensor) -> Tensor:
    if isinstance(module, nn.Linear):
        return dy.reshape(-1, dy.shape[-1]).t() @ x.reshape(-1, x.shape[-1])
    padding = padding_of(module)
    narrow = is_plain_float(x) and not module.transposed and _narrowest(module) < FEW
    if narrow and len(x) == 1 and dy.shape[2] % _SLABS == 0:
        x, dy = _slabs(module, x, dy, padding[0])
        padding = [0, *padding[1:]]
    return convolution_backward(module, x, dy, module.weight, 1, [False, True, False], padding)[1]


def _slabs(module: Any, x: Tensor, dy: Tensor, padding: int) -> tuple[Tensor, Tensor]:
    """Cut one row into slabs along its first axis, padded there, and lay them out as rows.

    The sum over voxels stays the same, and torch takes oneDNN's kernel, which it keeps from a single row with
    few channels: a fifth of the time for two channels of 64 cubed.
    """
    size, stride = dy.shape[2] // _SLABS, module.stride[0]
    reach = (size - 1) * stride + module.dilation[0] * (module.kernel_size[0] - 1) + 1
    x = F.pad(x, [0, 0] * (x.dim() - 3) + [padding, padding])
    starts = range(0, dy.shape[2], size)
    slabs = torch.cat([x[:, :, start * stride : start * stride + reach] for start in starts])
    return slabs, torch.cat([dy[:, :, start : start + size] for start in starts])
