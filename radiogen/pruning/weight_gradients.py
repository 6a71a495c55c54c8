"""Weight gradients of one convolution or linear layer, by torch's own kernels."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from radiogen.pruning.layer_kernels import (
    FEW,
    can_swap,
    convolution_backward,
    is_plain_float,
    padding_of,
)
from radiogen.pruning.memory_order import has_channels_last
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
    if len(x) == 1 and is_plain_float(x):
        if has_channels_last(x) and can_swap(module):
            return _swapped(module, x, dy)
        small, large = (x, dy) if module.transposed else (dy, x)
        slabs = _slabs_wanted(module, large)
        if slabs > 1 and small.shape[2] % slabs == 0:
            small, large = _in_slabs(module, small, large, padding[0], slabs)
            return _plain_weight_gradient(module, small, large, [0, *padding[1:]])
    return convolution_backward(module, x, dy, module.weight, 1, [False, True, False], padding)[1]


def _plain_weight_gradient(module: Any, small: Tensor, large: Tensor, padding: list[int]) -> Tensor:
    """That of the convolution from `large` to `small`, of which a transposed one is the way back."""
    shape, settings = module.weight, (module.stride, padding, module.dilation)
    found: tuple[Tensor, ...] = torch.ops.aten.convolution_backward(
        small, large, shape, None, *settings, False, [0] * len(padding), module.groups, [False, True, False]
    )
    return found[1]


def _slabs_wanted(module: Any, x: Tensor) -> int:
    if _narrowest(module) < FEW and not module.transposed:
        return _SLABS
    strided = x.dim() == 5 and max(module.stride) > 1 and has_channels_last(x)
    return _SLABS if strided and 2 * FEW <= _narrowest(module) < 4 * FEW else 1


def _swapped(module: Any, x: Tensor, dy: Tensor) -> Tensor:
    """The gradient of a convolution whose input and output change places, turned round.

    dW[o, i, t] is the sum over p of dy[o, p] x[i, p + t]. oneDNN works along the channels of what it takes
    for the output: 16 of the input fill its vectors where 8 of the output do not.
    """
    weight = module.weight.transpose(0, 1)  # only its shape is read
    padding = [k - 1 - p for k, p in zip(module.kernel_size, padding_of(module), strict=True)]
    found = convolution_backward(module, dy, x, weight, 1, [False, True, False], padding)[1]
    return found.flip(2, 3, 4).transpose(0, 1)


def _in_slabs(module: Any, small: Tensor, large: Tensor, padding: int, slabs: int) -> tuple[Tensor, Tensor]:
    """Cut one row into slabs along its first axis, padded there, and lay them out as rows.

    The sum over voxels stays the same, and torch takes oneDNN's kernel, which it keeps from a single row with
    few channels: a fifth of the time for two channels of 64 cubed.

    Args:
        module: A convolution, or a transposed one.
        small: What comes out of it; of a transposed one what goes in.
        large: The other of the two.
        padding: Along the first axis.
        slabs: How many; they part the first axis of `small`.
    """
    size, stride = small.shape[2] // slabs, module.stride[0]
    reach = (size - 1) * stride + module.dilation[0] * (module.kernel_size[0] - 1) + 1
    large = F.pad(large, [0, 0] * (large.dim() - 3) + [padding, padding])
    starts = range(0, small.shape[2], size)
    parts = torch.cat([large[:, :, start * stride : start * stride + reach] for start in starts])
    return torch.cat([small[:, :, start : start + size] for start in starts]), parts
