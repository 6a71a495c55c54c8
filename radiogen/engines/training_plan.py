"""Which patches come in which step, so that a training can begin anywhere."""

from collections.abc import Iterator

import torch
from torch.utils.data import DataLoader

from radiogen.engines.patches import Draw, EpochSampler, Patch, PatchDataset
from radiogen.engines.training_settings import TrainingSettings


class TrainingPlan:
    """The batches of every step of every epoch, from any place on.

    Every step has a whole batch: the rest of an epoch is not used, and it is another rest in each epoch.
    """

    def __init__(
        self, dataset: PatchDataset, training: TrainingSettings, seed: int, device: torch.device
    ) -> None:
        self.dataset, self.training, self.device = dataset, training, device
        self.sampler = EpochSampler(len(dataset), seed)
        self.batch_size = min(training.batch_size, len(self.sampler))

    @property
    def steps(self) -> int:
        """Steps of an epoch."""
        return len(self.sampler) // self.batch_size

    def batches_from(self, epoch: int, step: int) -> Iterator[Patch]:
        """The batches from a step of an epoch to the end of the last epoch."""
        loader: DataLoader[Patch] = DataLoader(
            self.dataset,
            batch_sampler=self._draws_from(epoch, step),
            num_workers=self.training.workers,
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator(),
        )
        return iter(loader)

    def _draws_from(self, epoch: int, step: int) -> Iterator[list[Draw]]:
        for now in range(epoch, self.training.epochs):
            self.sampler.epoch = now
            draws = list(self.sampler)
            for number in range(step if now == epoch else 0, self.steps):
                yield draws[number * self.batch_size : (number + 1) * self.batch_size]
