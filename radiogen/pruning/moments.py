"""Mean gradient and mean squared gradient of the mini-batches, what most criteria are made of.

Two engines take the gradients: the plain loop, which is the reference, and hooks, which share one pass
between several mini-batches. `radiogen.pruning.measuring` chooses between them.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from radiogen.distributed import all_gather, all_reduce, all_reduce_counts
from radiogen.errors import PruningError
from radiogen.pruning.prunable import PRUNABLE_MODULES, prunable
from radiogen.pruning.settings import (
    Batch,
    Loss,
    loss_of,
    read_batches,
    refuse_non_finite,
    sample_count,
    scoring_state,
)

Weights = Mapping[str, nn.Parameter]


@dataclass(frozen=True)
class Moments:
    """Mean gradient and mean squared gradient of the mini-batches, by parameter name."""

    gradient: dict[str, Tensor]  # G
    fisher: dict[str, Tensor]  # F, the diagonal of the empirical Fisher matrix
    samples: int
    batches: int
    batch_size: int  # samples of a full mini-batch; the last one may hold fewer
    engine: str = "loop"


class MomentSums:
    """Running sums of mini-batch gradients and of their squares."""

    def __init__(self, weights: Weights) -> None:
        self.total = {name: torch.zeros_like(w, requires_grad=False) for name, w in weights.items()}
        self.squares = {name: torch.zeros_like(w, requires_grad=False) for name, w in weights.items()}
        self.samples = 0
        self.batches = 0
        self.batch_size = 0

    def add(self, name: str, gradient: Tensor) -> None:
        """Add the gradient of one mini-batch in one layer, and its square."""
        self.total[name].add_(gradient)
        self.squares[name].addcmul_(gradient, gradient)

    def count(self, chunk: Iterable[Batch]) -> None:
        """Count mini-batches whose gradients were added."""
        for batch in chunk:
            self.samples += sample_count(batch)
            self.batches += 1
            self.batch_size = max(self.batch_size, sample_count(batch))

    def means(self, engine: str = "loop", keep_sums: bool = False) -> Moments:
        """Add up over the processes of torch.distributed and divide by the number of mini-batches.

        Args:
            engine: What made the sums, for the record.
            keep_sums: Leave the sums as they are, for more mini-batches; otherwise they are used up, which
                saves two copies of the weights.

        Raises:
            PruningError: A moment is not finite; the layer is named.
        """
        total, squares = self.total, self.squares
        if keep_sums:
            total = {name: value.clone() for name, value in total.items()}
            squares = {name: value.clone() for name, value in squares.items()}
        all_reduce([*total.values(), *squares.values()])
        some_tensor = next(iter(total.values()))
        samples, batches = all_reduce_counts(self.samples, self.batches, like=some_tensor)
        gradient = {name: value.div_(batches) for name, value in total.items()}
        fisher = {name: value.div_(batches) for name, value in squares.items()}
        refuse_non_finite(gradient, "gradients")
        refuse_non_finite(fisher, "squared gradients")
        batch_size = max(all_gather([self.batch_size]))  # a rank may have got the short one only
        return Moments(gradient, fisher, samples, batches, batch_size, engine)


def gradient_moments(
    model: nn.Module, batches: Iterable[Batch], loss: Loss, weights: Weights | None = None
) -> Moments:
    """Return G = mean_b g_b and F = mean_b g_b^2, g_b being the gradient of the mean loss of mini-batch b.

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
    with scoring_state(model, chosen.values()):
        for batch in read_batches(batches):
            add_by_loop(sums, model, [batch], loss, chosen)
    return sums.means()


