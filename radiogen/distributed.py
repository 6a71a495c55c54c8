"""Work in several processes (ranks) that torchrun started, in the words of torch.distributed.

Without torchrun there is one rank, 0, and every function here does nothing but return what it was given.
"""

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar, cast

from radiogen.errors import OtherRankError, PruningError, RadiogenError

if TYPE_CHECKING:  # the command line imports this file before it knows whether it needs torch
    import torch
    from torch import Tensor, nn

T = TypeVar("T")
_TIMEOUT = timedelta(hours=6)  # a rank waits this long for another, as while rank 0 prepares a large cohort


@contextmanager
def process_group(device: "torch.device") -> Iterator[None]:
    """Join the process group of torchrun, if it started this process, for as long as the block."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    import torch
    import torch.distributed as dist

    if device.type == "cuda":
        torch.cuda.set_device(device)  # collectives on Python objects use the current device
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=_TIMEOUT)
    try:
        yield
    finally:
        dist.destroy_process_group()


def is_rank_zero() -> bool:
    """Return whether this process is the one that writes and speaks; needs no process group."""
    return int(os.environ.get("RANK", "0")) == 0


def rank() -> int:
    """Return the number of this process in the process group, from 0; 0 without a group."""
    return _group().get_rank() if _is_joined() else 0


def world_size() -> int:
    """Return the number of processes in the process group; 1 without a group."""
    return _group().get_world_size() if _is_joined() else 1


def barrier() -> None:
    """Wait until every rank has come here."""
    if _is_joined():
        _group().barrier()


def call_on_rank_zero(call: Callable[[], T]) -> T:
    """Call a function on rank 0 and broadcast what it returns, or the error that it raises.

    Raises:
        OtherRankError: On the other ranks, if the call is refused on rank 0.
    """
    if world_size() == 1:
        return call()
    box: list[Any] = [None, None]  # the result, the error
    if rank() == 0:
        try:
            box[0] = call()
        except RadiogenError as error:
            box[1] = error
    _group().broadcast_object_list(box, src=0)
    if box[1] is not None:
        raise as_rank_zero_reports(box[1])
    return cast(T, box[0])


def as_rank_zero_reports(error: RadiogenError) -> RadiogenError:
    """Return what to raise where all ranks meet the same error: itself on rank 0, else a silent one."""
    return error if rank() == 0 else OtherRankError(error.thing, error.wrong, error.hint)


def all_gather(own: list[T]) -> list[T]:
    """Return the lists of all ranks joined, in the order of the ranks."""
    if world_size() == 1:
        return own
    lists: list[Any] = [None] * world_size()
    _group().all_gather_object(lists, own)
    return list(itertools.chain.from_iterable(lists))


def all_reduce(tensors: "Iterable[Tensor]") -> None:
    """Replace each tensor, on every rank, by its sum over the ranks."""
    if world_size() > 1:
        for tensor in tensors:
            _group().all_reduce(tensor)


def all_reduce_counts(*counts: int, like: "Tensor") -> list[int]:
    """Return the sums of whole numbers over the ranks; `like` lies on the device that these talk through."""
    import torch

    summed = torch.tensor(counts, device=like.device)
    all_reduce([summed])
    return [int(count) for count in summed.tolist()]


def broadcast_state(model: "nn.Module") -> None:
    """Give every rank the weights and buffers of rank 0: what each computed may differ in the last digits."""
    if world_size() > 1:
        for tensor in [*model.parameters(), *model.buffers()]:
            _group().broadcast(tensor.detach(), src=0)


def share_of_rank(batches: Iterable[T]) -> Iterable[T]:
    """Return the mini-batches of this rank: every n-th; all of them where there is one rank.

    Only those are read from what has a length and an index. An iterator is taken for the share already: what
    one rank takes from it, others cannot.

    Raises:
        PruningError: While they are read, if none is left for this rank.
    """
    return batches if world_size() == 1 or isinstance(batches, Iterator) else _ShareOfRank(batches)


class _ShareOfRank(Iterable[T]):
    """The mini-batches of this rank, in as many passes as wanted."""

    def __init__(self, batches: Iterable[T]) -> None:
        self._batches = batches

    def __iter__(self) -> Iterator[T]:
        own: Iterable[T]
        if isinstance(self._batches, Sized) and hasattr(self._batches, "__getitem__"):
            indexed = cast(Any, self._batches)
            own = (indexed[number] for number in range(rank(), len(indexed), world_size()))
        else:
            own = itertools.islice(self._batches, rank(), None, world_size())
        is_empty = True
        for batch in own:
            is_empty = False
            yield batch
        if is_empty:
            wrong = f"has fewer mini-batches than the {world_size()} processes"
            raise PruningError("scoring set", wrong, "give more samples")


def _group() -> Any:
    import torch.distributed as dist

    return dist


def _is_joined() -> bool:
    dist = _group()
    return bool(dist.is_available() and dist.is_initialized())
