"""Every classifier with every reduction: fits, predicts, and learns nothing outside its training part."""

import numpy as np
import pytest

from radiogen.egfr.classifiers import CLASSIFIERS, make_baseline, make_classifier
from radiogen.egfr.settings import EgfrSettings


def make_data(patients: int = 48):
    rng = np.random.default_rng(0)
    labels = np.arange(patients) % 3 // 2
    inputs = rng.normal(size=(patients, 12)) + 2 * labels[:, None]
    inputs[3, 5] = inputs[7, 0] = np.nan
    return inputs, labels


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_each_classifier_finds_a_plain_signal(name):
    inputs, labels = make_data()
    model = make_classifier(EgfrSettings(classifier=name), clinical=2, features=10, seed=0).fit(
        inputs[:36], labels[:36]
    )
    said = model.predict_proba(inputs[36:])
    assert np.allclose(said.sum(1), 1)
    assert said[labels[36:] == 1, 1].mean() > said[labels[36:] == 0, 1].mean() + 0.3


@pytest.mark.parametrize("reduction", ["lda", "paper", "pca", "pls", "none"])
def test_each_reduction_goes_with_a_classifier(reduction):
    inputs, labels = make_data()
    settings = EgfrSettings(classifier="svc", reduction=reduction)
    model = make_classifier(settings, clinical=0, features=12, seed=0).fit(inputs, labels)
    assert (model.predict(inputs) == labels).mean() > 0.9


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_constant_feature_changes_nothing(name):
    inputs, labels = make_data()
    settings = EgfrSettings(classifier=name)
    plain = make_classifier(settings, 2, 10, seed=0).fit(inputs, labels).predict_proba(inputs)
    wider = np.column_stack([inputs, np.full(len(inputs), 1234.5)])
    again = make_classifier(settings, 2, 11, seed=0).fit(wider, labels).predict_proba(wider)
    assert np.array_equal(plain, again)


def test_a_column_missing_in_the_whole_training_part_is_survived():
    inputs, labels = make_data()
    inputs[:36, 4] = np.nan
    model = make_baseline(12, inner_folds=2, seed=0).fit(inputs[:36], labels[:36])
    assert np.isfinite(model.predict_proba(inputs[36:])).all()


def test_clinical_columns_pass_around_the_reduction():
    model = make_classifier(EgfrSettings(components=1), clinical=2, features=10, seed=0).fit(*make_data())
    assert model.estimator_.named_steps["classifier"].coef_.shape == (1, 3)
