"""A model that tells hospitals apart is found out."""

from dataclasses import replace

import numpy as np
from egfr.made_tables import QUICK

from radiogen.egfr.candidates import list_candidates
from radiogen.egfr.cohort import read_cohort
from radiogen.egfr.cross_validation import ValidationOptions, cross_validate, draw_folds
from radiogen.egfr.external import validate_by_site
from radiogen.egfr.statistics import auc


def split_by_prevalence(tables):
    """Sixty patients; one hospital holds most of the mutants, and a feature knows the hospital alone."""

    def change(features, clinical):
        for number, (row, person) in enumerate(zip(features, clinical, strict=True)):
            person["site"] = "north" if (number % 3 == 0 and number % 4) or number % 6 == 1 else "south"
            noise = np.random.default_rng(number).normal(size=12)
            row.update({name: f"{noise[i]:.6f}" for i, name in enumerate(list(row)[3:])})
            for place in range(7):
                row[f"deep_{place}"] = f"{3 * (person['site'] == 'north') + noise[place]:.6f}"

    return read_cohort(*tables(change, patients=60), QUICK)


def test_features_that_know_only_the_hospital_are_worth_nothing_within_it(tables):
    cohort = split_by_prevalence(tables)
    candidate = list_candidates(cohort, QUICK)["features"]
    folds = draw_folds(cohort.patients, cohort.labels, 3, 2, 0)
    said = cross_validate([candidate], cohort.labels, folds, ValidationOptions())["features"]
    judged = validate_by_site(candidate, said, cohort, QUICK)
    overall = auc(said.scores, cohort.labels)
    assert overall > 0.7
    for figure in ("auc_within", "auc_left_out"):
        assert np.mean([judged[site][figure]["value"] for site in ("north", "south")]) < overall - 0.1


def test_a_hospital_with_few_of_a_class_gets_no_figures_and_one_hospital_no_table(tables):
    cohort = read_cohort(*tables(), QUICK)
    candidate = list_candidates(cohort, QUICK)["volume"]
    folds = draw_folds(cohort.patients, cohort.labels, 3, 1, 0)
    said = cross_validate([candidate], cohort.labels, folds, ValidationOptions())["volume"]
    rare = replace(cohort, sites=("a",) * 28 + ("b",) * 2)
    assert validate_by_site(candidate, said, rare, QUICK)["b"] == {"patients": 2, "positives": 0}
    assert validate_by_site(candidate, said, replace(cohort, sites=("a",) * 30), QUICK) == {}