def add_by_loop(sums: MomentSums, model: nn.Module, chunk: list[Batch], loss: Loss, weights: Weights) -> None:
    """Add the gradients of some mini-batches, one backward pass each: the reference.

    Each gradient is added as soon as it is there, and let go, so that never all of them exist at once.
    """

    def take(name: str, weight: Tensor) -> None:
        if weight.grad is not None:
            sums.add(name, weight.grad)
            weight.grad = None

    handles = [
        weight.register_post_accumulate_grad_hook(partial(take, name))  # type: ignore[no-untyped-call]
        for name, weight in weights.items()
    ]
    try:
        for batch in chunk:
            value = loss_of(model, batch, loss)
            # A loss that depends on none of the weights adds zeros.
            if value.requires_grad:
                value.backward(inputs=list(weights.values()))  # type: ignore[no-untyped-call]
    finally:
        for handle in handles:
            handle.remove()
    sums.count(chunk)


def add_by_hooks(
    sums: MomentSums, model: nn.Module, chunk: list[Batch], loss: Loss, weights: Weights
) -> None:
    """Add the gradients of some mini-batches of one shape from one forward and one backward pass.

    A batched backward pass gives the sum of the gradients but not the sum of their squares. So only the
    passes to the output and back to the inputs of the layers are shared; hooks catch what goes into each
    layer and the gradient of what comes out, and the weight gradient is taken for one mini-batch at a time.

    Rows of a layer's input must come in the order of the mini-batches, samples must not interact, and weights
    must be used by their own modules; the caller checks that by comparing with the loop.

    Raises:
        PruningError: A weight is none of a convolution or linear layer.
        RuntimeError: The network does something that hooks do not expect.
    """
    catcher = _LayerCatcher(sums, len(chunk))
    with catcher.attached(model, weights), torch.enable_grad():
        total = _joined_loss(model, chunk, loss)
        if total.requires_grad:
            torch.autograd.grad(total, [catcher.anchor], allow_unused=True)
    catcher.finish()
    sums.count(chunk)


class _LayerCatcher:
    """Catches input and output gradient of each use of a layer, and takes its weight gradients."""

    def __init__(self, sums: MomentSums, batches: int) -> None:
        self.sums = sums
        self.batches = batches
        # The backward pass runs towards it; no gradient of a weight or an input is needed.
        self.anchor = torch.zeros((), requires_grad=True)
        self._pending: dict[str, int] = {}
        self._uses: dict[str, list[tuple[Tensor, Tensor]]] = {}
        self._layers: dict[str, nn.Module] = {}

    @contextmanager
    def attached(self, model: nn.Module, weights: Weights) -> Iterator[None]:
        """Put the hooks on the layers that hold the weights."""
        modules = {id(m.weight): m for m in model.modules() if isinstance(m, PRUNABLE_MODULES)}
        for name, weight in weights.items():
            if id(weight) not in modules:
                raise PruningError(
                    f"engine hooks: {name}",
                    "is no weight of a convolution or linear layer",
                    "take engine auto or loop",
                )
            self._layers[name] = modules[id(weight)]
        handles = [
            layer.register_forward_hook(partial(self._ran_forward, name))
            for name, layer in self._layers.items()
        ]
        try:
            # Frozen, so that autograd does not take the weight gradient of all mini-batches together as well.
            for weight in weights.values():
                weight.requires_grad_(False)
            yield
        finally:
            for weight in weights.values():
                weight.requires_grad_(True)
            for handle in handles:
                handle.remove()

    def _ran_forward(self, name: str, _layer: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        (x,) = args
        if not output.requires_grad:
            # With frozen weights nothing before the first layer needs a gradient; a zero that does makes
            # the layer part of the graph.
            output = output + self.anchor
        self._pending[name] = self._pending.get(name, 0) + 1
        output.register_hook(partial(self._ran_backward, name, x.detach()))  # type: ignore[no-untyped-call]
        return output

    def _ran_backward(self, name: str, x: Tensor, gradient: Tensor) -> None:
        self._uses.setdefault(name, []).append((x, gradient.detach()))
        self._pending[name] -= 1
        # As soon as the last use is known, so that inputs are let go while the pass goes on.
        if self._pending[name] == 0:
            self._add_gradients(name)

    def finish(self) -> None:
        """Take the gradients of layers of which some uses do not reach the loss."""
        for name in list(self._uses):
            self._add_gradients(name)

    def _add_gradients(self, name: str) -> None:
        """Add the gradient of each mini-batch in one layer; all uses of a shared layer count as one.

        Uses of one shape go through the kernel together: a recurrent layer is used once a slice.
        """
        by_shape: dict[torch.Size, list[tuple[Tensor, Tensor]]] = {}
        for x, gradient in self._uses.pop(name):
            by_shape.setdefault(x.shape[1:], []).append((self._split(x), self._split(gradient)))
        for number in range(self.batches):
            parts = [
                weight_gradient(
                    self._layers[name],
                    _joined([x[number] for x, _ in same]),
                    _joined([gradient[number] for _, gradient in same]),
                )
                for same in by_shape.values()
            ]
            self.sums.add(name, parts[0] if len(parts) == 1 else torch.stack(parts).sum(0))

    def _split(self, rows: Tensor) -> Tensor:
        """Return the rows of each mini-batch: (mini-batches, rows, channels, ...)."""
        return rows.reshape(self.batches, -1, *rows.shape[1:])


def _joined(tensors: list[Tensor]) -> Tensor:
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors)


