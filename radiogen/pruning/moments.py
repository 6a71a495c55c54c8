"""The first two moments of the mini-batch gradients: what most criteria are made of."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from radiogen.pruning.prunable import prunable
from radiogen.pruning.signatures import (
    Batch,
    Loss,
    loss_of,
    read_batches,
    refuse_not_finite,
    sample_count,
)
from radiogen.pruning.state import as_found


@dataclass(frozen=True)
class Moments:
    """Mean gradient and mean squared gradient of the mini-batches, by parameter name."""

    gradient: dict[str, Tensor]  # G
    fisher: dict[str, Tensor]  # F, the diagonal of the empirical Fisher matrix
    samples: int
    batches: int


def gradient_moments(
    model: nn.Module,
    batches: Iterable[Batch],
    loss: Loss,
    weights: Mapping[str, nn.Parameter] | None = None,
) -> Moments:
    """G = mean_b g_b and F = mean_b g_b^2, where g_b is the gradient of the mean loss of mini-batch b.

    The plain loop, one backward pass a mini-batch, in evaluation mode (arXiv:2502.11450). The network is left
    as it was found. A weight that the loss does not depend on has G = F = 0.

    Args:
        model: The network.
        batches: Mini-batches; what matters is how many there are and how large each is.
        loss: Mean loss of a mini-batch.
        weights: The parameters to differentiate by; default: all prunable ones.

    Raises:
        PruningError: There is no mini-batch, the loss is no scalar, or a moment is not finite.
    """
    chosen = prunable(model) if weights is None else dict(weights)
    total = {name: torch.zeros_like(w, requires_grad=False) for name, w in chosen.items()}
    squares = {name: torch.zeros_like(w, requires_grad=False) for name, w in chosen.items()}
    samples = count = 0
    with as_found(model, chosen.values()):
        for batch in read_batches(batches):
            add_gradients(total, squares, batch_gradients(model, batch, loss, chosen))
            samples += sample_count(batch)
            count += 1
    return finish_moments(total, squares, samples, count)


def batch_gradients(
    model: nn.Module, batch: Batch, loss: Loss, weights: Mapping[str, nn.Parameter]
) -> dict[str, Tensor]:
    """Gradients of the mean loss of one mini-batch; a weight that it does not depend on is left out."""
    value = loss_of(model, batch, loss)
    if not value.requires_grad:
        return {}
    found = torch.autograd.grad(value, list(weights.values()), allow_unused=True)
    return {name: g for name, g in zip(weights, found, strict=True) if g is not None}


def add_gradients(total: dict[str, Tensor], squares: dict[str, Tensor], gradients: dict[str, Tensor]) -> None:
    """Add one mini-batch's gradients and their squares to running sums, in place."""
    for name, gradient in gradients.items():
        total[name].add_(gradient)
        squares[name].addcmul_(gradient, gradient)


def finish_moments(total: dict[str, Tensor], squares: dict[str, Tensor], samples: int, count: int) -> Moments:
    """Divide the running sums by the number of mini-batches, in place, and check them.

    Raises:
        PruningError: A moment is not finite; the layer is named.
    """
    for sums in (total, squares):
        for value in sums.values():
            value.div_(count)
        refuse_not_finite(sums, "gradients")
    return Moments(total, squares, samples, count)
