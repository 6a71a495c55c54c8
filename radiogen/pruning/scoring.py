"""Score a network layer by layer, in rounds, and until the mask has stabilised."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from radiogen.pruning.controls import overlap
from radiogen.pruning.hessian import hutchinson_diagonal
from radiogen.pruning.measuring import FIRST_LOOK, measure_moments
from radiogen.pruning.moments import Moments
from radiogen.pruning.settings import CriterionSettings, FirstBatches, Scores, ScoringTask, WeightMasks
from radiogen.pruning.weight_masks import apply_weight_masks, weight_masks

MOST_PROBES = 640  # of Hutchinson's estimate; each costs a second backward pass of every mini-batch

Formula = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Scores of one layer from w, G, and F or H (the letters of `criteria`)."""


@dataclass(frozen=True)
class SecondOrderSize:
    """How large the second-order Taylor term is beside the first, summed over all weights."""

    first: float = 0.0  # sum of abs(w G)
    second: float = 0.0  # sum of abs(w^2 F / 2), with H in place of F for the Hessian
    scale: float = 1.0  # what the Fisher diagonal was multiplied by

    @property
    def ratio(self) -> float:
        """Second over first; infinite where the first is zero."""
        if self.first == 0:
            return 0.0 if self.second == 0 else float("inf")
        return self.second / self.first

    def __str__(self) -> str:
        return f"the second-order term is {self.ratio:.2g} of the first (Fisher scale {self.scale:g})"


@dataclass(frozen=True)
class Scoring:
    """Scores, and what there is to report about how they came about."""

    scores: Scores
    samples: int = 0  # 0: the criterion needs no data
    batches: int = 0
    second_order: SecondOrderSize | None = None
    engine: str = ""  # what measured the moments of the gradients, if they were measured
    change: float | None = None  # share of the kept weights that the last doubling changed
    probes: int = 0  # of Hutchinson's estimate, for each mini-batch; 0: none was made
    abs_pending: bool = False  # Taylor terms of channels: the absolute value is due after their sum

    def notes(self, settle: float | None = None) -> list[str]:
        """Return what a user should know, in sentences; `settle` is the share that the user wanted."""
        notes = [str(self.second_order)] if self.second_order else []
        if self.engine:
            notes.append(f"gradients measured by {self.engine}")
        if settle is not None and self.change is not None:
            verdict = "settled" if self.change < settle else "not settled"
            if self.probes and self.change >= settle:
                verdict += ", the curvature is mostly noise"
            count = f"{self.samples} samples" + (f", {self.probes} probes" if self.probes else "")
            notes.append(
                f"{count}: the last doubling changed {self.change:.2%} of the kept weights "
                f"({verdict}; limit {settle:.2%})"
            )
        elif self.probes:
            notes.append(
                f"the curvature comes from {self.probes} probes a mini-batch, which may be mostly noise: "
                "--samples auto doubles them until the kept weights settle"
            )
        return notes


Criterion = Callable[[ScoringTask], Scoring]


def score_with_fisher(
    task: ScoringTask, formula: Formula, scaled: bool = False, absolute_last: bool = False
) -> Scoring:
    """Score from the first two moments of the gradients, until the mask has stabilised if wanted.

    Args:
        task: What to score.
        formula: The score of one layer from w, G and F.
        scaled: Multiply F by `fisher_scale`.
        absolute_last: Take the absolute value at the end: of the score, or of the sum over a channel.
    """
    changes = MaskChanges(task)
    settle = task.settings.moments.settle

    def score(moments: Moments) -> Scoring:
        scale = resolve_fisher_scale(moments, task.settings) if scaled else 1.0
        return _score_layers(task, moments, moments.fisher, scale, formula, absolute_last)

    def is_settled(moments: Moments) -> bool:
        return changes.update(score(moments)) < float(settle or 0)

    moments = measure_moments(
        task.model,
        task.batches,
        task.loss,
        task.weights,
        task.settings.moments,
        None if settle is None else is_settled,
    )
    return replace(score(moments), change=changes.last)


def score_with_hessian(task: ScoringTask, formula: Formula, absolute_last: bool = False) -> Scoring:
    """Score with Hutchinson's diagonal of the Hessian in place of the Fisher diagonal.

    If the mask is to stabilise, the mini-batches double first, then the probes, up to `MOST_PROBES`.
    """

    def score(task: ScoringTask) -> Scoring:
        moments = measure_moments(task.model, task.batches, task.loss, task.weights, task.settings.moments)
        return _score_layers(task, moments, hutchinson_diagonal(task), 1.0, formula, absolute_last)

    scoring = replace(score_until_settled(task, score), probes=task.settings.probes)
    settle = task.settings.moments.settle
    if settle is None:
        return scoring
    changes = MaskChanges(task)
    before = changes.update(scoring)
    rng_state = task.rng.get_state()
    batches = FirstBatches(task.batches, scoring.batches)
    moments = task.settings.moments.model_copy(update={"settle": None})
    while scoring.probes < MOST_PROBES:
        probes = 2 * scoring.probes
        settings = task.settings.model_copy(update={"moments": moments, "probes": probes})
        task.rng.set_state(rng_state)
        scoring = replace(score(replace(task, batches=batches, settings=settings)), probes=probes)
        change = changes.update(scoring)
        # Noise changes as many weights at every doubling: thousands of probes would be needed then.
        if change < settle or change >= before:
            break
        before = change
    return replace(scoring, change=changes.last)


