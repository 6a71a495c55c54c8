"""What a network costs: weights, multiplications, and the memory of its activations, without computing it."""

import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from radiogen.pruning.macs import count_macs


@dataclass(frozen=True)
class Cost:
    """What one pass of one sample through a network takes."""

    weights: int
    macs: int
    inference_mb: float
    """MiB of activations that are alive at the same time, at most, beside weights and input."""
    training_mb: float
    """The same in a forward pass that keeps what the gradients need."""


def measure_cost(build: Callable[[], nn.Module], inputs: Sequence[Tensor]) -> Cost:
    """Count what a network takes, on the meta device: nothing is computed and no memory is taken.

    Memory is an estimate: kernels need working space of their own, and an allocator may keep more.

    Args:
        build: Makes the network.
        inputs: What it is called with, one sample in each; only shapes and types matter.
    """
    with torch.device("meta"):
        model = build()
    given = [torch.empty_like(tensor, device="meta") for tensor in inputs]
    return Cost(
        weights=sum(p.numel() for p in model.parameters()),
        macs=count_macs(model.eval(), given),
        inference_mb=_peak_mb(model.eval(), given),
        training_mb=_peak_mb(model.train(), given),
    )


def _peak_mb(model: nn.Module, inputs: Sequence[Tensor]) -> float:
    beside = [*model.parameters(), *model.buffers(), *inputs]
    with torch.set_grad_enabled(model.training), LiveMemory(beside) as memory:
        model(*inputs)
    return float(memory.peak / 2**20)


class LiveMemory(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Inside, counts the bytes of the tensors that operations have made and that are still there.

    Args:
        beside: Tensors that do not count.
    """

    def __init__(self, beside: Iterable[Tensor] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = self.peak = 0
        self._seen = {tensor.untyped_storage()._cdata for tensor in beside}

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(output):
            if isinstance(leaf, Tensor):
                self._count(leaf.untyped_storage())
        return output

    def _count(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key not in self._seen:
            self._seen.add(key)
            self.live += storage.nbytes()
            self.peak = max(self.peak, self.live)
            weakref.finalize(storage, self._forget, key, storage.nbytes())

    def _forget(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.live -= size
