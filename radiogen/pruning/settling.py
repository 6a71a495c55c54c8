"""Score until the kept set stops changing: fewer samples are the largest gain in time there is."""

from dataclasses import replace

from radiogen.pruning.comparing import overlap
from radiogen.pruning.measuring import FIRST_LOOK
from radiogen.pruning.scoring import Criterion, Scoring
from radiogen.pruning.settings import ScoringTask
from radiogen.pruning.signatures import FirstOf, Scores, WeightMasks
from radiogen.pruning.weight_masks import weight_masks


def by_doubling(criterion: Criterion) -> Criterion:
    """Score anew with 8, 16, 32, ... mini-batches until the kept set has settled, if that is asked for."""

    def settling(task: ScoringTask) -> Scoring:
        settle = task.settings.moments.settle
        if settle is None:
            return criterion(task)
        whole = task.settings.moments.model_copy(update={"settle": None})
        once = task.settings.model_copy(update={"moments": whole})
        kept, chance, count = KeptSet(task), task.generator.get_state(), FIRST_LOOK
        while True:
            task.generator.set_state(chance)
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
