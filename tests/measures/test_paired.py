"""Paired differences, by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from radiogen.measures.intervals import paired_difference, sample_deviation

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
