"""Run several mini-batches through a network at once, and give each its own loss."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from radiogen.errors import PruningError
from radiogen.pruning.settings import Batch, Loss, loss_of


def joined_loss(model: nn.Module, chunk: list[Batch], loss: Loss) -> Tensor:
    """The sum of the losses of some mini-batches of one shape, from one forward pass over all of them.

    The loss may be any: it is called for each mini-batch by itself, with a stand-in for the network that
    hands out that mini-batch's part of the output.

    Args:
        model: A network in which samples do not interact.
        chunk: Mini-batches of one shape.
        loss: Mean loss of a mini-batch; calls the network once, with the inputs as they stand in the batch.

    Raises:
        PruningError: The loss calls the network in another way, or an output has no row for each mini-batch.
    """
    output = model(*(torch.cat(tensors) for tensors in zip(*(b[:-1] for b in chunk), strict=True)))
    losses = [
        loss_of(StandIn(model, batch[:-1], _part_of(output, number, len(chunk))), batch, loss)
        for number, batch in enumerate(chunk)
    ]
    return torch.stack(losses).sum()


class StandIn(nn.Module):
    """Answers for a network whose output is known already; everything else is the network's."""

    def __init__(self, model: nn.Module, inputs: tuple[Tensor, ...], output: Any) -> None:
        super().__init__()
        self._known = (model, inputs, output)

    def forward(self, *args: Tensor, **kwargs: Any) -> Any:
        """The output; only for the inputs it was made from."""
        _, inputs, output = self._known
        if kwargs or len(args) != len(inputs) or any(a is not b for a, b in zip(args, inputs, strict=True)):
            raise PruningError(
                "joined mini-batches", "the loss changes what the network is given", "take engine loop"
            )
        return output

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self._known[0], name)


def _part_of(output: Any, number: int, parts: int) -> Any:
    def rows(tensor: Tensor) -> Tensor:
        if tensor.dim() == 0 or tensor.shape[0] % parts:
            raise PruningError(
                "joined mini-batches",
                f"an output of shape {tuple(tensor.shape)} does not part into {parts}",
                "take engine loop",
            )
        size = tensor.shape[0] // parts
        return tensor[number * size : (number + 1) * size]

    return tree_map_only(Tensor, rows, output)
