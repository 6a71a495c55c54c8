"""Weight and input gradients of one convolution or linear layer, by torch's own kernels."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from radiogen.errors import PruningError
from radiogen.pruning.moments import MomentSums

_CONVOLVE: dict[int, Any] = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}  # by the axes of a weight
Use = tuple[Tensor, Tensor]
"""What went into a layer, and the gradient of what came out: (mini-batches, rows, channels, ...)."""

TOGETHER = 8  # mini-batches whose gradients one grouped convolution gives
_GROUPED_UP_TO = 2**18  # weights; above that the time goes into writing gradients, not into finding them
_GROUPED_FROM = 8  # channels; below that oneDNN has no good kernel for grouped convolutions
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
            gradient = _weight_gradient(module, x[number], dy[number])
            for more_x, more_dy in uses[1:]:
                gradient += _weight_gradient(module, more_x[number], more_dy[number])
            sums.add(name, gradient)


def input_gradient(module: Any, x: Tensor, dy: Tensor) -> Tensor:
    """The gradient of what went into a layer; rows first."""
    if isinstance(module, nn.Linear):
        return dy @ module.weight
    if is_narrow_at_its_end(module):
        weight = module.weight.flip(*range(2, module.weight.dim())).transpose(0, 1)
        reach = [d * (k - 1) for d, k in zip(module.dilation, module.kernel_size, strict=True)]
        padding = [r - p for r, p in zip(reach, _padding(module), strict=True)]
        found: Tensor = _CONVOLVE[weight.dim()](dy, weight, None, 1, padding, module.dilation)
        return found
    return _convolution_backward(module, x, dy, module.weight, 1, [True, False, False])[0]


def is_narrow_at_its_end(module: nn.Module) -> bool:
    """Whether the gradient of the input is cheaper as a convolution of its own: oneDNN then knows a kernel.

    It does for few channels that go in, not for few that come out, as of a layer that makes one logit.
    """
    if not isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d) or not _is_plain_float(module.weight):
        return False
    fits = module.groups == 1 and set(module.stride) == {1} and module.out_channels < _GROUPED_FROM
    sizes = zip(module.dilation, module.kernel_size, strict=True)
    return fits and all(p <= d * (k - 1) for p, (d, k) in zip(_padding(module), sizes, strict=True))


def _pays_grouped(module: Any, x: Tensor) -> bool:
    if isinstance(module, nn.Linear) or not _is_plain_float(x):
        return False
    return _narrowest(module) >= _GROUPED_FROM and module.weight.numel() <= _GROUPED_UP_TO


def _is_plain_float(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu" and tensor.dtype == torch.float32


def _narrowest(module: Any) -> int:
    return int(min(module.in_channels, module.out_channels) // module.groups)


def _grouped(module: Any, x: Tensor, dy: Tensor) -> Tensor:
    """Gradients (mini-batches, ...) from one convolution in which each mini-batch is a group of channels.

    It needs the same arithmetic as one call for each, and avoids the slow kernel that torch takes for a
    single volume.
    """
    parts, shape = len(x), module.weight.shape
    weight = module.weight.new_empty(()).expand(parts * shape[0], *shape[1:])  # only its shape is read
    x, dy = (t.transpose(0, 1).flatten(1, 2) for t in (x, dy))  # (rows, mini-batches * channels, ...)
    return _convolution_backward(module, x, dy, weight, parts, [False, True, False])[1].view(parts, *shape)


def _weight_gradient(module: Any, x: Tensor, dy: Tensor) -> Tensor:
    if isinstance(module, nn.Linear):
        return dy.reshape(-1, dy.shape[-1]).t() @ x.reshape(-1, x.shape[-1])
    padding = _padding(module)
    narrow = _is_plain_float(x) and not module.transposed and _narrowest(module) < _GROUPED_FROM
    if narrow and len(x) == 1 and dy.shape[2] % _SLABS == 0:
        x, dy = _slabs(module, x, dy, padding[0])
        padding = [0, *padding[1:]]
    return _convolution_backward(module, x, dy, module.weight, 1, [False, True, False], padding)[1]


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


def _convolution_backward(
    module: Any,
    x: Tensor,
    dy: Tensor,
    weight: Tensor,
    parts: int,
    wanted: list[bool],
    padding: list[int] | None = None,
) -> tuple[Tensor, ...]:
    found: tuple[Tensor, ...] = torch.ops.aten.convolution_backward(
        dy,
        x,
        weight,
        None,
        module.stride,
        _padding(module) if padding is None else padding,
        module.dilation,
        module.transposed,
        module.output_padding,
        module.groups * parts,
        wanted,
    )
    return found


def _padding(module: Any) -> list[int]:
    if not isinstance(module.padding, str):
        return list(module.padding)
    if module.padding == "valid":
        return [0] * len(module.kernel_size)
    totals = [d * (k - 1) for d, k in zip(module.dilation, module.kernel_size, strict=True)]
    if any(total % 2 for total in totals):
        raise PruningError("engine native", "padding 'same' is uneven here", "take engine func or loop")
    return [total // 2 for total in totals]
