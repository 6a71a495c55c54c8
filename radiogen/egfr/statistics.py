"""Statistics of a binary classifier: AUC with its 95 % interval, DeLong's test, calibration, net benefit.

The interval of an AUC comes from `bootstrap_auc`, which draws patients, or in closed form from `delong_auc`,
which external validation gives beside it; that of the difference of two AUCs from `delong_difference`. All
hold the chance of which patients were tested, not that of which ones the model
learned from: with 21 to 43 mutants they reach about 0.1 to either side.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from radiogen.measures.intervals import LEVEL

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Estimate:
    """A statistic with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """Difference of two AUCs of the same patients, with its 95 % interval and two-sided p-value."""

    value: float
    low: float
    high: float
    p: float


def win_shares(scores: Floats, labels: Labels) -> Floats:
    """Return how often each positive scores above each negative, a tie counting one half.

    Their mean is the AUC (Mann-Whitney; Hanley and McNeil, Radiology 143:29, 1982), their means by row and by
    column are DeLong's placements. The pairs are compared directly; the ranks of Sun and Xu (IEEE Signal
    Process Lett 21:1389, 2014) give the same numbers and pay with thousands of patients only.

    Args:
        scores: (repeats, patients) or (patients,), higher speaks for label 1.
        labels: (patients,) of 0 and 1.

    Returns:
        (positives, negatives), the mean over the repeats.
    """
    rows = np.atleast_2d(scores)
    wins = np.zeros((int((labels == 1).sum()), int((labels == 0).sum())))
    for row in rows:
        gap = row[labels == 1][:, None] - row[labels == 0][None, :]
        wins += (gap > 0) + 0.5 * (gap == 0)
    return wins / len(rows)


def auc(scores: Floats, labels: Labels) -> float:
    """Return the area under the ROC curve, the mean over repeats if there are several.

    >>> auc(np.array([0.1, 0.4, 0.35, 0.8]), np.array([0, 0, 1, 1]))
    0.75
    """
    return float(win_shares(scores, labels).mean())


