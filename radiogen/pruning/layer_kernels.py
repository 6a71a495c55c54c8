"""The kernels of one layer that are fast on a CPU, beside those that torch takes by itself."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from radiogen.errors import PruningError

CONVOLVE: dict[int, Any] = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}  # by the axes of a weight
FEW = 8  # channels; below that oneDNN has no good kernel for one of the three passes
_VECTOR = 16  # channels that oneDNN works on together, and fills up with zeros


def is_plain_float(tensor: Tensor) -> bool:
    """Whether oneDNN's kernels for the CPU are the ones that torch takes."""
    return tensor.device.type == "cpu" and tensor.dtype == torch.float32


def wants_channels_last(module: nn.Module) -> bool:
    """Whether a network with this layer is faster with the channels of its volumes innermost.

    oneDNN fills channels up to 16 otherwise: at 8 channels, gradients take half the time so, at 16 twice.
    """
    if not isinstance(module, nn.Conv3d | nn.ConvTranspose3d) or not is_plain_float(module.weight):
        return False
    return bool(torch._C._has_mkldnn) and 1 < module.out_channels < _VECTOR


def channels_last(tensor: Tensor) -> Tensor:
    """A volume with its channels innermost."""
    return tensor.contiguous(memory_format=torch.channels_last_3d) if tensor.dim() == 5 else tensor


def has_channels_last(tensor: Tensor) -> bool:
    """Whether a tensor is a volume with its channels innermost, and could lie in memory otherwise."""
    if tensor.dim() != 5 or tensor.is_contiguous():
        return False
    return tensor.permute(0, 2, 3, 4, 1).is_contiguous()


def can_swap(module: nn.Module) -> bool:
    """Whether a convolution of volumes has many channels before it and after it too few for oneDNN."""
    if not isinstance(module, nn.Conv3d) or not is_plain_float(module.weight) or module.groups != 1:
        return False
    fits = {*module.stride, *module.dilation} == {1} and module.out_channels < _VECTOR <= module.in_channels
    sizes = zip(padding_of(module), module.kernel_size, strict=True)
    return fits and all(p < k for p, k in sizes)


def output_of(module: nn.Module, x: Tensor) -> Tensor:
    """What comes out of a layer."""
    if has_channels_last(x) and fits_in_pairs(module, x):
        return _in_pairs(module, x)
    if not is_narrow_at_its_end(module) or x.dim() != 5:
        return type(module).forward(module, x)  # type: ignore[no-any-return]
    weight, bias, padding = module.get_parameter("weight"), module.bias, padding_of(module)
    out, reach = weight.shape[0], weight.shape[2]
    if out * reach > _VECTOR:
        return type(module).forward(module, x)  # type: ignore[no-any-return]
    planes = weight.transpose(1, 2).flatten(0, 1).unsqueeze(2)  # each plane of the kernel is a channel
    dilation: tuple[int, ...] = module.dilation  # type: ignore[assignment]
    by_plane = F.conv3d(x, planes, None, 1, (0, *padding[1:]), (1, *dilation[1:]))
    by_plane = by_plane.view(len(x), out, reach, *by_plane.shape[2:])
    by_plane = F.pad(by_plane, [0, 0, 0, 0, padding[0], padding[0]])
    depth = by_plane.shape[3] - dilation[0] * (reach - 1)
    shifted = [by_plane[:, :, k, k * dilation[0] : k * dilation[0] + depth] for k in range(reach)]
    found = torch.stack(shifted).sum(0)
    return found if bias is None else found + bias.view(-1, 1, 1, 1)  # type: ignore[operator]


def fits_in_pairs(module: nn.Module, x: Tensor) -> bool:
    """Whether a layer gives so few channels that those of two voxels fit where oneDNN works on those of one.

    That goes for convolutions that keep the size along x and for transposed ones that double it.
    """
    if not isinstance(module, nn.Conv3d | nn.ConvTranspose3d) or not is_plain_float(module.weight):
        return False
    few = _VECTOR // 4 < module.out_channels <= _VECTOR // 2 and module.groups == module.dilation[2] == 1
    along_x = (module.kernel_size[2], module.stride[2], padding_of(module)[2], module.output_padding[2])
    if module.transposed:
        return few and along_x == (3, 2, 1, 1)
    return few and along_x == (3, 1, 1, 0) and x.shape[4] % 2 == 0


def _in_pairs(module: Any, x: Tensor) -> Tensor:
    """A layer of volumes with channels last that gives two neighbours along x at once, as channels.

    They lie in memory as they should. A third of the products is with zeros, and no channel is filled up.
    """
    pairs = channels_last(_pairs_of_doubled(module, x) if module.transposed else _pairs_of_kept(module, x))
    rows, channels, depth, height, width = pairs.shape
    voxels = pairs.permute(0, 2, 3, 4, 1).reshape(rows, depth, height, 2 * width, channels // 2)
    return voxels.permute(0, 4, 1, 2, 3)


def _pairs_of_kept(module: Any, x: Tensor) -> Tensor:
    """A convolution: of four voxels a pair's left one sees the first three, its right one the last three."""
    weight, out = module.weight, module.out_channels
    wide = weight.new_zeros(2 * out, *weight.shape[1:4], 4)
    wide[:out, ..., :3] = weight
    wide[out:, ..., 1:] = weight
    bias = None if module.bias is None else module.bias.repeat(2)
    steps, padding = (*module.stride[:2], 2), padding_of(module)
    return F.conv3d(x, channels_last(wide), bias, steps, padding, module.dilation)


def _pairs_of_doubled(module: Any, x: Tensor) -> Tensor:
    """A transposed convolution: a pair's left voxel sees one voxel of the input, its right one two."""
    weight, out = module.weight, module.out_channels
    wide = weight.new_zeros(len(weight), 2 * out, *weight.shape[2:4], 2)
    wide[:, :out, ..., 1] = weight[..., 1]
    wide[:, out:] = weight[..., ::2]
    bias = None if module.bias is None else module.bias.repeat(2)
    steps, beyond = (*module.stride[:2], 1), (*module.output_padding[:2], 0)
    padding, x = (*padding_of(module)[:2], 1), channels_last(F.pad(x, [0, 1]))
    return F.conv_transpose3d(x, channels_last(wide), bias, steps, padding, beyond, 1, module.dilation)


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
        weight = channels_last(weight) if has_channels_last(x) else weight
        found: Tensor = CONVOLVE[weight.dim()](dy, weight, None, 1, padding, module.dilation)
        return found
    return convolution_backward(module, x, dy, module.weight, 1, [True, False, False])[0]


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
