"""Which patches come in which step, so that a training can begin anywhere."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch.utils.data import DataLoader, Dataset, default_collate

from radiogen.distributed import rank, world_size
from radiogen.errors import RadiogenError, TrainingError
from radiogen.training.patches import Draw, EpochSampler, Patch, PatchDataset
from radiogen.training.settings import TrainingSettings


@dataclass(frozen=True)
class Batch:
    """Patches of one mini-batch: image, prior and target, and the draws that made them."""

    patches: Patch
    draws: list[Draw]


class TrainingPlan:
    """The mini-batches of every step of every epoch, those of this process, from any place on.

    Every step has whole batches: the rest of an epoch is not used, and it is another rest in each epoch.
    """

    def __init__(
        self, dataset: PatchDataset, training: TrainingSettings, seed: int, device: torch.device
    ) -> None:
        self.dataset, self.training, self.device = dataset, training, device
        number, world = rank(), world_size()
        self.sampler = EpochSampler(len(dataset), seed, number, world)
        is_simple = world * training.accumulate == 1
        self.batch_size = min(training.batch_size, len(self.sampler)) if is_simple else training.batch_size

    @property
    def steps(self) -> int:
        """Steps of an epoch."""
        return len(self.sampler) // (self.batch_size * self.training.accumulate)

    def batches_from(self, epoch: int, step: int) -> Iterator[list[Batch]]:
        """The mini-batches of each step, from one step of an epoch to the end of the last epoch.

        Raises:
            TrainingError: A process that draws patches was killed.
            RadiogenError: A patch cannot be drawn.
        """
        loader: DataLoader[Patch | RadiogenError] = DataLoader(
            _Told(self.dataset),
            batch_sampler=self._draws_from(epoch, step),
            num_workers=self.training.workers,
            collate_fn=_together,
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator(),
        )
        gathered: list[Batch] = []
        draws = self._draws_from(epoch, step)
        patches = iter(loader)
        while (drawn := next(draws, None)) is not None:
            gathered.append(Batch(self._next(patches), drawn))
            if len(gathered) == self.training.accumulate:
                yield gathered
                gathered = []

    def _next(self, patches: Iterator[Patch | RadiogenError]) -> Patch:
        try:
            found = next(patches)
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            fewer = f"set training.workers={self.training.workers // 2}; the training goes on where it was"
            raise TrainingError(
                "a process that draws patches", "was killed; systems do so when memory ends", fewer
            ) from error
        if isinstance(found, RadiogenError):
            raise found
        return found

    def _draws_from(self, epoch: int, step: int) -> Iterator[list[Draw]]:
        size, in_epoch = self.batch_size, self.steps * self.training.accumulate
        for now in range(epoch, self.training.epochs):
            self.sampler.epoch = now
            draws = list(self.sampler)
            first = step * self.training.accumulate if now == epoch else 0
            for number in range(first, in_epoch):
                yield draws[number * size : (number + 1) * size]


class _Told(Dataset[Patch | RadiogenError]):
    """Patches, or the error why there is none, which a process of its own could not raise here."""

    def __init__(self, patches: PatchDataset) -> None:
        self.patches = patches

    def __getitem__(self, draw: Draw) -> Patch | RadiogenError:
        try:
            return self.patches[draw]
        except RadiogenError as error:
            return error


def _together(found: list[Patch | RadiogenError]) -> Patch | RadiogenError:
    errors = [one for one in found if isinstance(one, RadiogenError)]
    if errors:
        return errors[0]
    image, prior, target = default_collate(found)
    return image, prior, target
