"""The first two moments of the mini-batch gradients: what most criteria are made of."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from radiogen.distributed import all_reduce, all_reduce_counts
from radiogen.pruning.prunable import prunable
from radiogen.pruning.settings import (
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
    engine: str = "loop"


class _Quotients(dict[str, Tensor]):
    """Sums that are added up over the processes and divided one by one, as they are taken out."""

    def __init__(self, sums: dict[str, Tensor], count: int) -> None:
        super().__init__(sums)
        self._count = count

    def pop(self, name: str) -> Tensor:  # type: ignore[override]
        value = super().pop(name).clone()
        all_reduce([value])
        return value.div_(self._count)


class MomentSums:
    """Running sums of mini-batch gradients and of their squares."""

    def __init__(self, weights: Mapping[str, nn.Parameter]) -> None:
        self.total = {name: torch.zeros_like(w, requires_grad=False) for name, w in weights.items()}
        self.squares = {name: torch.zeros_like(w, requires_grad=False) for name, w in weights.items()}
        self.samples = 0
        self.batches = 0

    def count(self, chunk: Iterable[Batch]) -> None:
        """Count mini-batches whose gradients were added."""
        for batch in chunk:
            self.samples += sample_count(batch)
            self.batches += 1

    def add(self, name: str, gradient: Tensor) -> None:
        """Add the gradient of one mini-batch in one layer, and its square."""
        self.total[name].add_(gradient)
        self.squares[name].addcmul_(gradient, gradient)

    def clear(self) -> None:
        """Start anew."""
        for value in [*self.total.values(), *self.squares.values()]:
            value.zero_()
        self.samples = self.batches = 0

    def merge(self, other: "MomentSums") -> None:
        """Add the sums of other mini-batches."""
        for name in self.total:
            self.total[name].add_(other.total[name])
            self.squares[name].add_(other.squares[name])
        self.samples += other.samples
        self.batches += other.batches

    def peek(self, engine: str) -> Moments:
        """The moments so far, over all processes; each is made when it is popped, and the sums stay."""
        beside = next(iter(self.total.values()))
        samples, batches = all_reduce_counts(self.samples, self.batches, like=beside)
        means = (_Quotients(self.total, batches), _Quotients(self.squares, batches))
        return Moments(*means, samples, batches, engine)

    def add_up_processes(self) -> None:
        """Take in the sums of all processes of torch.distributed; every one of them then has the same."""
        all_reduce([*self.total.values(), *self.squares.values()])
        beside = next(iter(self.total.values()))
        self.samples, self.batches = all_reduce_counts(self.samples, self.batches, like=beside)

    def means(self, engine: str = "loop") -> Moments:
        """Divide by the number of mini-batches, in place, and check the result.

        Args:
            engine: What made the sums, for the record.

        Raises:
            PruningError: A moment is not finite; the layer is named.
        """
        gradient = {name: value.div_(self.batches) for name, value in self.total.items()}
        fisher = {name: value.div_(self.batches) for name, value in self.squares.items()}
        refuse_not_finite(gradient, "gradients")
        refuse_not_finite(fisher, "squared gradients")
        return Moments(gradient, fisher, self.samples, self.batches, engine)


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
    sums = MomentSums(chosen)
    with as_found(model, chosen.values()):
        for batch in read_batches(batches):
            loop_chunk(sums, model, [batch], loss, chosen)
    return sums.means()


def loop_chunk(
    sums: MomentSums,
    model: nn.Module,
    chunk: list[Batch],
    loss: Loss,
    weights: Mapping[str, nn.Parameter],
) -> None:
    """Add the gradients of some mini-batches, one backward pass each: the plain loop, the truth.

    Each gradient is added as soon as it is there, and let go, so that never all of them exist at once.
    """
    handles = [
        weight.register_post_accumulate_grad_hook(partial(_take, sums, name))  # type: ignore[no-untyped-call]
        for name, weight in weights.items()
    ]
    try:
        for batch in chunk:
            value = loss_of(model, batch, loss)
            if value.requires_grad:
                value.backward(inputs=list(weights.values()))  # type: ignore[no-untyped-call]
    finally:
        for handle in handles:
            handle.remove()
    sums.count(chunk)


def _take(sums: MomentSums, name: str, weight: Tensor) -> None:
    if weight.grad is not None:
        sums.add(name, weight.grad)
        weight.grad = None
