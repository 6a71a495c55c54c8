"""Pruning criteria, each a function that reads like its formula; `CRITERIA` lists all of them."""

from collections.abc import Collection, Iterable
from dataclasses import replace

import torch
from torch import Tensor, nn

from radiogen.errors import PruningError
from radiogen.pruning.hessian import grasp_scores
from radiogen.pruning.prunable import prunable
from radiogen.pruning.scoring import (
    Criterion,
    Scoring,
    pool_channels,
    score_in_rounds,
    score_until_settled,
    score_with_fisher,
    score_with_hessian,
    temporarily_masked,
)
from radiogen.pruning.settings import (
    Batch,
    CriterionSettings,
    Loss,
    Scores,
    ScoringTask,
    WeightMasks,
    refuse_non_finite,
)
from radiogen.pruning.synflow import synflow_scores

# In the formulas w is the weight, G the mean gradient of the mini-batches, F the mean squared gradient (the
# diagonal of the empirical Fisher matrix), H the diagonal of the Hessian and s `fisher_scale`; the arguments
# of the functions are the same letters in lower case.


def random(task: ScoringTask) -> Scoring:
    """Score by uniform numbers; the same state of the rng gives the same ones."""
    device = task.rng.device
    return Scoring(
        {
            name: torch.rand(w.shape, generator=task.rng, device=device).to(w.device)
            for name, w in task.weights.items()
        }
    )


def magnitude(task: ScoringTask) -> Scoring:
    """Score by abs(w)."""
    return Scoring({name: w.detach().abs() for name, w in task.weights.items()})


def grad_norm(task: ScoringTask) -> Scoring:
    """Score by abs(G)."""
    return score_with_fisher(task, lambda _w, g, _f: g.abs())


def snip(task: ScoringTask) -> Scoring:
    """Score by abs(w G) (Lee et al. 2019); in reference mode divided by the total over all parameters."""
    if not task.settings.reference:
        return score_with_fisher(task, lambda w, g, _f: w * g, absolute_last=True)
    # The published code divides by a total that biases, norms and the output layer are part of.
    parameters = dict(task.model.named_parameters())
    scoring = score_with_fisher(replace(task, weights=parameters), lambda w, g, _f: (w * g).abs())
    total = torch.stack([score.sum() for score in scoring.scores.values()]).sum()
    return replace(scoring, scores={name: scoring.scores[name] / total for name in task.weights})


def grasp(task: ScoringTask) -> Scoring:
    """Score by w times (Hessian times G), what removal takes from the gradient flow (Wang et al. 2020)."""
    return score_until_settled(task, lambda task: Scoring(grasp_scores(task)))


def synflow(task: ScoringTask) -> Scoring:
    """Score by the flow through each weight of an all-positive network (Tanaka et al. 2020)."""
    return Scoring(synflow_scores(task))


def fisher_diagonal(task: ScoringTask) -> Scoring:
    """Score by F."""
    return score_with_fisher(task, lambda _w, _g, f: f)


def fisher_pruning(task: ScoringTask) -> Scoring:
    """Score by w^2 F / 2."""
    return score_with_fisher(task, lambda w, _g, f: w.square() * f / 2)


def fisher_taylor(task: ScoringTask) -> Scoring:
    """Score by abs(w G + w^2 (s F) / 2): Fisher-Taylor Sensitivity, FTS (arXiv:2502.11450).

    It estimates the size of the change of the loss when a weight is removed, to second order, with the sign
    of the first-order term as published: removal is a step of -w, whose expansion has -w G, as FBSS has.
    The absolute value is taken in `scoring`, for channels after the sum over a channel.
    """
    return score_with_fisher(
        task, lambda w, g, sf: w * g + w.square() * sf / 2, scaled=True, absolute_last=True
    )


