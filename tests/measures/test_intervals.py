"""Bootstrap intervals and paired differences, by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from radiogen.measures.intervals import bootstrap_by_patient, paired_difference, sample_deviation

VALUES = st.lists(st.floats(-100, 100), min_size=2, max_size=6)


def test_three_pairs_by_hand():
    found = paired_difference([91.0, 92.0, 93.0], [90.0, 91.0, 90.0])  # 1, 1, 3
    assert found.pairs == 3 and found.mean == pytest.approx(5 / 3)
    half = 4.302652729911275 * (4 / 3) ** 0.5 / 3**0.5  # t of 2 degrees of freedom; variance 4/3
    assert found.low == pytest.approx(5 / 3 - half) and found.high == pytest.approx(5 / 3 + half)


def test_one_pair_has_no_interval_and_one_value_no_spread():
    found = paired_difference([3.0], [1.0])
    assert (found.mean, found.low, found.high) == (2.0, None, None)
    assert sample_deviation([3.0]) is None and sample_deviation([1.0, 3.0]) == pytest.approx(2**0.5)


@given(VALUES)
def test_what_both_share_does_not_widen_the_interval(values):
    shifted = [value + 5 for value in values]
    found = paired_difference(shifted, values)
    assert found.mean == pytest.approx(5) and found.high - found.low == pytest.approx(0, abs=1e-9)


@given(VALUES)
def test_the_other_way_round_changes_the_sign(values):
    forth, back = paired_difference(values, values[::-1]), paired_difference(values[::-1], values)
    assert forth.mean == pytest.approx(-back.mean, abs=1e-9)
    assert forth.low == pytest.approx(-back.high, abs=1e-9)


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
