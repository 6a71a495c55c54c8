"""Prune in rounds: score, keep a part, score what is left."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from radiogen.pruning.controls import overlap
from radiogen.pruning.measuring import FIRST_LOOK
from radiogen.pruning.settings import CriterionSettings, FirstOf, Scores, ScoringTask, WeightMasks
from radiogen.pruning.taylor import Criterion, Scoring
from radiogen.pruning.weight_masks import apply_weight_masks, weight_masks


def score_in_rounds(
    score: Callable[[WeightMasks], Scores], settings: CriterionSettings, rounds: int
) -> Scores:
    """Scores of the last of n rounds; after round i the share density^(i/n) of the weights is kept.

    Weights that left earlier score below all others, the earliest lowest, so that at the sparsity of the
    settings `weight_masks` keeps what the last round keeps, without ties between those that left.

    Args:
        score: Scores of the network with only the weights of these masks; an empty dictionary means all.
        settings: Gives sparsity, scope and the order among ties.
        rounds: How often to score.
    """
    density = 1 - settings.sparsity
    masks: WeightMasks = {}
    left_in: dict[str, Tensor] = {}
    for round_number in range(1, rounds + 1):
        scores = score(masks)
        if not left_in:
            left_in = {name: torch.full_like(s, rounds, dtype=torch.int16) for name, s in scores.items()}
        ordered = _below_those_kept(scores, left_in, rounds)
        if round_number == rounds:
            return ordered
        kept = weight_masks(ordered, 1 - density ** (round_number / rounds), settings.scope)
        for name, mask in kept.items():
            leaves = ~mask & (left_in[name] == rounds)
            left_in[name].masked_fill_(leaves, round_number)
        masks = kept
    return ordered


def _below_those_kept(scores: Scores, left_in: dict[str, Tensor], rounds: int) -> Scores:
    lowest = min(float(s.min()) for s in scores.values())
    step = max(abs(lowest), 1.0)
    return {
        name: torch.where(left_in[name] == rounds, s, lowest - step * (rounds - left_in[name]))
        for name, s in scores.items()
    }


@contextmanager
def masked_meanwhile(model: nn.Module, masks: WeightMasks) -> Iterator[None]:
    """Set weights outside the masks to zero, and put them back afterwards, also on errors."""
    parameters = dict(model.named_parameters())
    before = {name: parameters[name].detach().clone() for name in masks}
    try:
        apply_weight_masks(model, masks)
        yield
    finally:
        with torch.no_grad():
            for name, weight in before.items():
                parameters[name].copy_(weight)


def by_doubling(criterion: Criterion) -> Criterion:
    """Score anew with 8, 16, 32, ... mini-batches until the kept set has settled, if that is asked for."""

    def settling(task: ScoringTask) -> Scoring:
        settle = task.settings.moments.settle
        if settle is None:
            return criterion(task)
        whole = task.settings.moments.model_copy(update={"settle": None})
        once = task.settings.model_copy(update={"moments": whole})
        kept, rng, count = KeptSet(task), task.rng.get_state(), FIRST_LOOK
        while True:
            task.rng.set_state(rng)
            start = FirstOf(task.batches, count)
            scoring = criterion(replace(task, batches=start, settings=once))
            settled = kept.change(scoring.scores) < settle
            if settled or start.batches < count:
                return replace(scoring, change=kept.last_change, samples=start.samples, batches=start.batches)
            count *= 2

    return settling


class KeptSet:
    """The weights that scores keep, and how much of them changed since the last look."""

    def __init__(self, task: ScoringTask) -> None:
        self._settings, self._pool = task.settings, task.pool
        self._masks: WeightMasks | None = None
        self.last_change: float | None = None

    def change(self, scores: Scores) -> float:
        """The share of the kept weights that were not kept at the last look; 1 at the first."""
        scores = self._pool(scores) if self._pool else scores
        before, self._masks = self._masks, weight_masks(scores, self._settings.sparsity, self._settings.scope)
        self.last_change = 1.0 if before is None else 1 - overlap(before, self._masks).shared
        return self.last_change
