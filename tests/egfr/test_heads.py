"""The torch head behaves as scikit-learn's estimators do, and leaves global chance alone."""

import numpy as np
import pytest
import torch
from sklearn.utils.estimator_checks import parametrize_with_checks

from radiogen.egfr.heads import MlpHead
from radiogen.errors import DeviceError


@parametrize_with_checks([MlpHead(random_state=0, epochs=50)])
def test_it_passes_the_checks_of_scikit_learn(estimator, check):
    check(estimator)


def make_data(patients: int = 80):
    rng = np.random.default_rng(0)
    labels = np.arange(patients) % 2
    return rng.normal(size=(patients, 5)) + 2 * labels[:, None], labels


def test_it_learns_and_stops_early():
    inputs, labels = make_data()
    head = MlpHead(random_state=1).fit(inputs, labels)
    assert (head.predict(inputs) == labels).mean() > 0.95
    noise = MlpHead(random_state=1).fit(inputs, np.random.default_rng(1).permutation(labels))
    assert noise.n_iter_ < 200


def test_the_same_seed_gives_the_same_and_global_chance_is_untouched():
    inputs, labels = make_data()
    torch.manual_seed(7)
    before = torch.get_rng_state()
    first = MlpHead(random_state=3).fit(inputs, labels).predict_proba(inputs)
    assert (torch.get_rng_state() == before).all()
    torch.manual_seed(8)
    second = MlpHead(random_state=3).fit(inputs, labels).predict_proba(inputs)
    assert (first == second).all()
    assert (first != MlpHead(random_state=4).fit(inputs, labels).predict_proba(inputs)).any()


def test_a_device_that_is_not_there_is_an_error():
    with pytest.raises(DeviceError):
        MlpHead(device="cuda:99").fit(*make_data())
