"""The thirteen criteria by name, and `scores`: network and batches in, one number a weight out."""

from collections.abc import Callable, Collection, Iterable
from dataclasses import replace

import torch
from torch import Tensor, nn

from radiogen.pruning.hessian import grasp, hutchinson_diagonal
from radiogen.pruning.measuring import measure_moments
from radiogen.pruning.moments import Moments
from radiogen.pruning.prunable import prunable
from radiogen.pruning.rounds import KeptSet, by_doubling, masked_meanwhile, score_in_rounds
from radiogen.pruning.settings import (
    Batch,
    CriterionName,
    CriterionSettings,
    Loss,
    Scores,
    ScoringTask,
    WeightMasks,
    refuse_not_finite,
)
from radiogen.pruning.synflow import synflow
from radiogen.pruning.taylor import (
    Criterion,
    Scoring,
    SecondOrder,
    TaylorTerms,
    curvature_alone,
    first_order,
    fisher_factor,
    gradient_alone,
    second_order,
    surgeon,
    surgeon_without_guard,
    taylor_sum,
)

TermScore = Callable[[TaylorTerms], torch.Tensor]


def scores(
    model: nn.Module,
    batches: Iterable[Batch],
    loss: Loss,
    settings: CriterionSettings | None = None,
    rng: torch.Generator | None = None,
    exclude: Collection[str] = (),
) -> Scores:
    """Score every prunable weight of a network; higher means keep. The network is left as it was found.

    Args:
        model: The network, at the weights that training will start from.
        batches: A list or loader of mini-batches; of one sample each in the paper.
        loss: Mean loss of a mini-batch.
        settings: Criterion and its options.
        generator: Chance for `random` and the Hutchinson criteria.
        exclude: Parameters or modules that are never pruned: name the output layer.

    Raises:
        PruningError: Nothing to prune, no mini-batch, or scores that are not finite.
    """
    return score_weights(model, batches, loss, settings, rng, exclude).scores


def score_weights(
    model: nn.Module,
    batches: Iterable[Batch],
    loss: Loss,
    settings: CriterionSettings | None = None,
    rng: torch.Generator | None = None,
    exclude: Collection[str] = (),
) -> Scoring:
    """As `scores`, with the number of samples and the size of the second-order term beside the first."""
    settings = settings or CriterionSettings()
    task = ScoringTask(
        model=model,
        batches=batches,
        loss=loss,
        weights=prunable(model, exclude, published_names=settings.reference),
        settings=settings,
        rng=rng or torch.Generator().manual_seed(0),
    )
    return score_task(task)


def score_task(task: ScoringTask) -> Scoring:
    """The scores of a task: one number a weight, or what its `pool` makes of them."""
    settings = task.settings
    with torch.no_grad():
        scoring = _score(task)
        if task.pool is not None:
            scoring = replace(scoring, scores=task.pool(scoring.scores))
    if not (settings.reference and settings.criterion == "fbss"):
        refuse_not_finite(scoring.scores, f"{settings.criterion} scores")
    return scoring


def _score(task: ScoringTask) -> Scoring:
    criterion = CRITERIA[task.settings.criterion]
    rounds = task.settings.round_count
    if rounds == 1 or task.settings.criterion == "synflow":
        return criterion(task)
    last: list[Scoring] = []

    def score(masks: WeightMasks) -> Scores:
        with masked_meanwhile(task.model, masks):
            last[:] = [criterion(task)]
        return last[0].scores

    in_rounds = score_in_rounds(score, task.settings, rounds)
    return replace(last[0], scores=in_rounds)


def magnitude(task: ScoringTask) -> Scoring:
    """abs(w)."""
    return Scoring({name: w.detach().abs() for name, w in task.weights.items()})


def random(task: ScoringTask) -> Scoring:
    """Uniform numbers; the same generator state gives the same ones."""
    device = task.rng.device
    return Scoring(
        {
            name: torch.rand(w.shape, generator=task.rng, device=device).to(w.device)
            for name, w in task.weights.items()
        }
    )


def snip(task: ScoringTask) -> Scoring:
    """abs(w G) (Lee et al. 2019); in reference mode divided by the total over all parameters."""
    if not task.settings.reference:
        return _from_fisher(first_order)(task)
    everything = dict(task.model.named_parameters())
    scoring = _from_fisher(first_order)(replace(task, weights=everything))
    total = torch.stack([score.sum() for score in scoring.scores.values()]).sum()
    return replace(scoring, scores={name: scoring.scores[name] / total for name in task.weights})


def brain_surgeon(task: ScoringTask) -> Scoring:
    """C/2 (w - G/C)^2 with C = s F; without Fisher information 0, and NaN in reference mode."""
    score = surgeon_without_guard if task.settings.reference else surgeon
    return _from_fisher(score, scaled=True)(task)


def _from_fisher(score: TermScore, scaled: bool = False) -> Criterion:
    def from_moments(task: ScoringTask, moments: Moments) -> Scoring:
        scale = fisher_factor(moments, task.settings) if scaled else 1.0
        return _score_terms(task, moments, moments.fisher, score, scale)

    def criterion(task: ScoringTask) -> Scoring:
        settle = task.settings.moments.settle
        kept = KeptSet(task)
        moments = measure_moments(
            task.model,
            task.batches,
            task.loss,
            task.weights,
            task.settings.moments,
            None if settle is None else lambda m: kept.change(from_moments(task, m).scores) < settle,
        )
        return replace(from_moments(task, moments), change=kept.last_change)

    return criterion


def _from_hessian(score: TermScore) -> Criterion:
    def criterion(task: ScoringTask) -> Scoring:
        moments = measure_moments(task.model, task.batches, task.loss, task.weights, task.settings.moments)
        return _score_terms(task, moments, hutchinson_diagonal(task), score, 1.0)

    return criterion


def _score_terms(
    task: ScoringTask, moments: Moments, curvature: dict[str, Tensor], score: TermScore, scale: float
) -> Scoring:
    """Layer by layer; the moments of a layer are let go once it is scored."""
    scores, sizes = {}, SecondOrder(0.0, 0.0, scale)
    if task.pool is not None:
        score = SIGNED.get(task.settings.criterion, score)
    for name, weight in task.weights.items():
        terms = TaylorTerms(weight.detach(), moments.gradient.pop(name), curvature.pop(name).mul_(scale))
        sizes = sizes.plus(terms)
        scores[name] = score(terms)
    return Scoring(scores, moments.samples, moments.batches, sizes, moments.engine)


SIGNED: dict[CriterionName, TermScore] = {
    "snip": lambda terms: terms.first,
    "fts": lambda terms: terms.first + terms.second,
    "hts": lambda terms: terms.first + terms.second,
}
"""Criteria that end in an absolute value, without it: what is summed over a channel."""

CRITERIA: dict[CriterionName, Criterion] = {
    "random": random,
    "magnitude": magnitude,
    "grad-norm": _from_fisher(gradient_alone),
    "snip": snip,
    "grasp": by_doubling(lambda task: Scoring(grasp(task))),
    "synflow": lambda task: Scoring(synflow(task)),
    "fisher-diag": _from_fisher(curvature_alone),
    "fisher-pruning": _from_fisher(second_order),
    "fts": _from_fisher(taylor_sum, scaled=True),
    "fbss": brain_surgeon,
    "hutch-diag": by_doubling(_from_hessian(curvature_alone)),
    "hutch-pruning": by_doubling(_from_hessian(second_order)),
    "hts": by_doubling(_from_hessian(taylor_sum)),
}
"""Criteria by name; `CriterionSettings.criterion` takes one of them."""
