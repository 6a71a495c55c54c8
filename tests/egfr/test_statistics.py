"""AUC, its intervals and differences, calibration and net benefit on vectors worked out by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from radiogen.egfr.statistics import (
    auc,
    bootstrap_auc,
    brier,
    calibration,
    delong_auc,
    delong_difference,
    fit_line,
    logit,
    net_benefit,
    sigmoid,
    youden_threshold,
)

LABELS = np.array([1, 1, 0, 0, 0])
SCORES = np.array([0.8, 0.4, 0.6, 0.3, 0.1])


def make_scores(patients: int = 400, gain: float = 1.0, seed: int = 0):
    rng = np.random.default_rng(seed)
    labels = (np.arange(patients) % 3 == 0).astype(np.int64)
    return rng.normal(size=(2, patients)) + gain * labels, labels


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=40))
def test_auc_is_that_of_scikit_learn_ties_included(pairs):
    scores = np.array([float(score) for score, _ in pairs])
    labels = np.array([int(label) for _, label in pairs])
    if 0 < labels.sum() < len(labels):
        assert auc(scores, labels) == pytest.approx(roc_auc_score(labels, scores))


def test_delong_variance_by_hand():
    # Placements of the positives 1 and 2/3 (variance 1/18), of the negatives 1/2, 1, 1 (variance 1/12).
    estimate = delong_auc(SCORES, LABELS)
    assert estimate.value == pytest.approx(5 / 6)
    assert estimate.value - estimate.low == pytest.approx(norm.ppf(0.975) * np.sqrt(1 / 36 + 1 / 36))
    assert estimate.high == 1.0


def test_delong_difference_by_hand():
    other = np.array(
        [0.8, 0.2, 0.6, 0.3, 0.1]
    )  # wins 1 1 1 and 0 0 1: the difference is 0 1 0 of one positive
    gap = delong_difference(SCORES, other, LABELS)
    error = np.sqrt(np.var([0, 1 / 3], ddof=1) / 2 + np.var([0, 0.5, 0], ddof=1) / 3)
    assert gap.value == pytest.approx(1 / 6)
    assert gap.high - gap.value == pytest.approx(norm.ppf(0.975) * error)
    assert gap.p == pytest.approx(2 * norm.sf(1 / 6 / error))


def test_a_classifier_differs_from_itself_by_nothing():
    gap = delong_difference(SCORES, SCORES, LABELS)
    assert (gap.value, gap.low, gap.high, gap.p) == (0.0, 0.0, 0.0, 1.0)


def test_bootstrap_and_delong_agree_on_many_patients():
    scores, labels = make_scores()
    drawn = bootstrap_auc(scores[0], labels, 2000, np.random.default_rng(1))
    exact = delong_auc(scores[0], labels)
    assert drawn.value == exact.value
    assert drawn.low == pytest.approx(exact.low, abs=0.01)
    assert drawn.high == pytest.approx(exact.high, abs=0.01)


def test_delong_interval_holds_the_truth_as_often_as_it_says():
    truth = norm.cdf(1 / np.sqrt(2))
    held = 0
    for seed in range(300):
        scores, labels = make_scores(patients=120, seed=seed)
        interval = delong_auc(scores[0], labels)
        held += interval.low <= truth <= interval.high
    assert 0.91 <= held / 300 <= 0.985


def test_the_auc_of_repeats_is_the_mean_of_their_aucs():
    scores, labels = make_scores(60)
    assert auc(scores, labels) == pytest.approx(np.mean([auc(row, labels) for row in scores]))


def test_true_probabilities_have_slope_one_and_intercept_zero():
    rng = np.random.default_rng(3)
    truth = rng.uniform(0.05, 0.95, 20000)
    labels = (rng.random(20000) < truth).astype(np.int64)
    slope, intercept = calibration(truth, labels)
    assert slope == pytest.approx(1, abs=0.05)
    assert intercept == pytest.approx(0, abs=0.05)
    slope, intercept = calibration(sigmoid(2 * logit(truth) + 1), labels)
    assert slope == pytest.approx(0.5, abs=0.03)
    assert intercept < -0.5


def test_the_line_is_that_of_an_unpenalised_logistic_regression():
    scores, labels = make_scores(200)
    ours = fit_line(10 * scores[0], labels.astype(float))
    theirs = LogisticRegression(C=np.inf, tol=1e-8).fit(10 * scores[0][:, None], labels)
    assert ours[0] == pytest.approx(theirs.coef_[0, 0], rel=1e-4)
    assert ours[1] == pytest.approx(theirs.intercept_[0], rel=1e-4)


def test_separable_scores_give_a_finite_line():
    slope, intercept = fit_line(np.array([-2.0, -1.0, 1.0, 2.0]), np.array([0.0, 0.0, 1.0, 1.0]))
    assert np.isfinite([slope, intercept]).all() and slope > 5


def test_brier_by_hand():
    assert brier(np.array([0.5, 1.0]), np.array([1, 1])) == 0.125


def test_the_threshold_parts_what_can_be_parted():
    assert youden_threshold(np.array([0.1, 0.2, 0.6, 0.8]), np.array([0, 0, 1, 1])) == pytest.approx(0.4)


def test_net_benefit_by_hand():
    # At 0.2: 2 of 5 true, 2 of 5 false, each false one costs 0.25.
    benefit = net_benefit(SCORES, LABELS, np.array([0.2]))
    assert benefit[0] == pytest.approx(2 / 5 - 2 / 5 * 0.25)
