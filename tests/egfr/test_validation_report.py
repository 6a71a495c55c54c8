"""The figures of a candidate, by hand where it can be done."""

import math

import numpy as np
import pytest

from radiogen.egfr.cross_validation import OutOfFold
from radiogen.egfr.statistics import logit
from radiogen.egfr.validation_report import (
    compare_aucs,
    decision_curves,
    describe_predictions,
    increment,
    without_nan,
)

LABELS = np.array([1, 1, 0, 0, 0, 0])


def say(*probabilities: float) -> OutOfFold:
    row = np.array([probabilities])
    return OutOfFold(row, logit(row), row >= 0.5, ())


GOOD = say(0.9, 0.4, 0.6, 0.2, 0.1, 0.1)
POOR = say(0.5, 0.2, 0.6, 0.4, 0.3, 0.1)


def test_figures_by_hand():
    figures = describe_predictions(GOOD, LABELS, ("wildtype", "mutant"), draws=200, seed=0)
    assert figures["auc"]["value"] == pytest.approx(7 / 8)
    assert figures["prevalence"] == pytest.approx(1 / 3)
    assert figures["auprc"] == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert figures["sensitivity"] == 0.5 and figures["specificity"] == 0.75
    assert figures["f1_mutant"] == pytest.approx(2 / 4)  # 1 found, 1 missed, 1 false
    assert figures["f1_wildtype"] == pytest.approx(6 / 8)
    assert figures["brier"] == pytest.approx((0.01 + 0.36 + 0.36 + 0.04 + 0.01 + 0.01) / 6)


def test_who_tells_nobody_apart_has_no_calibration_slope():
    flat = OutOfFold(np.full((1, 6), 0.3), np.zeros((1, 6)), np.zeros((1, 6), bool), ())
    figures = describe_predictions(flat, LABELS, ("wildtype", "mutant"), draws=200, seed=0)
    assert math.isnan(figures["calibration_slope"])
    assert figures["auc"] == {"value": 0.5, "low": 0.5, "high": 0.5}


def test_the_increment_over_clinical_stands_first():
    outcomes = {"majority": POOR, "clinical": POOR, "features": GOOD, "clinical+features": GOOD}
    listed = compare_aucs(outcomes, LABELS, "features")
    assert [(each["first"], each["second"]) for each in listed] == [
        ("clinical+features", "clinical"),
        ("features", "majority"),
        ("features", "clinical"),
    ]
    gain = increment(outcomes, LABELS)
    assert gain is not None and gain.value == pytest.approx(listed[0]["value"]) == pytest.approx(
        7 / 8 - 4 / 8
    )
    assert increment({"clinical": POOR}, LABELS) is None


def test_calling_everybody_gains_the_prevalence_at_low_thresholds():
    curves = decision_curves({"features": GOOD}, LABELS, "features")
    assert curves["everybody positive"][0] == pytest.approx(1 / 3 - 2 / 3 * 0.05 / 0.95)
    assert len(curves["features"]) == len(curves["threshold"])


def test_what_is_not_a_number_becomes_nothing():
    assert without_nan({"a": [math.nan, 1.0], "b": (math.inf,)}) == {"a": [None, 1.0], "b": [None]}
