"""How probable a candidate is a lesion: the formula, the fit, and what is refused."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from radiogen.errors import CaseError
from radiogen.model.folder import CandidateModel
from radiogen.segmentation.automatic import FEATURES
from radiogen.segmentation.calibration import KnownCandidate, fit


def known(count, seed, signal=2.0):
    rng = np.random.default_rng(seed)
    candidates = []
    for number in range(count):
        features = dict(zip(FEATURES, rng.normal(size=len(FEATURES)), strict=True))
        odds = signal * features["second_pass"] - signal * features["log_ml"]
        is_lesion = bool(rng.random() < 1 / (1 + np.exp(-odds)))
        candidates.append(KnownCandidate(f"patient {number % 7}", features, is_lesion))
    return candidates


def test_the_probability_is_that_of_the_logistic_regression():
    model = CandidateModel(
        features=("log_ml", "height"),
        means=(1.0, 0.5),
        scales=(2.0, 0.25),
        weights=(0.6, -0.8),
        intercept=0.3,
    )
    odds = 0.3 + 0.6 * (3.0 - 1.0) / 2.0 - 0.8 * (0.75 - 0.5) / 0.25
    probability = model.probability({"log_ml": 3.0, "height": 0.75, "another": 9.0})
    assert probability == pytest.approx(1 / (1 + np.exp(-odds)))


def test_the_fit_finds_what_tells_lesions_apart_and_is_calibrated():
    model = fit(known(600, 1), 20)
    weights = dict(zip(model.features, model.weights, strict=True))
    assert weights["second_pass"] > 1 and weights["log_ml"] < -1
    assert all(abs(weights[name]) < 0.5 for name in FEATURES if name not in ("second_pass", "log_ml"))
    others = known(2000, 2)
    p = np.array([model.probability(each.features) for each in others])
    y = np.array([each.is_lesion for each in others])
    for low in (0.0, 0.2, 0.4, 0.6, 0.8):
        own = (p >= low) & (p < low + 0.2)
        assert y[own].mean() == pytest.approx(p[own].mean(), abs=0.1)
    assert "600 candidates of 20 scans" in model.measured and "AUC 0.9" in model.measured


def test_the_fit_is_that_of_scikit_learn():
    candidates = known(200, 3)
    model = fit(candidates, 5)
    x = np.array([[each.features[name] for name in FEATURES] for each in candidates])
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    y = np.array([each.is_lesion for each in candidates])
    plain = LogisticRegression().fit(x, y)
    assert np.allclose(model.weights, plain.coef_[0], atol=1e-4)


def test_too_few_of_either_are_refused():
    lesions = [each for each in known(200, 4) if each.is_lesion]
    with pytest.raises(CaseError, match="0 false candidates"):
        fit(lesions, 3)