def weight_gradient(layer: nn.Module, x: Tensor, output_gradient: Tensor) -> Tensor:
    """Return the gradient of a layer's weight, by torch's own kernel.

    Args:
        layer: A convolution, transposed convolution or linear layer.
        x: What went into it, rows first.
        output_gradient: The gradient of the loss by what came out, as many rows.
    """
    if isinstance(layer, nn.Linear):
        return output_gradient.flatten(0, -2).t() @ x.flatten(0, -2)
    convolution: Any = layer
    padding = convolution.padding
    if isinstance(padding, str) or convolution.padding_mode != "zeros":
        # "same" may pad the two sides unequally, and the kernel knows zeros only: pad first.
        mode = "constant" if convolution.padding_mode == "zeros" else convolution.padding_mode
        x = F.pad(x, convolution._reversed_padding_repeated_twice, mode=mode)
        padding = [0] * (x.dim() - 2)
    gradients: tuple[Tensor, ...] = torch.ops.aten.convolution_backward(
        output_gradient,
        x,
        convolution.weight,
        None,
        convolution.stride,
        padding,
        convolution.dilation,
        convolution.transposed,
        convolution.output_padding,
        convolution.groups,
        [False, True, False],  # of input, weight and bias
    )
    return gradients[1]


def _joined_loss(model: nn.Module, chunk: list[Batch], loss: Loss) -> Tensor:
    """Return the sum of the losses of some mini-batches, from one forward pass over all of them.

    The loss may be any: it is called for each mini-batch by itself, with a stand-in for the network that
    returns that mini-batch's part of the output.
    """
    output = model(*(torch.cat(tensors) for tensors in zip(*(batch[:-1] for batch in chunk), strict=True)))
    losses = []
    for number, batch in enumerate(chunk):
        stand_in = _StandIn(model, batch[:-1], _part_of(output, number, len(chunk)))
        losses.append(loss_of(stand_in, batch, loss))
    return torch.stack(losses).sum()


def _part_of(output: Any, number: int, count: int) -> Any:
    """Return the rows of one of `count` mini-batches, of all tensors that a network returned."""
    return tree_map_only(Tensor, lambda t: t.reshape(count, -1, *t.shape[1:])[number], output)


class _StandIn(nn.Module):
    """Answers for a network whose output is known already; every other attribute is the network's."""

    def __init__(self, model: nn.Module, inputs: tuple[Tensor, ...], output: Any) -> None:
        super().__init__()
        self._known = (model, inputs, output)  # in a tuple, so that the network is not a child of this module

    def forward(self, *args: Tensor, **kwargs: Any) -> Any:
        """Return the output; only for the inputs that it was made from."""
        _, inputs, output = self._known
        if kwargs or len(args) != len(inputs) or any(a is not b for a, b in zip(args, inputs, strict=True)):
            raise PruningError(
                "engine hooks", "the loss changes what the network is given", "take engine auto or loop"
            )
        return output

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self._known[0], name)
