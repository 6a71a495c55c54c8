"""Keep masked weights at zero through training, and prove it."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from radiogen.errors import PruningError
from radiogen.pruning.weight_masks import matched


class HeldMasks:
    """Weight masks that are being held; made by `hold_weight_masks`, ended by `remove`."""

    def __init__(self, model: nn.Module, masks: Mapping[str, Tensor], optimizer: Optimizer) -> None:
        self._pairs = [(weight, ~mask) for weight, mask in matched(model, masks).values()]
        self._handles: list[RemovableHandle] = [
            weight.register_hook(_without(removed))  # type: ignore[no-untyped-call]
            for weight, removed in self._pairs
            if weight.requires_grad
        ]
        self._handles.append(optimizer.register_step_post_hook(self._zero))
        self._zero(optimizer)

    def _zero(self, optimizer: Optimizer, *_step: Any) -> None:
        with torch.no_grad():
            for weight, removed in self._pairs:
                weight.masked_fill_(removed, 0)
                for value in optimizer.state.get(weight, {}).values():
                    if isinstance(value, Tensor) and value.shape == weight.shape:
                        value.masked_fill_(removed, 0)

    def remove(self) -> None:
        """Let the weights go."""
        for handle in self._handles:
            handle.remove()


def hold_weight_masks(model: nn.Module, masks: Mapping[str, Tensor], optimizer: Optimizer) -> HeldMasks:
    """Zero the weights outside the masks, now and after every step of an optimiser.

    Their gradients are zero too, so that gradient clipping sees the pruned network, and so is what the
    optimiser remembers of them (momentum, Adam's moments). Call it after a checkpoint was loaded.

    Args:
        model: The network, bare or wrapped by DDP, AveragedModel or torch.compile.
        masks: Booleans by parameter name of the bare network.
        optimizer: The optimiser that trains it.

    Raises:
        PruningError: The masks are of another architecture; the layer is named.
    """
    return HeldMasks(model, masks, optimizer)


def assert_held(model: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Check that every weight outside the masks is exactly zero; for use before saving.

    Raises:
        PruningError: Some are not, or the masks are of another architecture; the layer is named.
    """
    for name, (weight, mask) in matched(model, masks).items():
        moved = int(weight.detach()[~mask].count_nonzero())
        if moved:
            raise PruningError(
                name,
                f"{moved} pruned weights are not zero",
                "hold the weight masks with hold_weight_masks while training",
            )


def _without(removed: Tensor) -> Any:
    return lambda gradient: gradient.masked_fill(removed, 0)
