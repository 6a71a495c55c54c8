"""Per-mini-batch gradients by torch.func: the gradient of one, mapped over several."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from radiogen.pruning.moments import MomentSums
from radiogen.pruning.settings import Batch, Loss, loss_of


class _LossOf(nn.Module):
    """A network with its loss at the end, so that `functional_call` reaches the network inside the loss."""

    def __init__(self, model: nn.Module, loss: Loss) -> None:
        super().__init__()
        self.model = model
        self._loss = loss

    def forward(self, *batch: Tensor) -> Tensor:
        return loss_of(self.model, batch, self._loss)


def functional_chunk(
    sums: MomentSums,
    model: nn.Module,
    chunk: list[Batch],
    loss: Loss,
    weights: Mapping[str, nn.Parameter],
) -> None:
    """Add the gradients of some mini-batches of one shape; holds all of them at once.

    Raises:
        RuntimeError: The network or the loss does something that cannot be mapped.
    """
    whole = _LossOf(model, loss)
    places = _places(model, weights)

    def one(parameters: dict[str, Tensor], *batch: Tensor) -> Tensor:
        everywhere = {f"model.{place}": parameters[name] for place, name in places.items()}
        found: Tensor = functional_call(whole, everywhere, batch, tie_weights=False)
        return found

    parameters = {name: weight.detach() for name, weight in weights.items()}
    together = [torch.stack(tensors) for tensors in zip(*chunk, strict=True)]
    found = vmap(grad(one), in_dims=(None, *[0] * len(together)))(parameters, *together)
    for name in weights:
        gradients = found[name]
        sums.total[name].add_(gradients.sum(0))
        sums.squares[name].add_(gradients.square_().sum(0))
    sums.count(chunk)


def _places(model: nn.Module, weights: Mapping[str, nn.Parameter]) -> dict[str, str]:
    """Every module that holds one of the weights, once: a shared weight has several places."""
    names = {id(weight): name for name, weight in weights.items()}
    return {
        f"{prefix}.{attribute}".lstrip("."): names[id(parameter)]
        for prefix, module in model.named_modules()
        for attribute, parameter in module.named_parameters(recurse=False, remove_duplicate=False)
        if id(parameter) in names
    }
