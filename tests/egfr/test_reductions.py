"""Reductions: equal to scikit-learn's where it has them, and at ease with what has little in it."""

import numpy as np
import pytest
from sklearn.cross_decomposition import PLSRegression
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.utils.estimator_checks import parametrize_with_checks

from radiogen.egfr.reductions import LinearReduction, make_reduction
from radiogen.errors import ConfigError

KINDS = ("pca", "pls", "lda", "paper")


@parametrize_with_checks([LinearReduction()])
def test_it_passes_the_checks_of_scikit_learn(estimator, check):
    check(estimator)


def make_data(patients: int = 40, features: int = 6):
    rng = np.random.default_rng(2)
    labels = np.arange(patients) % 2
    return rng.normal(size=(patients, features)) @ rng.normal(size=(features, features)) + labels[
        :, None
    ], labels


def same_but_for_signs(first, second):
    signs = np.sign((first * second).sum(0))
    np.testing.assert_allclose(first, second * signs, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("features", [6, 90])
def test_components_are_those_of_scikit_learn(features):
    table, labels = make_data(features=features)
    ours = LinearReduction("pca", 4).fit_transform(table, labels)
    theirs = PCA(4, svd_solver="full").fit_transform(table)
    assert ours[:, 0].std() == pytest.approx(1)
    same_but_for_signs(ours * theirs[:, 0].std(), theirs)


@pytest.mark.parametrize("features", [6, 90])
def test_partial_least_squares_are_those_of_scikit_learn(features):
    table, labels = make_data(features=features)
    ours = LinearReduction("pls", 3).fit(table, labels).transform(table)
    theirs = PLSRegression(3, scale=False).fit(table, labels.astype(float)).transform(table)
    same_but_for_signs(ours, theirs)


@pytest.mark.parametrize("shrinkage", [0.1, 0.5, 0.9])
def test_the_shrunk_discriminant_is_that_of_scikit_learn(shrinkage):
    table, labels = make_data()
    ours = LinearReduction("lda", shrinkage=shrinkage).fit(table, labels).transform(table)
    theirs = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage).fit(table, labels)
    assert np.corrcoef(ours[:, 0], theirs.decision_function(table))[0, 1] == pytest.approx(1, abs=1e-12)
    within = np.concatenate([ours[labels == each] - ours[labels == each].mean() for each in (0, 1)])
    assert within.std() == pytest.approx(1, abs=0.5)


def test_the_published_discriminant_is_scikit_learns_as_it_comes():
    table, labels = make_data()
    ours = LinearReduction("paper").fit(table, labels).transform(table)
    theirs = LinearDiscriminantAnalysis().fit_transform(table, labels)
    same_but_for_signs(ours, theirs - theirs.mean(0))


@pytest.mark.parametrize(("name", "width"), [("lda", 1), ("paper", 1), ("pca", 4), ("pls", 3)])
def test_many_features_become_few(name, width):
    reduction, grid = make_reduction(name, components=4)
    table, labels = make_data(30, 90)
    assert reduction.fit(table, labels).transform(table[:7]).shape == (7, width)
    assert all(name in reduction.get_params() for name in grid)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "table",
    [
        np.zeros((8, 3)),
        np.repeat(np.arange(8.0)[:, None], 5, axis=1),
        np.repeat((np.arange(8) % 2.0)[:, None], 3, axis=1),
    ],
    ids=["constant", "one column repeated", "the label itself"],
)
def test_data_with_little_in_it_is_survived(kind, table):
    labels = np.arange(8) % 2
    reduced = LinearReduction(kind).fit(table, labels).transform(table)
    assert reduced.shape[0] == 8 and reduced.shape[1] >= 1 and np.isfinite(reduced).all()


def test_a_class_of_one_sample_is_survived():
    table, _ = make_data(9)
    labels = np.array([1] + [0] * 8)
    for kind in KINDS:
        assert np.isfinite(LinearReduction(kind).fit(table, labels).transform(table)).all()


def test_no_more_components_than_the_samples_carry():
    few = np.random.default_rng(0).normal(size=(4, 9))
    assert LinearReduction(n_components=50).fit_transform(few).shape == (4, 3)
    assert LinearReduction(n_components=50).fit_transform(few.T).shape == (9, 4)


def test_an_unknown_name_is_answered_with_the_right_ones():
    with pytest.raises(ConfigError, match="lda, paper, pca, pls"):
        make_reduction("umap", 2)
