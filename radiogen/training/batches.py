"""The mini-batches of each step of a training, from any step on, in an order that seed and epoch decide."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, default_collate

from radiogen.distributed import rank, world_size
from radiogen.errors import RadiogenError, TrainingError
from radiogen.training.patches import Draw, Patch, PatchDataset
from radiogen.training.settings import TrainingSettings


def epoch_draws(count: int, seed: int, epoch: int = 0, own_rank: int = 0, ranks: int = 1) -> list[Draw]:
    """Return the draws of one epoch in an order that depends on seed and epoch alone.

    Each of several processes takes every `ranks`-th draw of that order, from its rank on; what is left
    over is drawn by none, so that all take equally many.
    """
    order = np.random.default_rng([seed, epoch]).permutation(count)
    shared = order[: count // ranks * ranks]
    return [(epoch, int(number)) for number in shared[own_rank::ranks]]


class MiniBatch(NamedTuple):
    """Image, prior and target of some patches, and the draws that made them."""

    patches: Patch
    draws: list[Draw]


class TrainingBatches:
    """The mini-batches of this process for every step of every epoch, from any step on.

    Every step has whole batches: the rest of an epoch is not used, and it is another rest in each epoch.
    """

    def __init__(
        self, dataset: PatchDataset, training: TrainingSettings, seed: int, device: torch.device
    ) -> None:
        self.dataset, self.training, self.seed, self.device = dataset, training, seed, device
        draws = len(dataset) // world_size()
        is_alone = world_size() * training.accumulate == 1
        self.batch_size = min(training.batch_size, draws) if is_alone else training.batch_size
        self.steps = draws // (self.batch_size * training.accumulate)  # of an epoch

    def from_step(self, epoch: int, step: int) -> Iterator[list[MiniBatch]]:
        """Yield the mini-batches of each step, from one step of an epoch to the end of the last epoch.

        Raises:
            TrainingError: A process that draws patches was killed.
            RadiogenError: A patch cannot be drawn.
        """
        loader: DataLoader[MiniBatch | RadiogenError] = DataLoader(
            _BatchesOrErrors(self.dataset),
            batch_size=None,  # the sampler gives the draws of whole mini-batches
            sampler=self._draws_from(epoch, step),
            num_workers=self.training.workers,
            collate_fn=_unchanged,
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator(),  # or the loader would draw from torch's own, which dropout may use
        )
        batches = iter(loader)
        for _ in range(self.steps * (self.training.epochs - epoch) - step):
            yield [self._next(batches) for _ in range(self.training.accumulate)]

    def _next(self, batches: Iterator[MiniBatch | RadiogenError]) -> MiniBatch:
        try:
            batch = next(batches)
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            fewer = f"set training.workers={self.training.workers // 2}; the training goes on where it was"
            raise TrainingError(
                "a process that draws patches", "was killed; systems do so when memory ends", fewer
            ) from error
        if isinstance(batch, RadiogenError):
            raise batch
        return batch

    def _draws_from(self, epoch: int, step: int) -> Iterator[list[Draw]]:
        size, in_epoch = self.batch_size, self.steps * self.training.accumulate
        for now in range(epoch, self.training.epochs):
            draws = epoch_draws(len(self.dataset), self.seed, now, rank(), world_size())
            first = step * self.training.accumulate if now == epoch else 0
            for number in range(first, in_epoch):
                yield draws[number * size : (number + 1) * size]


class _BatchesOrErrors(Dataset[Any]):
    """Mini-batches by their draws; an error is returned, since a worker cannot raise it in this process."""

    def __init__(self, patches: PatchDataset) -> None:
        self.patches = patches

    def __getitem__(self, draws: list[Draw]) -> MiniBatch | RadiogenError:
        try:
            image, prior, target = default_collate([self.patches[draw] for draw in draws])
        except RadiogenError as error:
            return error
        return MiniBatch((image, prior, target), draws)


def _unchanged(batch: Any) -> Any:
    return batch
