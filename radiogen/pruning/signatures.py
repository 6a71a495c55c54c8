"""What pruning is handed and hands on: batches, a loss, scores, weight masks."""

import itertools
from collections.abc import Callable, Iterable, Iterator

from torch import Tensor, nn

from radiogen.errors import PruningError

Batch = tuple[Tensor, ...]
"""Inputs of a mini-batch, the target last; the first axis of each tensor counts the samples."""

Loss = Callable[[nn.Module, Batch], Tensor]
"""Mean loss of a mini-batch, a scalar; it calls the network itself."""

Scores = dict[str, Tensor]
"""One number a weight by parameter name; higher means keep."""

WeightMasks = dict[str, Tensor]
"""Booleans by parameter name, of the shape of the parameter; true means kept."""


def sample_count(batch: Batch) -> int:
    """How many samples a mini-batch holds."""
    return int(batch[-1].shape[0])


class FirstOf:
    """The first so many mini-batches of a scoring set, counted as they are read; the last pass counts."""

    def __init__(self, batches: Iterable[Batch], count: int) -> None:
        self._batches, self._count = batches, count
        self.samples = self.batches = 0

    def __iter__(self) -> Iterator[Batch]:
        self.samples = self.batches = 0
        for batch in itertools.islice(self._batches, self._count):
            self.samples += sample_count(batch)
            self.batches += 1
            yield batch


def read_batches(batches: Iterable[Batch]) -> Iterator[Batch]:
    """One pass over the mini-batches.

    Raises:
        PruningError: They are an iterator, which a second pass would find empty, or there are none.
    """
    if isinstance(batches, Iterator):
        raise PruningError("scoring set", "can be read only once", "give a list or a loader of mini-batches")
    found = False
    for batch in batches:
        found = True
        yield batch
    if not found:
        raise PruningError("scoring set", "holds no mini-batch", "give at least one sample")


def loss_of(model: nn.Module, batch: Batch, loss: Loss) -> Tensor:
    """The loss of one mini-batch, checked to be a scalar.

    Raises:
        PruningError: It is not a scalar tensor.
    """
    value = loss(model, batch)
    if value.dim() != 0:
        raise PruningError(
            "loss", f"has the shape {tuple(value.shape)}", "return the mean over the mini-batch, a scalar"
        )
    return value


def refuse_not_finite(values: Scores, kind: str) -> None:
    """Check that all numbers are finite.

    Raises:
        PruningError: Some are not; the first such layer is named.
    """
    for name, value in values.items():
        bad = int((~value.isfinite()).sum())
        if bad:
            raise PruningError(
                name,
                f"{bad} of {value.numel()} {kind} are not finite",
                "look for infinite inputs or a loss that overflows; score in float32 or float64",
            )
