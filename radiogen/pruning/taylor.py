"""Criteria made of the weights and of the moments of their gradients (arXiv:2502.11450)."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from radiogen.pruning.moments import Moments
from radiogen.pruning.settings import CriterionSettings, Scores, ScoringTask


@dataclass(frozen=True)
class TaylorTerms:
    """The two terms of a second-order Taylor expansion of the loss in one layer: w G and w^2 C / 2.

    `curvature` C is the scaled Fisher diagonal s F, or Hutchinson's diagonal of the Hessian.
    """

    weight: Tensor
    gradient: Tensor
    curvature: Tensor

    @property
    def first(self) -> Tensor:
        """The first-order term, signed."""
        return self.weight * self.gradient

    @property
    def second(self) -> Tensor:
        """The second-order term."""
        return self.weight.square() * self.curvature / 2


def gradient_alone(terms: TaylorTerms) -> Tensor:
    """abs(G): grad-norm."""
    return terms.gradient.abs()


def first_order(terms: TaylorTerms) -> Tensor:
    """abs(w G): snip."""
    return terms.first.abs()


def curvature_alone(terms: TaylorTerms) -> Tensor:
    """C: fisher-diag, hutch-diag."""
    return terms.curvature


def second_order(terms: TaylorTerms) -> Tensor:
    """w^2 C / 2: fisher-pruning, hutch-pruning."""
    return terms.second


def taylor_sum(terms: TaylorTerms) -> Tensor:
    """abs(w G + w^2 C / 2): fts, hts."""
    return (terms.first + terms.second).abs()


def surgeon_without_guard(terms: TaylorTerms) -> Tensor:
    """C/2 (w - G/C)^2: fbss as published, NaN for a weight without curvature."""
    return terms.curvature / 2 * (terms.weight - terms.gradient / terms.curvature).square()


def surgeon(terms: TaylorTerms) -> Tensor:
    """C/2 (w - G/C)^2: fbss; a weight without curvature scores 0."""
    return torch.where(terms.curvature > 0, surgeon_without_guard(terms), 0.0)


def fisher_factor(moments: Moments, settings: CriterionSettings) -> float:
    """The number s that `fisher_scale` stands for."""
    if settings.fisher_scale == "batch":
        return moments.samples / moments.batches
    if settings.fisher_scale == "dataset":
        return float(moments.samples)
    return float(settings.fisher_scale)


@dataclass(frozen=True)
class SecondOrder:
    """How large the second-order term is beside the first, summed over all weights."""

    first: float  # sum of abs(w G)
    second: float  # sum of abs(w^2 C / 2)
    scale: float  # what the Fisher diagonal was multiplied by

    @property
    def ratio(self) -> float:
        """Second over first; infinite where the first is zero."""
        if self.first == 0:
            return 0.0 if self.second == 0 else float("inf")
        return self.second / self.first

    def plus(self, terms: TaylorTerms) -> "SecondOrder":
        """With one more layer."""
        first, second = float(terms.first.abs_().sum()), float(terms.second.abs_().sum())
        return SecondOrder(self.first + first, self.second + second, self.scale)

    def __str__(self) -> str:
        return f"the second-order term is {self.ratio:.2g} of the first (Fisher scale {self.scale:g})"


@dataclass(frozen=True)
class Scoring:
    """Scores, and what there is to say about how they came about."""

    scores: Scores
    samples: int = 0  # 0: the criterion looks at no data
    batches: int = 0
    second_order: SecondOrder | None = None
    engine: str = ""  # what measured the moments of the gradients, if they were measured
    change: float | None = None  # share of the kept weights that the last doubling of the samples changed

    def notes(self, settle: float | None = None) -> list[str]:
        """What a user should know, in sentences; `settle` is the share that was asked for."""
        said = [str(self.second_order)] if self.second_order else []
        if self.engine:
            said.append(f"gradients measured by {self.engine}")
        if settle is not None and self.change is not None:
            verdict = "settled" if self.change < settle else "not settled yet, take more samples"
            said.append(
                f"{self.samples} samples: the last doubling changed {self.change:.2%} of the kept weights "
                f"({verdict}; asked for less than {settle:.2%})"
            )
        return said


Criterion = Callable[[ScoringTask], Scoring]
