"""Weight and input gradients of one convolution or linear layer, by torch's own kernels."""

from typing import Any

import torch
from torch import Tensor, nn

from radiogen.errors import PruningError
from radiogen.pruning.moments import MomentSums

Use = tuple[Tensor, Tensor]
"""What went into a layer, and the gradient of what came out: (mini-batches, rows, channels, ...)."""

TOGETHER = 8  # mini-batches whose gradients one grouped convolution gives
_GROUPED_UP_TO = 2**18  # weights; above that the time goes into writing gradients, not into finding them
_GROUPED_FROM = 8  # channels; below that oneDNN has no good kernel for grouped convolutions


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


def input_gradient(module: nn.Module, x: Tensor, dy: Tensor) -> Tensor:
    """The gradient of what went into a layer; rows first."""
    if isinstance(module, nn.Linear):
        return dy @ module.weight
    weight = module.get_parameter("weight")
    return _convolution_backward(module, x, dy, weight, 1, [True, False, False])[0]


def _pays_grouped(module: Any, x: Tensor) -> bool:
    if isinstance(module, nn.Linear) or x.device.type != "cpu" or x.dtype != torch.float32:
        return False
    narrowest = min(module.in_channels, module.out_channels) // module.groups
    return bool(narrowest >= _GROUPED_FROM and module.weight.numel() <= _GROUPED_UP_TO)


def _grouped(module: Any, x: Tensor, dy: Tensor) -> Tensor:
    """Gradients (mini-batches, ...) from one convolution in which each mini-batch is a group of channels.

    It needs the same arithmetic as one call for each, and avoids the slow kernel that torch takes for a
    single volume.
    """
    parts, shape = len(x), module.weight.shape
    weight = module.weight.new_empty(()).expand(parts * shape[0], *shape[1:])  # only its shape is read
    x, dy = (t.transpose(0, 1).flatten(1, 2) for t in (x, dy))  # (rows, mini-batches * channels, ...)
    return _convolution_backward(module, x, dy, weight, parts, [False, True, False])[1].view(parts, *shape)


def _weight_gradient(module: nn.Module, x: Tensor, dy: Tensor) -> Tensor:
    if isinstance(module, nn.Linear):
        return dy.reshape(-1, dy.shape[-1]).t() @ x.reshape(-1, x.shape[-1])
    weight = module.get_parameter("weight")
    return _convolution_backward(module, x, dy, weight, 1, [False, True, False])[1]


def _convolution_backward(
    module: Any, x: Tensor, dy: Tensor, weight: Tensor, parts: int, wanted: list[bool]
) -> tuple[Tensor, ...]:
    found: tuple[Tensor, ...] = torch.ops.aten.convolution_backward(
        dy,
        x,
        weight,
        None,
        module.stride,
        _padding(module),
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
