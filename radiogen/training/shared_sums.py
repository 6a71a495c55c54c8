"""The sums that Dice is made of, shared by the parts of one large batch."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

from radiogen.distributed import all_reduce, world_size


class SharedSums:
    """Turns the sums over one part of a batch into those over all, parts of other processes included.

    Dice over a batch is no mean of Dice over its parts. But its gradient is a sum over the parts once the
    sums over all are known: the value that comes back is that of all, and its gradient with respect to this
    part is multiplied by the number of parts, so that the mean over the parts is the gradient of the whole.
    """

    def __init__(self) -> None:
        self.share_at_once()

    def share_at_once(self) -> None:
        """Every process has one part: the sums are added up when they come."""
        self._counted: list[Tensor] | None = None
        self._is_counting, self._place, self._period = False, 0, 0
        self._parts = world_size()

    @contextmanager
    def counting(self, parts: int) -> Iterator[None]:
        """Inside, only take note of the sums of each of this process's parts, in the order they come."""
        noted: list[Tensor] = []
        self._counted, self._is_counting = noted, True
        yield
        self._period = len(noted) // parts  # sums of one part: one for each resolution
        totals = [sum(noted[i :: self._period][1:], noted[i]) for i in range(self._period)]
        all_reduce(totals)
        self._counted, self._is_counting, self._place = totals, False, 0
        self._parts = parts * world_size()

    def __call__(self, sums: Tensor) -> Tensor:
        own = sums.detach()
        if self._is_counting and self._counted is not None:
            self._counted.append(own)
            return sums
        if self._parts == 1:
            return sums
        if self._counted is None:
            whole = own.clone()
            all_reduce([whole])
        else:
            whole = self._counted[self._place % self._period]
            self._place += 1
        return whole + self._parts * (sums - own)
