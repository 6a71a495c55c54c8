"""Which weights may be pruned: those of convolutions and linear layers, by the type of the module."""

import weakref
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from radiogen.errors import PruningError

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
PRUNABLE_MODULES = (nn.Conv1d, nn.Conv2d, nn.Conv3d, *TRANSPOSED, nn.Linear)
PUBLISHED_NAMES_KEPT = ("bias", "linear", "bn")


def prunable(
    model: nn.Module, exclude: Collection[str] = (), published_names: bool = False
) -> dict[str, nn.Parameter]:
    """The prunable weights of a network, in the order of `named_parameters`.

    Args:
        model: Any network.
        exclude: Names of parameters or modules that are never pruned, such as the output layer; a module
            stands for everything inside it, a shared weight for all its names.
        published_names: Take the rule of the published FTS code instead of the module types: every parameter
            whose name holds none of `bias`, `linear`, `bn`.

    Raises:
        PruningError: A name in `exclude` is unknown, or nothing is left to prune.
    """
    kept_out = _excluded(model, exclude)
    if published_names:
        wanted = {
            id(weight)
            for name, weight in model.named_parameters()
            if not any(part in name for part in PUBLISHED_NAMES_KEPT)
        }
    else:
        wanted = {id(m.weight) for m in model.modules() if isinstance(m, PRUNABLE_MODULES)}
    found = {
        name: weight
        for name, weight in model.named_parameters()
        if id(weight) in wanted and id(weight) not in kept_out
    }
    if not found:
        raise PruningError(
            type(model).__name__,
            "has no prunable weights",
            "exclude less, or take a network with convolutions",
        )
    return found


def _excluded(model: nn.Module, exclude: Collection[str]) -> set[int]:
    every = dict(model.named_parameters(remove_duplicate=False))
    identities: set[int] = set()
    for wanted in exclude:
        matching = [w for name, w in every.items() if name == wanted or name.startswith(f"{wanted}.")]
        if not matching:
            raise PruningError(
                f"exclude {wanted}", "names no parameter or module", f"the parameters are {', '.join(every)}"
            )
        identities.update(id(weight) for weight in matching)
    return identities


def weight_uses(model: nn.Module, inputs: Sequence[Tensor]) -> dict[str, int]:
    """How often one pass multiplies each weight, by parameter name; a layer that is not called is left out.

    A convolution uses each of its weights once a voxel of its output, a transposed one once a voxel of its
    input, padding included, as is usual when MACs are counted.

    Args:
        model: The network; on the meta device nothing is computed.
        inputs: What it is called with, one sample in each.
    """
    names = {id(p): name for name, p in model.named_parameters()}
    uses: dict[str, int] = {}

    def count(module: nn.Module, given: tuple[Any, ...], output: Tensor) -> None:
        weight = module.get_parameter("weight")
        if isinstance(module, nn.Linear):
            times = output.numel() // weight.shape[0]
        else:
            seen = given[0] if isinstance(module, TRANSPOSED) else output
            times = seen.numel() // seen.shape[-weight.dim() + 1]
        name = names[id(weight)]
        uses[name] = uses.get(name, 0) + times

    handles = [m.register_forward_hook(count) for m in model.modules() if isinstance(m, PRUNABLE_MODULES)]
    try:
        with torch.no_grad():
            model(*inputs)
    finally:
        for handle in handles:
            handle.remove()
    return uses


def count_macs(model: nn.Module, inputs: Sequence[Tensor]) -> int:
    """MACs of all convolutions and linear layers in one pass; `inputs` as in `weight_uses`."""
    weights = dict(model.named_parameters())
    return sum(weights[name].numel() * times for name, times in weight_uses(model, inputs).items())


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
