"""The kernels of one layer that are fast on a CPU, beside those that torch takes by itself."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from radiogen.errors import PruningError
from radiogen.pruning import voxel_pairs
from radiogen.pruning.memory_order import channels_last, has_channels_last, said_channels_last
from radiogen.pruning.voxel_pairs import VECTOR, Geometry

CONVOLVE: dict[int, Any] = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}  # by the axes of a weight
FEW = 8  # channels; below that oneDNN has no good kernel for one of the three passes


def is_plain_float(tensor: Tensor) -> bool:
    """Whether oneDNN's kernels for the CPU are the ones that torch takes."""
    return tensor.device.type == "cpu" and tensor.dtype == torch.float32


def wants_channels_last(module: nn.Module) -> bool:
    """Whether a network with this layer is faster with the channels of its volumes innermost.

    oneDNN fills channels up to 16 otherwise: at 8 channels, gradients take half the time so, at 16 twice.
    """
    if not isinstance(module, nn.Conv3d | nn.ConvTranspose3d) or not is_plain_float(module.weight):
        return False
    return bool(torch._C._has_mkldnn) and 1 < module.out_channels < VECTOR


def can_swap(module: nn.Module) -> bool:
    """Whether a convolution of volumes has many channels before it and after it too few for oneDNN."""
    if not isinstance(module, nn.Conv3d) or not is_plain_float(module.weight) or module.groups != 1:
        return False
    fits = {*module.stride, *module.dilation} == {1} and module.out_channels < VECTOR <= module.in_channels
    sizes = zip(padding_of(module), module.kernel_size, strict=True)
    return fits and all(p < k for p, k in sizes)


def output_of(module: Any, x: Tensor) -> Tensor:
    """What comes out of a layer."""
    if has_channels_last(x) and _is_plain_volume(module):
        how = _geometry(module, module.output_padding)
        if not module.transposed and voxel_pairs.can_keep(x, module.weight, how):
            return voxel_pairs.keep(x, module.weight, module.bias, how)
        if module.transposed and voxel_pairs.can_double(module.weight, how):
            return voxel_pairs.double(x, module.weight, module.bias, how)
    if not is_narrow_at_its_end(module) or x.dim() != 5:
        return type(module).forward(module, x)  # type: ignore[no-any-return]
    weight, bias, padding = module.weight, module.bias, padding_of(module)
    out, reach = weight.shape[0], weight.shape[2]
    if out * reach > VECTOR:
        return type(module).forward(module, x)  # type: ignore[no-any-return]
    planes = weight.transpose(1, 2).flatten(0, 1).unsqueeze(2)  # each plane of the kernel is a channel
    dilation: tuple[int, ...] = module.dilation
    by_plane = F.conv3d(x, planes, None, 1, (0, *padding[1:]), (1, *dilation[1:]))
    by_plane = by_plane.view(len(x), out, reach, *by_plane.shape[2:])
    by_plane = F.pad(by_plane, [0, 0, 0, 0, padding[0], padding[0]])
    depth = by_plane.shape[3] - dilation[0] * (reach - 1)
    shifted = [by_plane[:, :, k, k * dilation[0] : k * dilation[0] + depth] for k in range(reach)]
    found = torch.stack(shifted).sum(0)
    return found if bias is None else found + bias.view(-1, 1, 1, 1)


def sloped(x: Tensor, slope: float) -> Tensor:
    """PReLU of one slope that is not differentiated by: as LeakyReLU it is faster backward."""
    found: Tensor = _Sloped.apply(x, slope)  # type: ignore[no-untyped-call]
    return found