def bootstrap_auc(scores: Floats, labels: Labels, draws: int, rng: np.random.Generator) -> Estimate:
    """Return the AUC with the percentile interval of a bootstrap by patient.

    A draw takes a patient with all repeats, since these are not independent. Draws without a patient of one
    class have no AUC and are left out.

    Args:
        scores: (repeats, patients) or (patients,), higher speaks for label 1.
        labels: (patients,) of 0 and 1.
        draws: Number of bootstrap samples.
        rng: Draws the patients.
    """
    wins = win_shares(scores, labels)
    # how often each patient is drawn is all that counts, so one matrix product serves all draws
    counts = rng.multinomial(len(labels), np.full(len(labels), 1 / len(labels)), size=draws)
    positive, negative = counts[:, labels == 1], counts[:, labels == 0]
    pairs = positive.sum(1) * negative.sum(1)
    areas = ((positive @ wins) * negative).sum(1)[pairs > 0] / pairs[pairs > 0]
    low, high = np.quantile(areas, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(float(wins.mean()), float(low), float(high))


def delong_auc(scores: Floats, labels: Labels) -> Estimate:
    """Return the AUC with the interval of DeLong et al., Biometrics 44:837, 1988 (normal, cut to [0, 1])."""
    wins = win_shares(scores, labels)
    half = norm.ppf((1 + LEVEL) / 2) * np.sqrt(_delong_variance(wins))
    value = float(wins.mean())
    return Estimate(value, float(max(0.0, value - half)), float(min(1.0, value + half)))


def delong_difference(first: Floats, second: Floats, labels: Labels) -> Difference:
    """Return the AUC of `first` minus that of `second` on the same patients (DeLong et al. 1988).

    Both are (repeats, patients) or (patients,). With repeats the placements are averaged over them before
    their variance is taken.
    """
    wins = win_shares(first, labels) - win_shares(second, labels)
    value, error = float(wins.mean()), float(np.sqrt(_delong_variance(wins)))
    half = norm.ppf((1 + LEVEL) / 2) * error
    p = float(2 * norm.sf(abs(value) / error)) if error > 0 else float(value == 0)
    return Difference(value, float(value - half), float(value + half), p)


def _delong_variance(wins: Floats) -> float:
    """Return the variance of the mean of `win_shares`, or of a difference of two; NaN for a class of one."""
    positives, negatives = wins.shape
    if min(positives, negatives) < 2:
        return float("nan")
    by_positive, by_negative = wins.mean(1), wins.mean(0)
    return float(by_positive.var(ddof=1) / positives + by_negative.var(ddof=1) / negatives)


def logit(probabilities: Floats) -> Floats:
    """Return the log odds of probabilities, which are kept one millionth away from 0 and 1."""
    kept = np.clip(probabilities, 1e-6, 1 - 1e-6)
    result: Floats = np.log(kept / (1 - kept))
    return result


def sigmoid(scores: Floats) -> Floats:
    """Return the logistic function, computed without overflow."""
    result: Floats = 0.5 * (1 + np.tanh(0.5 * scores))
    return result


def fit_line(scores: Floats, targets: Floats) -> tuple[float, float]:
    """Return slope and intercept of the logistic regression of targets in [0, 1] on one score.

    Newton steps on standardised scores, with a ridge of 1e-6 that keeps separable data finite. scikit-learn's
    takes labels only, but Platt's calibration needs targets in between.
    """
    center, spread = float(scores.mean()), float(scores.std())
    if spread == 0:
        return 0.0, float(logit(targets.mean()))
    design = np.column_stack([(scores - center) / spread, np.ones(len(scores))])
    weights = np.array([0.0, float(logit(targets.mean()))])
    for _ in range(100):
        fitted = sigmoid(design @ weights)
        slope = design.T @ (fitted - targets) + 1e-6 * weights
        curvature = (design.T * (fitted * (1 - fitted))) @ design + 1e-6 * np.eye(2)
        step = np.linalg.solve(curvature, slope)
        # a step of more than 2 would leave the region in which the quadratic fits
        weights = weights - step * min(1.0, 2.0 / float(np.abs(step).max() + 1e-12))
        if np.abs(step).max() < 1e-10:
            break
    return float(weights[0] / spread), float(weights[1] - weights[0] * center / spread)


def calibration(probabilities: Floats, labels: Labels) -> tuple[float, float]:
    """Return the calibration slope, and the intercept with the slope held at 1 (calibration in the large).

    Perfect are 1 and 0 (Van Calster et al., BMC Med 17:230, 2019). The slope is NaN where all probabilities
    are equal.
    """
    scores = logit(probabilities)
    slope = fit_line(scores, labels.astype(float))[0] if np.ptp(scores) > 0 else float("nan")
    intercept = 0.0
    for _ in range(100):
        fitted = sigmoid(scores + intercept)
        step = float((labels - fitted).sum() / max((fitted * (1 - fitted)).sum(), 1e-9))
        intercept += max(-2.0, min(2.0, step))
        if abs(step) < 1e-10:
            break
    return slope, intercept


def brier(probabilities: Floats, labels: Labels) -> float:
    """Return the Brier score, the mean squared error of the probabilities."""
    return float(np.mean((probabilities - labels) ** 2))


def youden_threshold(probabilities: Floats, labels: Labels) -> float:
    """Return the threshold with the largest sensitivity + specificity (Youden, Cancer 3:32, 1950).

    It lies midway between two probabilities; of several best ones the middle one is taken.
    """
    levels = np.unique(probabilities)
    if len(levels) < 2:
        return float(levels[0])
    cuts = (levels[1:] + levels[:-1]) / 2
    called = probabilities[None, :] >= cuts[:, None]
    youden = called[:, labels == 1].mean(1) - called[:, labels == 0].mean(1)
    best = np.flatnonzero(youden >= youden.max() - 1e-12)
    return float(cuts[best[len(best) // 2]])


def net_benefit(probabilities: Floats, labels: Labels, thresholds: Floats) -> Floats:
    """Return the net benefit per patient of calling positive from each threshold on.

    Vickers and Elkin, Med Decis Making 26:565, 2006. `probabilities` are (repeats, patients) or (patients,).
    """
    called = np.atleast_2d(probabilities)[:, None, :] >= thresholds[None, :, None]
    true = (called & (labels == 1)).mean((0, 2))
    false = (called & (labels == 0)).mean((0, 2))
    result: Floats = true - false * thresholds / (1 - thresholds)
    return result
