"""The table of what weight masks keep of each layer, and the check for layer collapse."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from radiogen.errors import PruningError
from radiogen.pruning.prunable import TRANSPOSED
from radiogen.pruning.settings import Batch, Loss, WeightMasks
from radiogen.pruning.synflow import differentiable, flow_total, ones_like_first, positive_copy
from radiogen.pruning.weight_masks import match_masks


@dataclass(frozen=True)
class LayerRow:
    """One layer of a pruned network; a channel is dead when none of its weights is kept."""

    name: str
    weights: int
    kept: int
    channels_in: int
    dead_in: int
    channels_out: int
    dead_out: int
    is_cut: bool  # weights are kept, but nothing from the input reaches the output through them
    macs_dense: int = 0  # multiply-accumulate operations of one pass of the dense layer; 0 if not counted

    @property
    def share(self) -> float:
        """Share of the weights that is kept."""
        return self.kept / self.weights

    @property
    def macs(self) -> int:
        """MACs with a kept weight: what is left for a machine that skips zeros, and no other."""
        return self.macs_dense // self.weights * self.kept


def layer_table(
    model: nn.Module,
    masks: WeightMasks,
    batches: Iterable[Batch] | None = None,
    loss: Loss | None = None,
    uses: Mapping[str, int] | None = None,
) -> list[LayerRow]:
    """Return what the weight masks keep of each layer.

    Args:
        model: The network; it is not changed.
        masks: Booleans by parameter name.
        batches: With `loss`, gives the shapes of the input, so that cut paths are found too: a flow of ones
            through the network with positive weights and without biases must pass every layer that it passes
            in the dense network.
        loss: Calls the network with its inputs.
        uses: How often one pass multiplies each weight, from `weight_uses`, for the MACs.

    Raises:
        PruningError: The masks are of another architecture; the layer is named.
    """
    modules = {id(module.weight): module for module in model.modules() if hasattr(module, "weight")}
    cut = set[str]() if batches is None or loss is None else cut_layers(model, masks, batches, loss)
    rows = []
    for name, (weight, mask) in match_masks(model, masks).items():
        outputs, inputs = _live_channels(modules.get(id(weight)), mask)
        kept = int(mask.sum())
        rows.append(
            LayerRow(
                name=name,
                weights=mask.numel(),
                kept=kept,
                channels_in=inputs.numel(),
                dead_in=int((~inputs).sum()),
                channels_out=outputs.numel(),
                dead_out=int((~outputs).sum()),
                is_cut=kept > 0 and name in cut,
                macs_dense=mask.numel() * (uses or {}).get(name, 0),
            )
        )
    return rows


def cut_layers(model: nn.Module, masks: WeightMasks, batches: Iterable[Batch], loss: Loss) -> set[str]:
    """Return the layers that something flows through in the dense network and nothing in the pruned one."""
    # Positive weights, so that two paths cannot cancel each other: only a cut makes the flow zero.
    network = positive_copy(model)
    with torch.no_grad():
        for name, tensor in [*network.named_parameters(), *network.named_buffers()]:
            # Without what is added on the way, a flow behind a cut would start anew.
            if name.rpartition(".")[2].startswith(("bias", "running_mean")):
                tensor.zero_()
    parameters = dict(network.named_parameters(remove_duplicate=False))
    weights = {name: parameters[name] for name in masks}
    example = ones_like_first(batches)
    # Layers that nothing passes in the dense network either (unused ones) are not the masks' doing.
    dense = _reached(network, weights, example, loss)
    with torch.no_grad():
        for name, mask in masks.items():
            weights[name].masked_fill_(~mask.to(weights[name].device), 0)
    return dense - _reached(network, weights, example, loss)


def _reached(network: nn.Module, weights: Mapping[str, nn.Parameter], example: Batch, loss: Loss) -> set[str]:
    """Return the layers that a flow of ones passes; each gradient is let go once it was read."""
    reached: set[str] = set()

    def read_gradient(name: str, weight: Tensor) -> None:
        if weight.grad is not None and bool(((weight.grad != 0) & (weight.detach() != 0)).any()):
            reached.add(name)
        weight.grad = None

    handles = []
    try:
        with differentiable(weights):
            for name, weight in weights.items():
                handles.append(weight.register_post_accumulate_grad_hook(partial(read_gradient, name)))  # type: ignore[no-untyped-call]
            total = flow_total(network, example, loss)
            if total.requires_grad:
                total.backward(inputs=list(weights.values()))  # type: ignore[no-untyped-call]
    finally:
        for handle in handles:
            handle.remove()
    return reached


def check_collapse(table: list[LayerRow], allow: bool = False) -> None:
    """Refuse a network with a layer that nothing passes any more.

    Args:
        table: From `layer_table`.
        allow: Accept such layers.

    Raises:
        PruningError: A layer has collapsed; it is named.
    """
    hint = (
        "lower --sparsity, take --scope layer, --warmup epoch or --criterion random, "
        "or accept it with --allow-collapse"
    )
    if allow:
        return
    for row in table:
        if row.kept == 0:
            raise PruningError(row.name, f"none of its {row.weights} weights is kept", hint)
        if row.is_cut:
            raise PruningError(
                row.name,
                f"{row.kept} of {row.weights} weights are kept, but no path leads through them",
                hint,
            )


def _live_channels(module: nn.Module | None, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return which output and which input channels have a kept weight.

    Weights are (out, in / groups, ...), those of a transposed convolution (in, out / groups, ...).
    """
    pairs = mask.reshape(*mask.shape[:2], -1).any(dim=2) if mask.dim() > 1 else mask.reshape(-1, 1)
    groups = int(getattr(module, "groups", 1))
    blocks = pairs.reshape(groups, -1, pairs.shape[1])
    first_axis = blocks.any(dim=2).reshape(-1)
    second_axis = blocks.any(dim=1).reshape(-1)
    return (second_axis, first_axis) if isinstance(module, TRANSPOSED) else (first_axis, second_axis)
