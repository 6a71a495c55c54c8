"""Out-of-fold probabilities and the permutation test."""

from dataclasses import replace

import numpy as np
import pytest
from egfr.made_tables import QUICK

from radiogen.egfr import cross_validation
from radiogen.egfr.candidates import OUTSIDE, SHUFFLED, list_candidates
from radiogen.egfr.cohort import read_cohort
from radiogen.egfr.cross_validation import ValidationOptions, cross_validate, draw_folds, permutation_test
from radiogen.egfr.settings import EgfrSettings
from radiogen.egfr.statistics import auc
from radiogen.errors import TableError


class Killed(BaseException):
    """What no handler of errors catches."""


@pytest.fixture
def cohort(tables):
    return read_cohort(*tables(), QUICK)


def draw(cohort, repeats=1):
    return draw_folds(cohort.patients, cohort.labels, 3, repeats, seed=0)


def test_all_that_must_be_beaten_stands_beside_the_model(cohort):
    assert list(list_candidates(cohort, QUICK)) == [
        *("majority", "site", "clinical", "volume", "radiomics", "deep", "clinical+deep"),
        *("features", "clinical+features", SHUFFLED),
    ]


def test_inputs_that_are_not_there_are_refused(tables):
    features, _ = tables(
        lambda features, _: [row.update(egfr=("mutant", "wildtype")[i % 2]) for i, row in enumerate(features)]
    )
    settings = EgfrSettings(inputs="clinical+features")
    with pytest.raises(TableError, match="clinical"):
        list_candidates(read_cohort(features, None, settings), settings)


def test_a_patients_own_label_and_features_do_not_reach_its_probability(cohort):
    """Change one patient's label and features: what its own fold's model says of the others stays."""
    folds = draw(cohort)
    candidate = list_candidates(cohort, QUICK)["features"]
    before = cross_validate([candidate], cohort.labels, folds, ValidationOptions())["features"]
    test = folds[0][0]
    labels, inputs = cohort.labels.copy(), candidate.inputs.copy()
    labels[test] = 1 - labels[test]
    inputs[test[0]] = 1e6
    after = cross_validate([replace(candidate, inputs=inputs)], labels, folds, ValidationOptions())[
        "features"
    ]
    assert (before.probabilities[0, test[1:]] == after.probabilities[0, test[1:]]).all()
    assert (before.probabilities[0] != after.probabilities[0]).any()


def test_the_number_of_processes_changes_nothing(cohort):
    candidate = list_candidates(cohort, QUICK)["clinical+features"]
    alone = cross_validate(
        [candidate], cohort.labels, draw(cohort, 2), ValidationOptions(models_of=candidate.name)
    )[candidate.name]
    together = cross_validate([candidate], cohort.labels, draw(cohort, 2), ValidationOptions(jobs=2))[
        candidate.name
    ]
    assert together.models == ()
    assert (alone.probabilities == together.probabilities).all()
    assert (alone.predicted_positive == together.predicted_positive).all()
    assert len(alone.models) == 3


def test_the_majority_knows_nothing_and_a_shuffled_lesion_little(cohort):
    candidates = list_candidates(cohort, QUICK)
    chosen = [candidates[name] for name in ("majority", "features", SHUFFLED)]
    said = cross_validate(chosen, cohort.labels, draw(cohort, 3), ValidationOptions())
    areas = {name: auc(each.scores, cohort.labels) for name, each in said.items()}
    assert areas["majority"] == 0.5
    assert areas["features"] > 0.8 > areas[SHUFFLED]


def test_progress_is_told(cohort):
    told = []
    cross_validate(
        [list_candidates(cohort, QUICK)["volume"]],
        cohort.labels,
        draw(cohort),
        ValidationOptions(),
        lambda *t: told.append(t),
    )
    assert told == [
        ("cross-validate volume", 1, 3),
        ("cross-validate volume", 2, 3),
        ("cross-validate volume", 3, 3),
    ]


