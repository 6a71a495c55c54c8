"""Cleaning of columns."""

import numpy as np
from sklearn.utils.estimator_checks import parametrize_with_checks

from radiogen.egfr.preprocessing import VaryingColumns, make_cleaning


@parametrize_with_checks([VaryingColumns()])
def test_it_passes_the_checks_of_scikit_learn(estimator, check):
    check(estimator)


def test_gaps_get_the_median_and_constants_go():
    table = np.array([[1.0, 7.0, np.nan], [3.0, 7.0, np.nan], [np.nan, 7.0, np.nan], [8.0, 7.0, np.nan]])
    cleaned = make_cleaning().fit_transform(table)
    assert cleaned.shape == (4, 1)
    filled = np.array([1.0, 3.0, 3.0, 8.0])
    np.testing.assert_allclose(cleaned[:, 0], (filled - filled.mean()) / filled.std())


def test_where_nothing_varies_one_column_of_zeros_is_left():
    assert (make_cleaning().fit_transform(np.full((4, 3), 2.5)) == np.zeros((4, 1))).all()
