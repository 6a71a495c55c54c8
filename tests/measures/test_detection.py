"""FROC points and bootstrap intervals, by hand."""

import numpy as np
import pytest

from radiogen.measures.detection import FROC_RATES, froc
from radiogen.measures.intervals import bootstrap_by_patient


def test_froc_by_hand() -> None:
    # 4 scans, 5 lesions. From the top: hit 0.9, false 0.8, hits 0.7 and 0.7, false 0.6, false 0.6, hit 0.2.
    curve = froc([0.9, 0.7, 0.7, 0.2], [0.8, 0.6, 0.6], lesions=5, scans=4, rates=(0.125, 0.25, 0.5, 0.75))
    assert curve is not None
    assert curve.sensitivities == pytest.approx((0.2, 0.6, 0.6, 0.8))
    assert curve.score == pytest.approx(0.55)


def test_a_hit_and_a_false_lesion_of_one_score_come_together() -> None:
    curve = froc([0.5], [0.5], lesions=1, scans=1, rates=(0.5, 1.0))
    assert curve is not None and curve.sensitivities == (0.0, 1.0)


def test_without_false_lesions_every_rate_has_the_same_sensitivity() -> None:
    curve = froc([0.5, 0.1], [], lesions=4, scans=3)
    assert curve is not None and curve.sensitivities == (0.5,) * len(FROC_RATES)


def test_nothing_predicted_finds_nothing_and_no_lesion_has_no_curve() -> None:
    nothing = froc([], [], lesions=2, scans=1)
    assert nothing is not None and nothing.score == 0
    assert froc([], [0.5], lesions=0, scans=3) is None


def test_lesions_of_one_patient_are_drawn_together() -> None:
    values, patients = [0.0, 0.0, 0.0, 0.0, 1.0], ["a", "a", "a", "a", "b"]
    found = bootstrap_by_patient(values, patients, np.random.default_rng(0))
    assert found is not None
    assert (found.value, found.low, found.high) == (0.2, 0.0, 1.0)  # all a, or all b, in one of four draws


def test_one_patient_and_equal_values_have_no_interval() -> None:
    rng = np.random.default_rng(0)
    one, same = (
        bootstrap_by_patient([0.1, 0.9], ["a", "a"], rng),
        bootstrap_by_patient([1, 1], ["a", "b"], rng),
    )
    assert one is not None and (one.value, one.low) == (0.5, None)
    assert same is not None and (same.value, same.high) == (1, None)
    assert bootstrap_by_patient([], [], rng) is None


def test_the_interval_of_a_mean_is_about_that_of_the_normal() -> None:
    values = np.random.default_rng(1).normal(size=200)
    found = bootstrap_by_patient(values.tolist(), [str(n) for n in range(200)], np.random.default_rng(2))
    reach = 1.96 * values.std(ddof=1) / np.sqrt(200)
    assert found is not None and found.low is not None and found.high is not None
    assert found.low == pytest.approx(values.mean() - reach, abs=0.02)
    assert found.high == pytest.approx(values.mean() + reach, abs=0.02)


def test_a_median_bears_infinite_distances() -> None:
    found = bootstrap_by_patient([1.0, 2.0, np.inf], list("abc"), np.random.default_rng(0), np.median)
    assert found is not None and (found.value, found.high) == (2.0, np.inf)
