"""The self-tuning classifier: an estimator of scikit-learn that learns all on inner folds."""

import numpy as np
import pytest
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.svm import SVC
from sklearn.utils.estimator_checks import parametrize_with_checks

from radiogen.egfr.classifiers import TunedClassifier, raw_scores
from radiogen.egfr.statistics import auc, calibration

THRESHOLD = {"check_classifiers_train": "predict uses the learned threshold, not one half"}


@parametrize_with_checks(
    [TunedClassifier(make_pipeline(SimpleImputer(), LogisticRegression()))],
    expected_failed_checks=lambda _: THRESHOLD,
)
def test_it_passes_the_checks_of_scikit_learn(estimator, check):
    check(estimator)


def make_data(patients: int = 200, seed: int = 0, gain: float = 1.0):
    rng = np.random.default_rng(seed)
    labels = (rng.random(patients) < 0.3).astype(int)
    return rng.normal(size=(patients, 3)) + gain * labels[:, None], labels


def test_it_takes_the_setting_that_does_best_on_inner_folds():
    inputs, labels = make_data()
    model = TunedClassifier(SVC(), {"C": [1e-6, 1.0], "gamma": [1e3, 0.1]}).fit(inputs, labels)
    assert model.best_params_["gamma"] == 0.1


def test_equal_settings_go_to_the_first():
    inputs, labels = make_data()
    assert TunedClassifier(SVC(), {"cache_size": [300, 200]}).fit(inputs, labels).best_params_ == {
        "cache_size": 300
    }


def test_probabilities_of_new_patients_are_calibrated():
    model = TunedClassifier(SVC()).fit(*make_data(800))
    inputs, labels = make_data(4000, seed=1)
    slope, intercept = calibration(model.predict_proba(inputs)[:, 1], labels)
    assert 0.7 < slope < 1.4 and abs(intercept) < 0.4


@pytest.mark.parametrize("seed", range(5))
def test_calibration_never_turns_the_order_of_patients(seed):
    inputs, labels = make_data(30, seed=seed, gain=0.0)
    model = TunedClassifier(LogisticRegression()).fit(inputs, labels)
    raw = raw_scores(model.estimator_, inputs)
    assert auc(model.predict_proba(inputs)[:, 1], labels) == auc(raw, labels)


def test_predict_calls_from_the_learned_threshold_on():
    inputs, labels = make_data()
    model = TunedClassifier(LogisticRegression()).fit(inputs, labels)
    assert 0.1 < model.threshold_ < 0.5
    assert (model.predict(inputs) == (model.predict_proba(inputs)[:, 1] >= model.threshold_)).all()
