"""How much memory the tensors of a call take at its peak, counted tensor by tensor on any device."""

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class _LiveTensors(TorchDispatchMode):
    """Watches every operation, also of the backward pass, for memory that it made and that still lives."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live: dict[StorageWeakRef, int] = {}
        self.peak: int = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {leaf.untyped_storage()._cdata for leaf in _tensors((args, kwargs or {}))}
        made = func(*args, **(kwargs or {}))
        self.live = {ref: size for ref, size in self.live.items() if not ref.expired()}  # type: ignore[no-untyped-call]
        for tensor in _tensors(made):
            storage = tensor.untyped_storage()
            ref = StorageWeakRef(storage)  # type: ignore[no-untyped-call]
            if ref in self.live or storage._cdata not in given:
                self.live[ref] = storage.nbytes()
        self.peak = max(self.peak, sum(self.live.values()))
        return made


def peak_tensor_mb(call: Callable[[], None]) -> float:
    """The most MiB that tensors made during a call took together, seen after each operation.

    What was there before the call does not count, nor does scratch space inside an operation.
    """
    with _LiveTensors() as watch:
        call()
    peak: int = watch.peak
    return round(peak / 2**20, 1)


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
