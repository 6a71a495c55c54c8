"""Folds never divide a patient, keep the share of the classes, and hang on the seed alone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from radiogen.egfr.cross_validation import draw_folds
from radiogen.errors import TableError


def ids(count: int) -> list[str]:
    return [f"P{number}" for number in range(count)]


@settings(max_examples=40)
@given(
    positives=st.integers(6, 30),
    negatives=st.integers(6, 60),
    folds=st.integers(2, 4),
    seed=st.integers(0, 9),
)
def test_each_repeat_tests_every_patient_once_with_classes_in_proportion(positives, negatives, folds, seed):
    labels = np.array([1] * positives + [0] * negatives)
    for tests in draw_folds(ids(len(labels)), labels, folds, 2, seed):
        assert sorted(np.concatenate(tests)) == list(range(len(labels)))
        counts = [int(labels[test].sum()) for test in tests]
        assert max(counts) - min(counts) <= 1


def test_repeats_differ_and_the_same_seed_gives_the_same():
    labels = np.arange(40) % 2
    first, second = draw_folds(ids(40), labels, 5, 2, seed=1)
    again = draw_folds(ids(40), labels, 5, 1, seed=1)[0]
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    assert any((a != b).any() for a, b in zip(first, second, strict=True))


def test_a_doubled_patient_is_caught():
    with pytest.raises(TableError, match="patient P3: appears in two rows"):
        draw_folds([*ids(10), "P3"], np.arange(11) % 2, 2, 1, 0)


@pytest.mark.parametrize(
    ("positives", "hint"), [(0, "other class"), (1, "add patients"), (2, "add patients"), (4, "4 folds")]
)
def test_a_class_that_is_too_small_is_refused_with_a_way_out(positives, hint):
    labels = np.array([1] * positives + [0] * 20)
    with pytest.raises(TableError, match=hint):
        draw_folds(ids(len(labels)), labels, 5, 1, 0)


def test_the_way_out_that_is_offered_works():
    for positives in range(4, 8):
        labels = np.array([1] * positives + [0] * 20)
        assert len(draw_folds(ids(len(labels)), labels, positives, 1, 0)[0]) == positives
