"""Figures of candidates that were judged in the same folds, and what one adds to another."""

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from radiogen.egfr.folds import derive_seed
from radiogen.egfr.statistics import (
    Difference,
    bootstrap_auc,
    brier,
    calibration,
    delong_difference,
    net_benefit,
)
from radiogen.egfr.validation import OutOfFold

Labels = NDArray[np.int64]
BASELINES = ("majority", "site", "clinical", "volume")
CURVE = tuple(round(0.05 * step, 2) for step in range(1, 13))  # thresholds of the decision curve


def describe(
    said: OutOfFold, labels: Labels, names: tuple[str, str], draws: int, seed: int
) -> dict[str, Any]:
    """Figures of one candidate; all but the AUC's interval are means over the repeats.

    Args:
        said: What it said out of fold.
        labels: 1 is the positive class.
        names: Names of the classes 0 and 1.
        draws: Bootstrap draws of patients.
        seed: Seed of the draws; the same for all candidates.
    """
    rng = np.random.default_rng(derive_seed(seed, 2))
    repeats = range(len(said.scores))
    lines = [calibration(said.probabilities[row], labels) for row in repeats]
    tells_apart = float(np.ptp(said.scores)) > 0
    found = said.called[:, labels == 1].mean()
    spared = (~said.called[:, labels == 0]).mean()
    return {
        "auc": asdict(bootstrap_auc(said.scores, labels, draws, rng)),
        "auprc": float(np.mean([average_precision_score(labels, said.scores[row]) for row in repeats])),
        "prevalence": float(labels.mean()),
        "brier": brier(said.probabilities, labels),
        "calibration_slope": float(np.mean([slope for slope, _ in lines])) if tells_apart else math.nan,
        "calibration_intercept": float(np.mean([intercept for _, intercept in lines])),
        "sensitivity": float(found),
        "specificity": float(spared),
        f"f1_{names[1]}": float(np.mean([_f1(said.called[row], labels == 1) for row in repeats])),
        f"f1_{names[0]}": float(np.mean([_f1(~said.called[row], labels == 0) for row in repeats])),
    }


def _f1(called: NDArray[np.bool_], true: NDArray[np.bool_]) -> float:
    return float(2 * (called & true).sum() / (called.sum() + true.sum()))


def compare(outcomes: Mapping[str, OutOfFold], labels: Labels, model: str) -> list[dict[str, Any]]:
    """Differences in AUC on the same patients: the increment over clinical, then model and baselines."""
    pairs = [("clinical+features", "clinical"), *((model, baseline) for baseline in BASELINES)]
    listed = []
    for first, second in dict.fromkeys(pairs):
        if first in outcomes and second in outcomes and first != second:
            gap = delong_difference(outcomes[first].scores, outcomes[second].scores, labels)
            listed.append({"first": first, "second": second, **asdict(gap)})
    return listed


def increment(outcomes: Mapping[str, OutOfFold], labels: Labels) -> Difference | None:
    """What the features add to the clinical variables in AUC; None where one of them is not there."""
    if "clinical+features" not in outcomes or "clinical" not in outcomes:
        return None
    return delong_difference(outcomes["clinical+features"].scores, outcomes["clinical"].scores, labels)


def decision_curves(outcomes: Mapping[str, OutOfFold], labels: Labels, model: str) -> dict[str, list[float]]:
    """Net benefit of the model, of the clinical variables, and of calling everybody positive."""
    thresholds = np.array(CURVE)
    shown = [name for name in dict.fromkeys((model, "clinical", "clinical+features")) if name in outcomes]
    curves = {name: net_benefit(outcomes[name].probabilities, labels, thresholds) for name in shown}
    curves["everybody positive"] = net_benefit(np.ones((1, len(labels))), labels, thresholds)
    return {"threshold": list(CURVE), **{name: curve.tolist() for name, curve in curves.items()}}


def without_nan(content: Any) -> Any:
    """The same content with None for every number that is not finite, as JSON needs it."""
    if isinstance(content, Mapping):
        return {key: without_nan(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [without_nan(value) for value in content]
    if isinstance(content, float) and not math.isfinite(content):
        return None
    return content
