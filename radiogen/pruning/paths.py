"""Paths through a pruned network: which layers and inputs the weight masks cut off from the output."""

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from radiogen.pruning.settings import Batch, Loss, WeightMasks
from radiogen.pruning.synflow import differentiable, flow_total, ones_like_first, positive_copy


@dataclass(frozen=True)
class Paths:
    """What weight masks do to the paths that lead from the input of a network to its output."""

    cut: frozenset[str]  # layers on a path in the dense network and on none with the masks
    lost_inputs: tuple[str, ...]  # arguments of `forward` that the output depended on and does no more
    is_open: bool  # whether a path is left that leads from an input to the output


def find_paths(model: nn.Module, masks: WeightMasks, batches: Iterable[Batch], loss: Loss) -> Paths:
    """Follow a flow of ones through a network, dense and with weight masks.

    All weights are made positive, so that two paths cannot cancel each other: only a cut makes the flow zero.
    What is added on the way (biases, running means) is left out, since a flow behind a cut would start anew.

    Args:
        model: The network; it is not changed.
        masks: Booleans by parameter name.
        batches: The first one gives the shapes of the inputs.
        loss: Calls the network with its inputs.
    """
    network = positive_copy(model)
    with torch.no_grad():
        for name, tensor in [*network.named_parameters(), *network.named_buffers()]:
            if name.rpartition(".")[2].startswith(("bias", "running_mean")):
                tensor.zero_()
            elif isinstance(tensor, nn.Parameter):
                # Training may open what starts at zero, such as the last norm of a residual block.
                tensor.masked_fill_(tensor == 0, 1)
    parameters = dict(network.named_parameters(remove_duplicate=False))
    weights = {name: parameters[name] for name in masks}
    example = ones_like_first(batches)
    # Layers that nothing passes in the dense network either (unused ones) are not the masks' doing.
    dense = _follow(network, weights, example, loss)
    with torch.no_grad():
        for name, mask in masks.items():
            weights[name].masked_fill_(~mask.to(weights[name].device), 0)
    left = _follow(network, weights, example, loss)
    names = list(inspect.signature(model.forward).parameters)
    lost = tuple(
        name for name, was, stays in zip(names, dense.inputs, left.inputs, strict=False) if was and not stays
    )
    # Inputs that are whole numbers, such as tokens, have no gradient: then a layer that is passed will do.
    is_open = any(left.inputs) if any(dense.inputs) else bool(left.layers) or not dense.layers
    return Paths(frozenset(dense.layers - left.layers), lost, is_open)


@dataclass(frozen=True)
class _Reach:
    layers: set[str]
    inputs: list[bool]


def _follow(network: nn.Module, weights: Mapping[str, nn.Parameter], example: Batch, loss: Loss) -> _Reach:
    """Return what a flow of ones passes; each gradient is let go once it was read."""
    layers: set[str] = set()

    def read_gradient(name: str, weight: Tensor) -> None:
        if weight.grad is not None and bool(((weight.grad != 0) & (weight.detach() != 0)).any()):
            layers.add(name)
        weight.grad = None

    inputs = [t.clone().requires_grad_() if t.is_floating_point() else t for t in example[:-1]]
    handles = []
    try:
        with differentiable(weights):
            for name, weight in weights.items():
                handles.append(weight.register_post_accumulate_grad_hook(partial(read_gradient, name)))  # type: ignore[no-untyped-call]
            total = flow_total(network, (*inputs, example[-1]), loss)
            if total.requires_grad:
                total.backward(inputs=[*weights.values(), *(t for t in inputs if t.requires_grad)])  # type: ignore[no-untyped-call]
    finally:
        for handle in handles:
            handle.remove()
    return _Reach(layers, [t.grad is not None and bool(t.grad.any()) for t in inputs])
