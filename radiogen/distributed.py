"""Spread mini-batches over the processes of torch.distributed, and add up what each of them found."""

import itertools
from collections.abc import Iterable, Iterator, Sized
from typing import Any, Generic, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from radiogen.errors import PruningError

T = TypeVar("T")


def process_count() -> int:
    """How many processes work together; 1 without torch.distributed."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def own_share(batches: Iterable[T]) -> Iterable[T]:
    """The mini-batches that this process takes: every n-th of them; all of them where there is one process.

    What has a length and can be asked by number is asked for these only.

    Raises:
        PruningError: While they are read, if none is left for this process.
    """
    return batches if process_count() == 1 or isinstance(batches, Iterator) else _Share(batches)


class _Share(Generic[T]):
    def __init__(self, batches: Iterable[T]) -> None:
        self._batches = batches

    def __iter__(self) -> Iterator[T]:
        rank, count = dist.get_rank(), process_count()
        own: Iterable[T]
        if isinstance(self._batches, Sized) and hasattr(self._batches, "__getitem__"):
            by_number = cast(Any, self._batches)
            own = (by_number[number] for number in range(rank, len(self._batches), count))
        else:
            own = itertools.islice(self._batches, rank, None, count)
        nothing = True
        for batch in own:
            nothing = False
            yield batch
        if nothing:
            raise PruningError(
                "scoring set", f"has fewer mini-batches than the {count} processes", "give more samples"
            )


def add_up(tensors: Iterable[Tensor]) -> None:
    """Put into each tensor, in every process, its sum over the processes."""
    if process_count() > 1:
        for tensor in tensors:
            dist.all_reduce(tensor)


def start_alike(model: nn.Module) -> None:
    """Give every process the weights and buffers of the first; what each computed may differ a little."""
    if process_count() > 1:
        for tensor in [*model.parameters(), *model.buffers()]:
            dist.broadcast(tensor.detach(), src=0)


def add_up_counts(*counts: int, beside: Tensor) -> list[int]:
    """The sums of whole numbers over the processes; `beside` lies on the device that these talk through."""
    summed = torch.tensor(counts, device=beside.device)
    add_up([summed])
    return [int(count) for count in summed.tolist()]
