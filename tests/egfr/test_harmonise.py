"""ComBat by hospital: the published algorithm, inside the folds, and what it does to an unknown hospital."""

from dataclasses import replace

import numpy as np
import pytest
from egfr.made_tables import QUICK
from sklearn.utils.estimator_checks import parametrize_with_checks

from radiogen.egfr.candidates import list_candidates
from radiogen.egfr.classify import classify_egfr
from radiogen.egfr.cohort import read_cohort
from radiogen.egfr.preprocessing import SITE, SiteHarmonizer
from radiogen.egfr.train import train_egfr
from radiogen.errors import TableError

TABLE = np.array([
    [0.13, -0.13, 0.64, 0.1], [-0.54, 0.36, 1.3, 0.95], [-0.7, -1.27, -0.62, 0.04],
    [-2.33, -0.22, -1.25, -0.73], [-0.54, -0.32, 0.41, 1.04], [1.78, 4.33, 0.86, 2.6],
    [3.53, 2.15, 0.74, 0.44], [1.22, 2.37, 0.28, 1.64], [1.73, 2.92, 2.36, 2.61],
    [0.9, 1.78, 3.33, 4.53], [-0.14, 4.57, 4.3, 3.33], [2.44, 1.47, 4.48, 5.33],
])  # fmt: skip
SITES = np.array([0.0] * 5 + [1.0] * 7)


@parametrize_with_checks([SiteHarmonizer()])
def test_it_passes_the_checks_of_scikit_learn(estimator, check):
    check(estimator)


def test_it_gives_what_neurocombat_gives():
    """First and last row as neuroCombat 0.2.12 made them of this table."""
    found = SiteHarmonizer().fit_transform(np.column_stack([SITES, TABLE]))
    assert found[0] == pytest.approx([1.8035, 1.5042, 2.4646, 1.6624], abs=2e-4)
    assert found[-1] == pytest.approx([1.2735, 0.6692, 2.8361, 3.6233], abs=2e-4)


def test_an_unknown_hospital_stays_as_it_is_and_gaps_stay_gaps():
    fitted = SiteHarmonizer().fit(np.column_stack([SITES, TABLE]))
    new = np.array([[np.nan, 1, 2, 3, 4], [7, 1, 2, 3, 4], [0, 1, np.nan, 3, 4]])
    found = fitted.transform(new)
    assert found[:2].tolist() == [[1, 2, 3, 4]] * 2
    assert np.isnan(found[2, 1]) and np.isfinite(found[2, [0, 2, 3]]).all()
    holes = TABLE.copy()
    holes[3, 2] = np.nan
    assert np.isnan(SiteHarmonizer().fit_transform(np.column_stack([SITES, holes]))).sum() == 1


def test_a_hospital_of_two_patients_is_left_alone():
    few = np.column_stack([np.where(np.arange(12) < 2, 5.0, SITES), TABLE])
    assert (SiteHarmonizer().fit_transform(few)[:2] == TABLE[:2]).all()


HARMONISED = QUICK.model_copy(update={"harmonise": True, "permutations": 0})


def shifted(features, clinical):
    """The second hospital measures everything 50 higher."""
    for row, person in zip(features, clinical, strict=True):
        for name in list(row)[3:]:
            row[name] = f"{float(row[name]) + 50 * (person['site'] == 'there'):.6f}"


def test_a_scanner_that_measures_higher_does_no_harm_and_new_patients_are_moved_too(tables, tmp_path):
    features, clinical = tables(shifted)
    cohort = read_cohort(features, clinical, HARMONISED)
    candidate = list_candidates(cohort, HARMONISED)["features"]
    assert candidate.feature_columns[0] == SITE and SITE not in cohort.features.columns
    done = train_egfr(features, tmp_path / "model", clinical, HARMONISED)
    assert done.auc.value > 0.75
    with_site = classify_egfr(features, tmp_path / "model", tmp_path / "a.csv", clinical)
    without = classify_egfr(features, tmp_path / "model", tmp_path / "b.csv")
    assert any("not harmonised" in note for note in without.notes)
    assert not any("not harmonised" in note for note in with_site.notes)
    assert with_site.predictions["P00"].probability != without.predictions["P00"].probability


def test_one_hospital_cannot_be_harmonised(tables):
    cohort = replace(read_cohort(*tables(), QUICK), sites=("here",) * 30)
    with pytest.raises(TableError, match="do not name two hospitals"):
        list_candidates(cohort, HARMONISED)
