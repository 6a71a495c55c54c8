"""Who looks like the patients learned from: the rule keeps its promise, and a stranger is seen."""

import numpy as np
import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from radiogen.egfr.ood import OodDetector


@parametrize_with_checks([OodDetector()])
def test_it_passes_the_checks_of_scikit_learn(estimator, check):
    check(estimator)


def draw(rng, patients, features):
    """Correlated, partly skewed columns, as pooled features are."""
    mixed = rng.normal(size=(patients, features)) @ (
        0.3 * np.random.default_rng(9).normal(size=(features, features))
    )
    mixed[:, ::4] = np.exp(mixed[:, ::4])
    return mixed


@pytest.mark.parametrize(("patients", "features"), [(40, 8), (60, 200), (150, 30)])
def test_about_95_in_100_new_patients_of_the_kind_are_familiar(patients, features):
    rng = np.random.default_rng(0)
    blocks = ["a"] * (features // 2) + ["b"] * (features - features // 2)
    shares = []
    for _ in range(8):
        known = OodDetector(blocks=blocks).fit(draw(rng, patients, features))
        shares.append((known.distance(draw(rng, 100, features)) <= 1).mean())
    assert np.mean(shares) == pytest.approx(0.95, abs=0.04)


@pytest.mark.parametrize(("patients", "features"), [(40, 8), (60, 200), (150, 30)])
def test_a_patient_of_another_kind_is_not(patients, features):
    rng = np.random.default_rng(0)
    known = OodDetector().fit(draw(rng, patients, features))
    moved = draw(rng, 100, features)
    assert (known.distance(moved + 4 * moved.std(axis=0)) > 1).all()
    assert (known.distance(5 * moved) > 1).mean() > 0.9
    apart = rng.permuted(moved, axis=0)  # each column twice its range, no longer together
    assert (known.distance(2 * apart) > 1).mean() > 0.8


def test_one_strange_block_is_seen_among_many_familiar_columns():
    rng = np.random.default_rng(1)
    table = rng.normal(size=(60, 403))
    blocks = ["shape"] * 3 + ["deep"] * 400
    known = OodDetector(blocks=blocks).fit(table)
    stranger = rng.normal(size=(20, 403))
    stranger[:, :3] += 8
    assert (known.distance(stranger) > 1).all()
    assert set(known.farthest_block(stranger)) == {"shape"}


def test_one_wild_column_does_not_make_everybody_familiar():
    rng = np.random.default_rng(1)
    table = rng.normal(size=(60, 40))
    table[:, 0] = np.exp(12 * table[:, 0])
    known = OodDetector().fit(table)
    assert (known.distance(rng.normal(size=(50, 40)) + 3) > 1).all()


def test_the_unit_does_not_matter():
    rng = np.random.default_rng(2)
    table, new = rng.normal(size=(40, 5)), rng.normal(size=(9, 5))
    first = OodDetector().fit(table).distance(new)
    assert OodDetector().fit(1000 * table + 7).distance(1000 * new + 7) == pytest.approx(first)


def test_names_that_do_not_fit_the_columns_are_refused():
    with pytest.raises(ValueError, match="3 names for 2 columns"):
        OodDetector(blocks=["a", "b", "c"]).fit(np.zeros((9, 2)))
