"""The mini-batches that pruning sees: patches to score one at a time, and an epoch to warm up on."""

from collections.abc import Iterator

import torch
from torch.utils.data import default_collate

from radiogen.training.patches import EpochSampler, Patch, PatchDataset
from radiogen.pruning.signatures import Batch
from radiogen.runtime import Tick


class ScoringSet:
    """Patches one at a time, the same on every pass: the draws of a first epoch as long as it needs to be."""

    def __init__(self, patches: PatchDataset, samples: int, device: torch.device, tick: Tick) -> None:
        self.patches, self.samples, self.device, self.tick = patches, samples, device, tick

    def __len__(self) -> int:
        return self.samples

    def __iter__(self) -> Iterator[Batch]:
        return (self[number] for number in range(self.samples))

    def __getitem__(self, number: int) -> Batch:
        patch: Patch = self.patches[0, number]
        self.tick("score", number + 1, self.samples)
        return tuple(tensor[None].to(self.device) for tensor in patch)


class TrainingSet:
    """The mini-batches of the first epoch of training, in its order."""

    def __init__(
        self, patches: PatchDataset, batch_size: int, seed: int, device: torch.device, tick: Tick
    ) -> None:
        self.patches, self.batch_size, self.seed = patches, batch_size, seed
        self.device, self.tick = device, tick

    def __iter__(self) -> Iterator[Batch]:
        draws = list(EpochSampler(len(self.patches), self.seed))
        for start in range(0, len(draws), self.batch_size):
            some: list[Patch] = [self.patches[draw] for draw in draws[start : start + self.batch_size]]
            yield tuple(tensor.to(self.device) for tensor in default_collate(some))
            self.tick("warm up", min(start + self.batch_size, len(draws)), len(draws))