def resolve_fisher_scale(moments: Moments, settings: CriterionSettings) -> float:
    """Return the number s that `fisher_scale` stands for."""
    if settings.fisher_scale == "batch":
        return float(moments.batch_size)
    if settings.fisher_scale == "dataset":
        return float(moments.samples)
    return float(settings.fisher_scale)


def _score_layers(
    task: ScoringTask,
    moments: Moments,
    curvature: dict[str, Tensor],
    scale: float,
    formula: Formula,
    absolute_last: bool,
) -> Scoring:
    """Score layer by layer; the moments of a layer are let go once it is scored, which saves memory."""
    scores: Scores = {}
    first = second = 0.0
    for name, weight in task.weights.items():
        w, g, c = weight.detach(), moments.gradient.pop(name), curvature.pop(name).mul_(scale)
        first += float((w * g).abs_().sum())
        second += float((w.square() * c / 2).abs_().sum())
        score = formula(w, g, c)
        # With channels the terms keep their signs until they are summed over a channel.
        scores[name] = score.abs() if absolute_last and task.pool is None else score
    return Scoring(
        scores,
        moments.samples,
        moments.batches,
        SecondOrderSize(first, second, scale),
        moments.engine,
        abs_pending=absolute_last and task.pool is not None,
    )


def pool_channels(task: ScoringTask, scoring: Scoring) -> Scores:
    """Return the scores of whole channels if the task is about channels, else those of single weights."""
    if task.pool is None:
        return scoring.scores
    sums = task.pool(scoring.scores)
    return {name: total.abs() for name, total in sums.items()} if scoring.abs_pending else sums


class MaskChanges:
    """The weights or channels that scores keep, and how many of them changed since the scores before."""

    def __init__(self, task: ScoringTask) -> None:
        self._task = task
        self._masks: WeightMasks | None = None
        self.last: float | None = None

    def update(self, scoring: Scoring) -> float:
        """Return the share of what is kept that was not kept before; 1 the first time."""
        before = self._masks
        settings = self._task.settings
        self._masks = weight_masks(pool_channels(self._task, scoring), settings.sparsity, settings.scope)
        self.last = 1.0 if before is None else 1 - overlap(before, self._masks).shared
        return self.last


def score_until_settled(task: ScoringTask, score: Criterion) -> Scoring:
    """Score anew with 8, 16, 32, ... mini-batches until the mask has stabilised, if that is wanted.

    For criteria without running sums (GraSP, Hutchinson); each scoring draws the same probes.
    """
    settle = task.settings.moments.settle
    if settle is None:
        return score(task)
    # The gradients of an untrained network are mostly noise of the patch: on RA-Seg `small` doublings to 16,
    # 32, 64 and 128 patches changed 19, 15, 12 and 9 % of the kept weights at sparsity 0.9.
    moments = task.settings.moments.model_copy(update={"settle": None})
    settings = task.settings.model_copy(update={"moments": moments})
    changes = MaskChanges(task)
    rng_state = task.rng.get_state()
    count = FIRST_LOOK
    while True:
        task.rng.set_state(rng_state)
        batches = FirstBatches(task.batches, count)
        scoring = score(replace(task, batches=batches, settings=settings))
        if changes.update(scoring) < settle or batches.batches < count:
            return replace(scoring, change=changes.last, samples=batches.samples, batches=batches.batches)
        count *= 2


def score_in_rounds(
    score: Callable[[WeightMasks], Scores], settings: CriterionSettings, rounds: int
) -> Scores:
    """Return the scores of the last of n rounds; after round i the share density^(i/n) of weights is kept.

    Weights that left earlier score below all others, the earliest lowest, so that at the sparsity of the
    settings `weight_masks` keeps what the last round keeps, without ties between those that left.

    Args:
        score: Scores of the network with only the weights of these masks; an empty dictionary means all.
        settings: Gives sparsity, scope and the order among ties.
        rounds: How often to score.
    """
    density = 1 - settings.sparsity
    masks: WeightMasks = {}
    removed_in_round: dict[str, Tensor] = {}  # `rounds` for a weight that is kept
    for number in range(1, rounds + 1):
        scores = score(masks)
        if not removed_in_round:
            removed_in_round = {
                name: torch.full_like(s, rounds, dtype=torch.int16) for name, s in scores.items()
            }
        ordered = _below_those_kept(scores, removed_in_round, rounds)
        if number == rounds:
            return ordered
        masks = weight_masks(ordered, 1 - density ** (number / rounds), settings.scope)
        for name, mask in masks.items():
            leaves = ~mask & (removed_in_round[name] == rounds)
            removed_in_round[name].masked_fill_(leaves, number)
    return ordered


def _below_those_kept(scores: Scores, removed_in_round: dict[str, Tensor], rounds: int) -> Scores:
    # One step for each round, so that no two rounds tie and none comes near the weights that are kept.
    lowest = min(float(s.min()) for s in scores.values())
    step = max(abs(lowest), 1.0)
    return {
        name: torch.where(
            removed_in_round[name] == rounds, s, lowest - step * (rounds - removed_in_round[name])
        )
        for name, s in scores.items()
    }


@contextmanager
def temporarily_masked(model: nn.Module, masks: WeightMasks) -> Iterator[None]:
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
