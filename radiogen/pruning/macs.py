"""Multiply-accumulate operations (MACs) of convolutions and linear layers in one pass through a network."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from radiogen.pruning.prunable import PRUNABLE_MODULES, TRANSPOSED


def weight_uses(model: nn.Module, inputs: Sequence[Tensor]) -> dict[str, int]:
    """How often one pass multiplies each weight, by parameter name; a layer that is not called is left out.

    A convolution uses each of its weights once a voxel of its output, a transposed one once a voxel of its
    input, padding included, as is usual when MACs are counted.

    Args:
        model: The network; on the meta device nothing is computed.
        inputs: What it is called with, one sample in each.
    """
    names = {id(p): name for name, p in model.named_parameters()}
    uses: dict[str, int] = {}

    def count(module: nn.Module, given: tuple[Any, ...], output: Tensor) -> None:
        weight = module.get_parameter("weight")
        if isinstance(module, nn.Linear):
            times = output.numel() // weight.shape[0]
        else:
            seen = given[0] if isinstance(module, TRANSPOSED) else output
            times = seen.numel() // seen.shape[-weight.dim() + 1]
        name = names[id(weight)]
        uses[name] = uses.get(name, 0) + times

    handles = [m.register_forward_hook(count) for m in model.modules() if isinstance(m, PRUNABLE_MODULES)]
    try:
        with torch.no_grad():
            model(*inputs)
    finally:
        for handle in handles:
            handle.remove()
    return uses


def count_macs(model: nn.Module, inputs: Sequence[Tensor]) -> int:
    """MACs of all convolutions and linear layers in one pass; `inputs` as in `weight_uses`."""
    weights = dict(model.named_parameters())
    return sum(weights[name].numel() * times for name, times in weight_uses(model, inputs).items())