def brain_surgeon(task: ScoringTask) -> Scoring:
    """Score by (s F) / 2 (w - G / (s F))^2, FBSS (arXiv:2502.11450).

    A weight without Fisher information scores 0; in reference mode NaN, as published.
    """

    def published(w: Tensor, g: Tensor, sf: Tensor) -> Tensor:
        return sf / 2 * (w - g / sf).square()

    def guarded(w: Tensor, g: Tensor, sf: Tensor) -> Tensor:
        return torch.where(sf > 0, published(w, g, sf), 0.0)

    return score_with_fisher(task, published if task.settings.reference else guarded, scaled=True)


def hutchinson_diagonal(task: ScoringTask) -> Scoring:
    """Score by H, Hutchinson's estimate of the diagonal of the Hessian."""
    return score_with_hessian(task, lambda _w, _g, h: h)


def hutchinson_pruning(task: ScoringTask) -> Scoring:
    """Score by w^2 H / 2."""
    return score_with_hessian(task, lambda w, _g, h: w.square() * h / 2)


def hutchinson_taylor(task: ScoringTask) -> Scoring:
    """Score by abs(w G + w^2 H / 2): FTS with the Hessian in place of the Fisher diagonal."""
    return score_with_hessian(task, lambda w, g, h: w * g + w.square() * h / 2, absolute_last=True)


CRITERIA: dict[str, Criterion] = {
    "random": random,
    "magnitude": magnitude,
    "grad-norm": grad_norm,
    "snip": snip,
    "grasp": grasp,
    "synflow": synflow,
    "fisher-diag": fisher_diagonal,
    "fisher-pruning": fisher_pruning,
    "fts": fisher_taylor,
    "fbss": brain_surgeon,
    "hutch-diag": hutchinson_diagonal,
    "hutch-pruning": hutchinson_pruning,
    "hts": hutchinson_taylor,
}
"""By name, as in `CriterionSettings.criterion`. A new criterion is a function above and a line here."""


def find_criterion(name: str) -> Criterion:
    """Return the criterion of a name.

    Raises:
        PruningError: It is unknown; the right names are listed.
    """
    if name not in CRITERIA:
        raise PruningError(f"criterion {name}", "is unknown", f"there are {', '.join(CRITERIA)}")
    return CRITERIA[name]


def score_weights(
    model: nn.Module,
    batches: Iterable[Batch],
    loss: Loss,
    settings: CriterionSettings | None = None,
    rng: torch.Generator | None = None,
    exclude: Collection[str] = (),
) -> Scoring:
    """Score every prunable weight of a network; higher means keep. The network is left as it was found.

    Args:
        model: The network, at the weights that training will start from.
        batches: A list or loader of mini-batches; of one sample each in the paper.
        loss: Mean loss of a mini-batch.
        settings: Criterion and its options.
        rng: For `random` and the Hutchinson criteria.
        exclude: Parameters or modules that are never pruned: name the output layer.

    Raises:
        PruningError: Unknown criterion, nothing to prune, no mini-batch, or scores that are not finite.
    """
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
    """Return the scores of a task: one number a weight, or what its `pool` makes of them."""
    settings = task.settings
    # Without gradients outside the passes themselves: formulas run over tensors as large as the network.
    with torch.no_grad():
        scoring = _score(task, find_criterion(settings.criterion))
        scoring = replace(scoring, scores=pool_channels(task, scoring))
    if not (settings.reference and settings.criterion == "fbss"):  # its NaN is part of what was published
        refuse_non_finite(scoring.scores, f"{settings.criterion} scores")
    return scoring


def _score(task: ScoringTask, criterion: Criterion) -> Scoring:
    rounds = task.settings.round_count
    if rounds == 1 or criterion is synflow:  # which has rounds of its own, on a copy
        return criterion(task)
    last: list[Scoring] = []

    def score(masks: WeightMasks) -> Scores:
        with temporarily_masked(task.model, masks):
            last[:] = [criterion(task)]
        return last[0].scores

    in_rounds = score_in_rounds(score, task.settings, rounds)
    return replace(last[0], scores=in_rounds)
