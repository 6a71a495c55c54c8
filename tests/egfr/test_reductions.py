"""Reductions: their names, and that they carry what the data can carry."""

import numpy as np
import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from radiogen.egfr.reductions import UpToComponents, make_reduction
from radiogen.errors import ConfigError


@parametrize_with_checks([UpToComponents()])
def test_it_passes_the_checks_of_scikit_learn(estimator, check):
    check(estimator)


@pytest.mark.parametrize(("name", "width"), [("lda", 1), ("paper", 1), ("pca", 4), ("pls", 3)])
def test_many_features_become_few(name, width):
    rng = np.random.default_rng(0)
    labels = np.arange(30) % 2
    reduction, grid = make_reduction(name, components=4)
    reduced = reduction.fit(rng.normal(size=(30, 90)), labels).transform(rng.normal(size=(7, 90)))
    assert reduced.shape == (7, width)
    assert all(name in reduction.get_params() for name in grid)


def test_no_more_components_than_patients_or_features():
    assert UpToComponents(n_components=50).fit_transform(np.eye(6)[:, :4]).shape == (6, 4)
    assert UpToComponents(n_components=50).fit_transform(
        np.random.default_rng(0).normal(size=(4, 9))
    ).shape == (4, 3)


def test_turning_by_components_loses_nothing_for_the_discriminant():
    rng = np.random.default_rng(2)
    labels = np.arange(40) % 2
    table = rng.normal(size=(40, 6)) + labels[:, None]
    turned, _ = make_reduction("lda", 1)
    whole = turned.named_steps["lda"].fit(table, labels).transform(table)[:, 0]
    ours = turned.fit(table, labels).transform(table)[:, 0]
    assert abs(np.corrcoef(whole, ours)[0, 1]) == pytest.approx(1, abs=1e-9)


def test_an_unknown_name_is_answered_with_the_right_ones():
    with pytest.raises(ConfigError, match="lda, paper, pca, pls"):
        make_reduction("umap", 2)  # type: ignore[arg-type]
