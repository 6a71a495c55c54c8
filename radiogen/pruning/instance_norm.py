"""Instance norm of volumes whose channels are innermost; torch would turn them round and back."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from radiogen.pruning.layer_kernels import channels_last

_LONG = 512  # numbers beside each other in one row, so that a processor is kept busy
_FEW = 32


def is_stock_instance_norm(module: nn.Module) -> bool:
    """Whether a module is torch's own instance norm of volumes, without statistics of its own."""
    stock = isinstance(module, nn.InstanceNorm3d) and type(module).forward is nn.InstanceNorm3d.forward
    return stock and not module.track_running_stats and "forward" not in vars(module)


def instance_norm(module: Any, x: Tensor) -> Tensor:
    """What the module makes of volumes (B, C, D, H, W), with channels last.

    torch 2.13 gives wrong gradients to a single volume where only its gradient has channels last.
    """
    found: Tensor = _InstanceNorm.apply(channels_last(x), module.eps)  # type: ignore[no-untyped-call]
    if not module.affine:
        return found
    weight, bias = (module.get_parameter(name).view(-1, 1, 1, 1) for name in ("weight", "bias"))
    return torch.addcmul(bias, found, weight)


class _InstanceNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float) -> Tensor:
        rows = _rows(x)
        y = rows - _wide(_means(rows, x.shape[1]), rows)
        spread = _wide((_mean_products(y, y, x.shape[1]) + eps).rsqrt_(), rows)
        y.mul_(spread)
        ctx.save_for_backward(y, spread)
        return _volumes(y, x.shape)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None]:
        y, spread = ctx.saved_tensors
        rows, channels = _rows(dy), dy.shape[1]
        mean = _wide(_means(rows, channels), rows)
        along = _wide(_mean_products(rows, y, channels), rows)
        dx = torch.addcmul(-spread * mean, rows, spread).addcmul_(y, spread * along, value=-1)
        return _volumes(dx, dy.shape), None


def _rows(volumes: Tensor) -> Tensor:
    """(B, rows, voxels in a row * C)"""
    last = volumes.permute(0, 2, 3, 4, 1).contiguous()
    channels, voxels = volumes.shape[1], volumes.shape[2:].numel()
    run = math.gcd(voxels, max(1, _LONG // channels))
    return last.view(len(volumes), -1, run * channels)


def _volumes(rows: Tensor, shape: torch.Size) -> Tensor:
    batch, channels, *size = shape
    return rows.view(batch, *size, channels).permute(0, 4, 1, 2, 3)


def _means(rows: Tensor, channels: int) -> Tensor:
    """(B, C)"""
    return rows.mean(1).view(len(rows), -1, channels).mean(1)


def _mean_products(a: Tensor, b: Tensor, channels: int) -> Tensor:
    """(B, C); for few channels one matrix product reads both once and needs no room between."""
    if channels > _FEW:
        return _means(a * b, channels)
    a, b = (rows.view(len(rows), -1, channels) for rows in (a, b))
    return torch.bmm(a.transpose(1, 2), b).diagonal(dim1=1, dim2=2) / a.shape[1]


def _wide(values: Tensor, rows: Tensor) -> Tensor:
    """(B, 1, voxels in a row * C)"""
    return values.repeat(1, rows.shape[2] // values.shape[1]).unsqueeze(1)