def test_permutation_finds_a_signal_and_none_in_noise(cohort):
    candidate = list_candidates(cohort, QUICK)["features"]
    found = permutation_test(candidate, cohort.labels, 3, 39, ValidationOptions())
    assert found.p == 1 / 40 and found.auc > 0.8 and abs(found.permuted_mean_auc - 0.5) < 0.1
    noise = np.random.default_rng(5).normal(size=candidate.inputs.shape)
    ps = [
        permutation_test(replace(candidate, inputs=noise), cohort.labels, 3, 9, ValidationOptions(seed)).p
        for seed in range(5)
    ]
    assert np.mean(ps) > 0.15


def with_outside(features, clinical):
    """Lung outside the lesion that knows the hospital only."""
    for number, row in enumerate(features):
        row.update({f"outside_deep_{n}": f"{np.sin(97 * number + n):.6f}" for n in range(6)})


def test_lung_outside_is_a_control_and_never_an_input(tables):
    from egfr.made_tables import ABOUT

    columns = [*ABOUT["columns"], *(f"outside_deep_{n}" for n in range(6))]
    cohort = read_cohort(*tables(with_outside, about={**ABOUT, "columns": columns}), QUICK)
    candidates = list_candidates(cohort, QUICK)
    assert candidates[OUTSIDE].feature_columns == tuple(columns[-6:])
    for name, candidate in candidates.items():
        assert name == OUTSIDE or not any("outside" in column for column in candidate.feature_columns)
    said = cross_validate(
        [candidates[OUTSIDE], candidates["features"]], cohort.labels, draw(cohort, 3), ValidationOptions()
    )
    assert auc(said[OUTSIDE].scores, cohort.labels) < 0.75 < auc(said["features"].scores, cohort.labels)


def test_the_shuffled_control_is_drawn_anew_in_each_of_at_least_five_repeats(cohort):
    control = list_candidates(cohort, QUICK)[SHUFFLED]
    drawn = [control.inputs_of(repeat, seed=0) for repeat in range(5)]
    assert len({each.tobytes() for each in drawn}) == 5
    assert all(sorted(each[:, 0]) == sorted(control.inputs[:, 0]) for each in drawn)
    said = cross_validate([control], cohort.labels, draw(cohort), ValidationOptions())[SHUFFLED]
    assert said.scores.shape == (5, len(cohort.labels))


def test_a_killed_validation_goes_on_with_the_same_numbers(cohort, tmp_path, monkeypatch):
    candidate = list_candidates(cohort, QUICK)["features"]
    whole = cross_validate([candidate], cohort.labels, draw(cohort, 2), ValidationOptions())["features"]
    kept = ValidationOptions(cache=tmp_path / "folds")
    fits = []
    fit = cross_validation._fit_and_predict

    def counted(*given):
        if len(fits) == 4:
            raise Killed
        fits.append(1)
        return fit(*given)

    monkeypatch.setattr(cross_validation, "_fit_and_predict", counted)
    with pytest.raises(Killed):
        cross_validate([candidate], cohort.labels, draw(cohort, 2), kept)
    monkeypatch.setattr(cross_validation, "_fit_and_predict", lambda *given: (fits.append(1), fit(*given))[1])
    said = cross_validate([candidate], cohort.labels, draw(cohort, 2), kept)["features"]
    assert len(fits) == 6 and (said.probabilities == whole.probabilities).all()
    cross_validate([replace(candidate, inputs=candidate.inputs + 1)], cohort.labels, draw(cohort, 2), kept)
    assert len(fits) == 12


def test_a_damaged_fold_is_fitted_again(cohort, tmp_path):
    candidate = list_candidates(cohort, QUICK)["volume"]
    kept = ValidationOptions(cache=tmp_path)
    first = cross_validate([candidate], cohort.labels, draw(cohort), kept)["volume"]
    for path in tmp_path.glob("*.npz"):
        path.write_bytes(path.read_bytes()[:50])
    again = cross_validate([candidate], cohort.labels, draw(cohort), kept)["volume"]
    assert (first.probabilities == again.probabilities).all()
