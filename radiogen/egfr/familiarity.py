"""Does a patient look like those the model learned from? A distance with a stated rule."""

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.model_selection import KFold
from sklearn.utils.validation import check_is_fitted, validate_data

from radiogen.egfr.cleaning import make_cleaning

Floats = NDArray[np.float64]


class Familiarity(OutlierMixin, BaseEstimator):  # type: ignore[misc]
    """Distance from the patients learned from, in units of the largest that is still familiar.

    The inputs are standardised (z); the distance is the mean over them of log(1 + |z|), which a few wild
    columns cannot rule, divided by its `quantile` among patients who were held out of five folds. Above 1 a
    patient is strange. Only a mean and a spread of each input are kept, nothing of a single patient.
    """

    def __init__(self, quantile: float = 0.975) -> None:
        self.quantile = quantile

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags

    def fit(self, X: Any, y: Any = None) -> Self:  # noqa: ARG002 - scikit-learn hands it in
        X = validate_data(self, X, dtype=np.float64, ensure_all_finite="allow-nan", ensure_min_samples=2)
        held_out = np.empty(len(X))
        for train, test in KFold(min(5, len(X)), shuffle=True, random_state=0).split(X):
            held_out[test] = _oddness(make_cleaning().fit(X[train]), X[test])
        self.limit_ = max(float(np.quantile(held_out, self.quantile)), 1e-12)
        self.offset_ = -1.0
        self.cleaning_ = make_cleaning().fit(X)
        return self

    def distance(self, X: Any) -> Floats:
        """Distance of each patient (rows of features); up to 1 is familiar."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, ensure_all_finite="allow-nan", reset=False)
        return _oddness(self.cleaning_, X) / self.limit_

    def score_samples(self, X: Any) -> Floats:
        """Minus the distance, as scikit-learn's outlier detectors have it."""
        return -self.distance(X)

    def decision_function(self, X: Any) -> Floats:
        return self.score_samples(X) - self.offset_

    def predict(self, X: Any) -> NDArray[np.int64]:
        return np.where(self.decision_function(X) >= 0, 1, -1)


def _oddness(cleaning: Any, X: Floats) -> Floats:
    oddness: Floats = np.log1p(np.abs(cleaning.transform(X))).mean(1)
    return oddness