class _Sloped(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, slope: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.slope = slope
        return F.leaky_relu(x, slope)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors  # torch is slow where the gradient does not lie in memory as this does
        dy = channels_last(dy) if has_channels_last(x) else dy
        dx: Tensor = torch.ops.aten.leaky_relu_backward(dy, x, ctx.slope, False)
        return dx, None


def input_gradient(module: Any, x: Tensor, dy: Tensor) -> Tensor:
    """The gradient of what went into a layer; rows first."""
    if isinstance(module, nn.Linear):
        return dy @ module.weight
    if is_narrow_at_its_end(module):
        weight = module.weight.flip(*range(2, module.weight.dim())).transpose(0, 1)
        reach = [d * (k - 1) for d, k in zip(module.dilation, module.kernel_size, strict=True)]
        padding = [r - p for r, p in zip(reach, padding_of(module), strict=True)]
        if has_channels_last(x):
            how = Geometry((1, 1, 1), tuple(padding), module.dilation)
            dy, weight = said_channels_last(dy), channels_last(weight)
            if voxel_pairs.can_keep(dy, weight, how):
                return voxel_pairs.keep(dy, weight, None, how)
        found: Tensor = CONVOLVE[weight.dim()](dy, weight, None, 1, padding, module.dilation)
        return found
    if has_channels_last(x) and _is_plain_volume(module) and not module.transposed:
        how = _geometry(module, _left_over(module, x, dy))
        if voxel_pairs.can_double(module.weight, how):
            return voxel_pairs.double(dy, module.weight, None, how)
    return convolution_backward(module, x, dy, module.weight, 1, [True, False, False])[0]


def _is_plain_volume(module: nn.Module) -> bool:
    """Whether a layer is a convolution of volumes or a transposed one, in one group, float32, on a CPU."""
    kinds = nn.Conv3d | nn.ConvTranspose3d
    return isinstance(module, kinds) and module.groups == 1 and is_plain_float(module.weight)


def _geometry(module: Any, output_padding: tuple[int, ...]) -> Geometry:
    return Geometry(module.stride, tuple(padding_of(module)), module.dilation, output_padding)


def _left_over(module: Any, x: Tensor, dy: Tensor) -> tuple[int, ...]:
    """Voxels at the far end of each axis that a strided convolution did not come to."""
    kernel = zip(module.kernel_size, module.stride, padding_of(module), module.dilation, strict=True)
    sizes = zip(x.shape[2:], dy.shape[2:], kernel, strict=True)
    return tuple(n - ((m - 1) * s - 2 * p + d * (k - 1) + 1) for n, m, (k, s, p, d) in sizes)


def is_narrow_at_its_end(module: nn.Module) -> bool:
    """Whether the gradient of the input is cheaper as a convolution of its own: oneDNN then knows a kernel.

    It does for few channels that go in, not for few that come out, as of a layer that makes one logit.
    """
    if not isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d) or not is_plain_float(module.weight):
        return False
    fits = module.groups == 1 and set(module.stride) == {1} and module.out_channels < FEW
    sizes = zip(module.dilation, module.kernel_size, strict=True)
    return fits and all(p <= d * (k - 1) for p, (d, k) in zip(padding_of(module), sizes, strict=True))


def convolution_backward(
    module: Any,
    x: Tensor,
    dy: Tensor,
    weight: Tensor,
    parts: int,
    wanted: list[bool],
    padding: list[int] | None = None,
) -> tuple[Tensor, ...]:
    """torch's own backward pass of a convolution: gradients of input, weight and bias, as wanted."""
    found: tuple[Tensor, ...] = torch.ops.aten.convolution_backward(
        dy,
        x,
        weight,
        None,
        module.stride,
        padding_of(module) if padding is None else padding,
        module.dilation,
        module.transposed,
        module.output_padding,
        module.groups * parts,
        wanted,
    )
    return found


def padding_of(module: Any) -> list[int]:
    """The padding of a convolution in numbers, also where it has a name."""
    if not isinstance(module.padding, str):
        return list(module.padding)
    if module.padding == "valid":
        return [0] * len(module.kernel_size)
    totals = [d * (k - 1) for d, k in zip(module.dilation, module.kernel_size, strict=True)]
    if any(total % 2 for total in totals):
        raise PruningError("engine native", "padding 'same' is uneven here", "take engine func or loop")
    return [total // 2 for total in totals]
