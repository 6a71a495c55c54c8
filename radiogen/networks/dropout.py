"""Dropout that a sample draws for itself, whatever stands beside it in the mini-batch."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn


class SampleDropout(nn.Dropout):
    """Dropout as ever; inside `sample_seeds`, what a sample loses depends on its own seed and the layer.

    So a network learns the same from a mini-batch that is cut in pieces, over processes or in time, and a
    part that is run twice (activation checkpointing) draws the same twice. torch.compile cannot follow
    generators: a compiled network draws from torch's own.
    """

    seeds: Sequence[int] = ()  # of this layer, one a sample of the mini-batch

    def forward(self, x: Tensor) -> Tensor:  # (B, ...)
        if not self.training or self.p == 0 or not self.seeds or torch.compiler.is_compiling():
            return super().forward(x)
        kept = torch.empty_like(x, dtype=torch.bool)  # a byte a voxel is what waits for the gradient
        for sample, seed in zip(kept, self.seeds, strict=True):
            sample.bernoulli_(1 - self.p, generator=torch.Generator(x.device).manual_seed(seed))
        return torch.where(kept, x, 0.0).div_(1 - self.p)


@contextmanager
def sample_seeds(network: nn.Module, samples: Sequence[Sequence[int]]) -> Iterator[None]:
    """Let the dropout of a network draw from seeds, for forward and backward passes of one mini-batch.

    Args:
        network: Any network.
        samples: What each sample of the mini-batch draws from: some whole numbers.
    """
    layers = [module for module in network.modules() if isinstance(module, SampleDropout) and module.p > 0]
    for place, layer in enumerate(layers):
        layer.seeds = [seed_of(*sample, place) for sample in samples]
    try:
        yield
    finally:
        for layer in layers:
            layer.seeds = ()


def seed_of(*numbers: int) -> int:
    """One seed for some whole numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)
