"""SynFlow: how much of an all-positive flow through the network passes each weight (Tanaka et al. 2020)."""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from radiogen.pruning.scoring import score_in_rounds
from radiogen.pruning.settings import Batch, Loss, Scores, ScoringTask, WeightMasks, read_batches


def synflow_scores(task: ScoringTask) -> Scores:
    """Return abs(w dR/dw), R the sum of the outputs on ones of the network with abs(w), in float64.

    Weights leave in rounds: after round i of n the share density^(i/n) is kept. The scores are those of the
    last round, and below all of them the weights that left earlier: `weight_masks` at the sparsity of the
    settings gives the weights of the last round.

    The paper is about networks of convolutions, BatchNorm and ReLU, for which this is its rule. Where an
    InstanceNorm, GroupNorm or LayerNorm would make the flow of ones vanish and a sigmoid or tanh would
    saturate, they are replaced by positive maps: see `LinearFlow`.
    """
    network = positive_copy(task.model)
    example = ones_like_first(task.batches)
    parameters = dict(network.named_parameters())
    weights = {name: parameters[name] for name in task.weights}

    def flow(masks: WeightMasks) -> Scores:
        return flow_scores(network, example, weights, task.loss, masks)

    return score_in_rounds(flow, task.settings, rounds=task.settings.round_count)


def positive_copy(model: nn.Module) -> nn.Module:
    """Return a float64 copy in evaluation mode; weights, biases and running statistics are made positive."""
    # Some networks (DynUNet) keep outputs of their last pass, whose graph cannot be copied.
    kept = [t for module in model.modules() for t in tree_leaves(vars(module)) if isinstance(t, Tensor)]
    copies = {id(t): t.detach().clone() for t in kept if not t.is_leaf}
    # In float64: a product of many layers of small positive numbers underflows in float32.
    network = copy.deepcopy(model, copies).double().eval()
    with torch.no_grad():
        for tensor in [*network.parameters(), *network.buffers()]:
            if tensor.is_floating_point():
                tensor.abs_()
    for parameter in network.parameters():
        parameter.requires_grad_(False)
        parameter.grad = None
    return network


def ones_like_first(batches: Iterable[Batch]) -> Batch:
    """Return one sample of ones in float64, of the shapes of the first mini-batch; integers stay."""
    first = next(iter(read_batches(batches)))
    return tuple(
        torch.ones_like(t[:1], dtype=torch.float64) if t.is_floating_point() else t[:1] for t in first
    )


def flow_scores(
    network: nn.Module, example: Batch, weights: Mapping[str, nn.Parameter], loss: Loss, masks: WeightMasks
) -> Scores:
    """Return abs(w dR/dw) of a positive network whose weights outside the masks are set to zero, in place.

    R is the sum of everything the network returns; the loss is called only because it knows how the network
    takes its inputs.
    """
    with torch.no_grad():
        for name, mask in masks.items():
            weights[name].masked_fill_(~mask, 0)
    # Masked weights stay at zero: rounds only remove, and `network` is the caller's copy.
    with differentiable(weights):
        total = flow_total(network, example, loss)
        gradients = torch.autograd.grad(total, list(weights.values()), allow_unused=True)
    return {
        name: torch.zeros_like(w) if g is None else (w.detach() * g).abs()
        for (name, w), g in zip(weights.items(), gradients, strict=True)
    }


def flow_total(network: nn.Module, example: Batch, loss: Loss) -> Tensor:
    """Return the sum of everything a positive network returns on ones."""
    outputs: list[Tensor] = []

    def catch(_module: nn.Module, _inputs: Any, output: Any) -> None:
        outputs.extend(t for t in tree_leaves(output) if isinstance(t, Tensor) and t.is_floating_point())

    handle = network.register_forward_hook(catch)
    try:
        with LinearFlow():
            loss(network, example)
    finally:
        handle.remove()
    return torch.stack([output.sum() for output in outputs]).sum()


@contextmanager
def differentiable(weights: Mapping[str, nn.Parameter]) -> Iterator[None]:
    """Make some weights differentiable inside the context."""
    try:
        for weight in weights.values():
            weight.requires_grad_(True)
        with torch.enable_grad():
            yield
    finally:
        for weight in weights.values():
            weight.requires_grad_(False)


class LinearFlow(TorchFunctionMode):
    """A context in which squashing and normalising functions let a positive flow pass instead of stopping it.

    With m the mean of abs(x) over the tensor, held constant: instance, group and layer normalisation become
    x / m; a sigmoid becomes 1/2 + x / (4 m), a tanh x / m, as they are near zero. BatchNorm in evaluation
    mode is linear already and stays.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        replacement = _POSITIVE.get(func)
        if replacement is not None:
            return replacement(args[0] if args else kwargs["input"])
        return func(*args, **(kwargs or {}))


def _scaled(x: Tensor) -> Tensor:
    size = x.detach().abs().mean()
    return x / torch.where(size > 0, size, 1.0)  # a flow that has died stays zero, and so do its gradients


def _half_open(x: Tensor) -> Tensor:
    return 0.5 + _scaled(x) / 4


_POSITIVE: dict[Callable[..., Any], Callable[[Tensor], Tensor]] = {
    F.instance_norm: _scaled,
    torch.instance_norm: _scaled,
    F.group_norm: _scaled,
    torch.group_norm: _scaled,
    F.layer_norm: _scaled,
    torch.layer_norm: _scaled,
    torch.tanh: _scaled,
    Tensor.tanh: _scaled,
    F.tanh: _scaled,
    torch.sigmoid: _half_open,
    Tensor.sigmoid: _half_open,
    F.sigmoid: _half_open,
}
