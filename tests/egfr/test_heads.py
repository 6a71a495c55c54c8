"""The torch heads behave as scikit-learn's estimators do, and leave global chance alone."""

import numpy as np
import pytest
import torch
from sklearn.utils.estimator_checks import parametrize_with_checks

from radiogen.egfr.heads import GatedAttentionHead, MlpHead
from radiogen.errors import DeviceError

KINDS = [MlpHead, GatedAttentionHead]


@parametrize_with_checks([MlpHead(random_state=0, epochs=50), GatedAttentionHead(random_state=0, epochs=50)])
def test_they_pass_the_checks_of_scikit_learn(estimator, check):
    check(estimator)


def make_data(patients: int = 80):
    rng = np.random.default_rng(0)
    labels = np.arange(patients) % 2
    return rng.normal(size=(patients, 5)) + 2 * labels[:, None], labels


def make_bags(patients: int = 120, instances: int = 4, width: int = 3):
    """Bags of 1 to 4 instances; of a positive one exactly one instance differs, at a random place."""
    rng = np.random.default_rng(1)
    labels = np.arange(patients) % 2
    bags = rng.normal(size=(patients, instances, width))
    present = rng.integers(1, instances + 1, patients)
    for row in range(patients):
        if labels[row]:
            bags[row, rng.integers(present[row])] += 4
        bags[row, present[row] :] = np.nan
    return bags.reshape(patients, -1), labels


@pytest.mark.parametrize("kind", KINDS)
def test_it_learns_and_stops_early(kind):
    inputs, labels = make_data()
    head = kind(random_state=1).fit(inputs, labels)
    assert (head.predict(inputs) == labels).mean() > 0.95
    noise = kind(random_state=1).fit(inputs, np.random.default_rng(1).permutation(labels))
    assert noise.n_iter_ < 200


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_gives_the_same_and_global_chance_is_untouched(kind):
    inputs, labels = make_data()
    torch.manual_seed(7)
    before = torch.get_rng_state()
    first = kind(random_state=3).fit(inputs, labels).predict_proba(inputs)
    assert (torch.get_rng_state() == before).all()
    torch.manual_seed(8)
    second = kind(random_state=3).fit(inputs, labels).predict_proba(inputs)
    assert (first == second).all()
    assert (first != kind(random_state=4).fit(inputs, labels).predict_proba(inputs)).any()


@pytest.mark.parametrize("kind", KINDS)
def test_a_device_that_is_not_there_is_an_error(kind):
    with pytest.raises(DeviceError):
        kind(device="cuda:99").fit(*make_data())


def test_attention_finds_the_one_instance_that_matters():
    bags, labels = make_bags()
    head = GatedAttentionHead(instances=4, random_state=0).fit(bags[:80], labels[:80])
    assert (head.predict(bags[80:]) == labels[80:]).mean() > 0.85


def test_the_order_of_the_instances_and_empty_places_change_nothing():
    bags, labels = make_bags()
    head = GatedAttentionHead(instances=4, random_state=0, epochs=20).fit(bags, labels)
    turned = bags.reshape(len(bags), 4, -1)[:, [2, 0, 3, 1]].reshape(len(bags), -1)
    assert head.predict_proba(turned) == pytest.approx(head.predict_proba(bags), abs=1e-12)
    nothing = np.full((1, bags.shape[1]), np.nan)
    assert np.isfinite(head.predict_proba(nothing)).all()


def test_shares_are_those_of_the_paper():
    """One bag of two instances, worked out by hand: identity layers, one attention unit."""
    weights = {
        "hidden.weight": torch.eye(1),
        "hidden.bias": torch.zeros(1),
        "tanh.weight": torch.eye(1),
        "gate.weight": torch.eye(1),
        "share.weight": torch.eye(1),
    }
    head = GatedAttentionHead(instances=2, hidden=1, attention=1)
    _, shares = head._attend(weights, torch.tensor([[1.0, 2.0]]))
    pull = [np.tanh(h) / (1 + np.exp(-h)) for h in (1.0, 2.0)]
    assert shares.flatten().numpy() == pytest.approx(np.exp(pull) / np.exp(pull).sum(), abs=1e-6)


def test_numbers_of_the_patient_stand_before_the_bag():
    bags, labels = make_bags()
    inputs = np.hstack([labels[:, None] * 4.0 - 2, bags * 0])
    head = GatedAttentionHead(instances=4, context=1, random_state=0).fit(inputs, labels)
    assert (head.predict(inputs) == labels).all()
    with pytest.raises(ValueError, match="are not 1 of the patient and 4 instances"):
        GatedAttentionHead(instances=4, context=1).fit(bags, labels)
