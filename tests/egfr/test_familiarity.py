"""Who looks like the patients learned from."""

import numpy as np
import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from radiogen.egfr.familiarity import Familiarity


@parametrize_with_checks([Familiarity()])
def test_it_passes_the_checks_of_scikit_learn(estimator, check):
    check(estimator)


@pytest.mark.parametrize(("patients", "features"), [(30, 200), (100, 8)])
def test_new_patients_of_the_kind_are_familiar_and_others_are_not(patients, features):
    rng = np.random.default_rng(0)
    known = Familiarity().fit(rng.normal(size=(patients, features)))
    assert (known.distance(rng.normal(size=(300, features))) <= 1).mean() > 0.9
    assert (known.distance(rng.normal(size=(300, features)) * 3 + 1) > 1).mean() > 0.9


def test_one_wild_column_does_not_make_everybody_familiar():
    rng = np.random.default_rng(1)
    table = rng.normal(size=(60, 40))
    table[:, 0] = np.exp(12 * table[:, 0])
    known = Familiarity().fit(table)
    strange = rng.normal(size=(50, 40)) + 3
    assert (known.distance(strange) > 1).all()


def test_the_unit_does_not_matter():
    rng = np.random.default_rng(2)
    table, new = rng.normal(size=(40, 5)), rng.normal(size=(9, 5))
    first = Familiarity().fit(table).distance(new)
    assert Familiarity().fit(1000 * table + 7).distance(1000 * new + 7) == pytest.approx(first)
