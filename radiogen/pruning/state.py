"""Leave a network as it was found: weights, gradients, buffers, modes and random state."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def as_found(
    model: nn.Module, differentiate: Collection[Tensor] | None = None, restore_buffers: bool = True
) -> Iterator[None]:
    """Put a network into evaluation mode for scoring, and restore all of it afterwards, also on errors.

    Inside, gradients are enabled whatever the caller set. Weights are not copied: what runs inside must not
    change them.

    Args:
        model: The network.
        differentiate: The parameters to differentiate by; all others are frozen meanwhile. Default: all.
        restore_buffers: Whether buffers are restored; a warm-up changes them on purpose.
    """
    modes = [(module, module.training) for module in model.modules()]
    parameters = [(p, p.requires_grad, p.grad) for p in model.parameters()]
    buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers() if restore_buffers]
    wanted = None if differentiate is None else {id(p) for p in differentiate}
    with torch.random.fork_rng(devices=_cuda_devices(model)), torch.enable_grad():
        try:
            model.eval()
            for parameter, _, _ in parameters:
                parameter.grad = None
                parameter.requires_grad_(wanted is None or id(parameter) in wanted)
            yield
        finally:
            for module, training in modes:
                module.training = training
            for parameter, requires_grad, grad in parameters:
                parameter.requires_grad_(requires_grad)
                parameter.grad = grad
            with torch.no_grad():
                for buffer, before in buffers:
                    buffer.copy_(before)


def _cuda_devices(model: nn.Module) -> list[int]:
    indices = {p.device.index for p in model.parameters() if p.device.type == "cuda"}
    return sorted(index for index in indices if index is not None)
