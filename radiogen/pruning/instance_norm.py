"""Instance norm of volumes whose channels are innermost; torch would turn them round and back."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from radiogen.pruning.memory_order import channels_last

_LONG = 512  # numbers beside each other in one row, so that a processor is kept busy


def is_stock_instance_norm(module: nn.Module) -> bool:
    """Whether a module is torch's own instance norm of volumes, without statistics of its own."""
    stock = isinstance(module, nn.InstanceNorm3d) and type(module).forward is nn.InstanceNorm3d.forward
    return stock and not module.track_running_stats and "forward" not in vars(module)


def instance_norm(module: Any, x: Tensor) -> Tensor:
    """What the module makes of volumes (B, C, D, H, W), with channels last.

    torch 2.13 gives wrong gradients to a single volume where only its gradient has channels last.
    """
    found: Tensor = _InstanceNorm.apply(channels_last(x), module.weight, module.bias, module.eps)  # type: ignore[no-untyped-call]
    return found


class _InstanceNorm(torch.autograd.Function):
    """Sums over a volume come from torch's batch norm, which reads it once where channels are innermost.

    It is shown each row of a volume as one voxel of very many channels, so that vectors are full.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
        rows, channels = _rows(x), x.shape[1]
        columns = [torch.batch_norm_update_stats(_as_voxels(volume), None, None, 0.0) for volume in rows]
        means, variances = (_by_channel(torch.stack(each), channels) for each in zip(*columns, strict=True))
        mean = means.mean(1)
        variance = variances.mean(1) + (means - mean.unsqueeze(1)).square().mean(1)
        inverse = (variance + eps).rsqrt()
        scale = inverse if weight is None else inverse * weight
        shift = -mean * scale if bias is None else torch.addcmul(bias, mean, scale, value=-1)
        ctx.save_for_backward(x, mean, inverse, scale)
        return _volumes(torch.addcmul(_wide(shift, rows), rows, _wide(scale, rows)), x.shape)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None, None]:
        x, mean, inverse, scale = ctx.saved_tensors
        rows, changes = _rows(x), _rows(dy)
        wide_mean, wide_inverse = _wide(mean, rows)[:, 0], _wide(inverse, rows)[:, 0]
        columns = [
            torch.ops.aten.native_batch_norm_backward(
                _as_voxels(change), _as_voxels(volume), None, None, None, m, i, True, 0.0, [False, True, True]
            )[1:]
            for change, volume, m, i in zip(changes, rows, wide_mean, wide_inverse, strict=True)
        ]
        along, total = (
            _by_channel(torch.stack(each), x.shape[1]).sum(1) for each in zip(*columns, strict=True)
        )
        voxels = x.shape[2:].numel()
        slope = -scale * inverse * along / voxels
        level = -scale * total / voxels - slope * mean
        dx = torch.addcmul(_wide(level, rows), rows, _wide(slope, rows)).addcmul_(changes, _wide(scale, rows))
        by_weight = along.sum(0) if ctx.needs_input_grad[1] else None
        by_bias = total.sum(0) if ctx.needs_input_grad[2] else None
        return _volumes(dx, dy.shape), by_weight, by_bias, None


def _rows(volumes: Tensor) -> Tensor:
    """(B, rows, voxels in a row * C)"""
    last = volumes.permute(0, 2, 3, 4, 1).contiguous()
    channels, voxels = volumes.shape[1], volumes.shape[2:].numel()
    run = math.gcd(voxels, max(1, _LONG // channels))
    return last.view(len(volumes), -1, run * channels)


def _as_voxels(rows: Tensor) -> Tensor:
    """(1, voxels in a row * C, rows, 1), with channels last."""
    count, wide = rows.shape
    return rows.as_strided((1, wide, count, 1), (count * wide, 1, wide, wide))


def _volumes(rows: Tensor, shape: torch.Size) -> Tensor:
    batch, channels, *size = shape
    return rows.view(batch, *size, channels).permute(0, 4, 1, 2, 3)


def _by_channel(columns: Tensor, channels: int) -> Tensor:
    """(B, voxels in a row, C)"""
    return columns.view(len(columns), -1, channels)


def _wide(values: Tensor, rows: Tensor) -> Tensor:
    """(B, 1, voxels in a row * C)"""
    return values.repeat(1, rows.shape[2] // values.shape[1]).unsqueeze(1)
