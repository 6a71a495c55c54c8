"""What a network costs: weights, multiply-accumulate operations (MACs), memory of its activations."""

import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from radiogen.pruning.prunable import PRUNABLE_MODULES, TRANSPOSED


def weight_uses(model: nn.Module, inputs: Sequence[Tensor]) -> dict[str, int]:
    """Count how often one pass multiplies each weight, by parameter name; layers not called are left out.

    A convolution uses each of its weights once a voxel of its output, a transposed one once a voxel of its
    input, padding included, as is usual when MACs are counted.

    Args:
        model: The network; on the meta device nothing is computed.
        inputs: What it is called with, one sample in each.
    """
    names = {id(p): name for name, p in model.named_parameters()}
    uses: dict[str, int] = {}

    def count(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        weight = module.get_parameter("weight")
        if isinstance(module, nn.Linear):
            times = output.numel() // weight.shape[0]
        else:
            grid = args[0] if isinstance(module, TRANSPOSED) else output
            times = grid.numel() // grid.shape[-weight.dim() + 1]
        name = names[id(weight)]
        uses[name] = uses.get(name, 0) + times

    # A weight that is computed from others (spectral norm) is no parameter.
    layers = [m for m in model.modules() if isinstance(m, PRUNABLE_MODULES) and id(m.weight) in names]
    handles = [layer.register_forward_hook(count) for layer in layers]
    try:
        with torch.no_grad():
            model(*inputs)
    finally:
        for handle in handles:
            handle.remove()
    return uses


def count_macs(model: nn.Module, inputs: Sequence[Tensor]) -> int:
    """Count the MACs of all convolutions and linear layers in one pass; `inputs` as in `weight_uses`."""
    weights = dict(model.named_parameters())
    return sum(weights[name].numel() * times for name, times in weight_uses(model, inputs).items())


@dataclass(frozen=True)
class NetworkCost:
    """Weights, MACs and memory of one pass of one sample through a network."""

    weights: int
    macs: int
    inference_mb: float
    """MiB of activations that are alive at the same time, at most, beside weights and input."""
    training_mb: float
    """The same in a forward pass that keeps what the gradients need."""


def measure_cost(build: Callable[[], nn.Module], inputs: Sequence[Tensor]) -> NetworkCost:
    """Measure what a network costs, on the meta device: nothing is computed and no memory is taken.

    Memory is an estimate: kernels need working space of their own, and an allocator may keep more.

    Args:
        build: Makes the network.
        inputs: What it is called with, one sample in each; only shapes and types matter.
    """
    # A search for a memory target asks this of some ten networks that do not exist yet; on the meta device a
    # pass takes about 30 ms and gives the same numbers on every machine.
    with torch.device("meta"):
        model = build()
    meta_inputs = [torch.empty_like(tensor, device="meta") for tensor in inputs]
    return NetworkCost(
        weights=sum(p.numel() for p in model.parameters()),
        macs=count_macs(model.eval(), meta_inputs),
        inference_mb=_peak_mb(model.eval(), meta_inputs),
        training_mb=_peak_mb(model.train(), meta_inputs),
    )


def _peak_mb(model: nn.Module, inputs: Sequence[Tensor]) -> float:
    not_counted = [*model.parameters(), *model.buffers(), *inputs]
    with torch.set_grad_enabled(model.training), LiveMemory(not_counted) as memory:
        model(*inputs)
    return float(memory.peak / 2**20)


class LiveMemory(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A context that counts the bytes of the tensors made inside it that are still alive.

    Args:
        not_counted: Tensors that do not count.
    """

    def __init__(self, not_counted: Iterable[Tensor] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = 0
        self.peak = 0
        self._known = {tensor.untyped_storage()._cdata for tensor in not_counted}

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(output):
            if isinstance(leaf, Tensor):
                self._count(leaf.untyped_storage())
        return output

    def _count(self, storage: torch.UntypedStorage) -> None:
        # By storage: a view takes no memory of its own, and bytes are free when the last reference is gone.
        key = storage._cdata
        if key not in self._known:
            self._known.add(key)
            self.live += storage.nbytes()
            self.peak = max(self.peak, self.live)
            weakref.finalize(storage, self._free, key, storage.nbytes())

    def _free(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live -= size
