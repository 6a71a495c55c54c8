"""Does a patient look like those the model learned from? A distance with a stated rule."""

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, OutlierMixin, clone
from sklearn.decomposition import PCA
from sklearn.model_selection import KFold
from sklearn.utils.validation import check_is_fitted, validate_data

from radiogen.egfr.classifiers import make_cleaning

Floats = NDArray[np.float64]


class Familiarity(OutlierMixin, BaseEstimator):  # type: ignore[misc]
    """Distance from the patients learned from, in units of the largest that is still familiar.

    The features are standardised and turned into principal components. Two distances count: Hotelling's T2
    within the components and the squared rest outside them (Jackson and Mudholkar 1979). The limit of each is
    the `quantile` of what patients had who were held out of five folds; the distance is the larger of
    sqrt(T2 / limit) and sqrt(rest / limit), and above 1 a patient is strange. Only sums over patients are
    kept.
    """

    def __init__(self, n_components: int = 10, quantile: float = 0.975) -> None:
        self.n_components = n_components
        self.quantile = quantile

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags

    def fit(self, X: Any, y: Any = None) -> Self:  # noqa: ARG002 - scikit-learn hands it in
        X = validate_data(self, X, dtype=np.float64, ensure_all_finite="allow-nan", ensure_min_samples=2)
        held_out = np.empty((len(X), 2))
        for train, test in KFold(min(5, len(X)), shuffle=True, random_state=0).split(X):
            held_out[test] = clone(self)._learn(X[train])._parts(X[test])
        limits: Floats = np.quantile(held_out, self.quantile, axis=0)
        self.limits_ = np.maximum(limits, 1e-12)
        self.offset_ = -1.0
        return self._learn(X)

    def _learn(self, X: Floats) -> Self:
        self.cleaning_ = make_cleaning().fit(X)
        cleaned = self.cleaning_.transform(X)
        count = max(1, min(self.n_components, cleaned.shape[1], len(X) // 3))
        self.pca_ = PCA(count, svd_solver="full").fit(cleaned)
        return self

    def _parts(self, X: Floats) -> Floats:
        cleaned = self.cleaning_.transform(X)
        turned = self.pca_.transform(cleaned)
        within = (turned**2 / np.maximum(self.pca_.explained_variance_, 1e-12)).sum(1)
        outside = ((cleaned - self.pca_.inverse_transform(turned)) ** 2).sum(1)
        return np.column_stack([within, outside])

    def distance(self, X: Any) -> Floats:
        """Distance of each patient (rows of features); up to 1 is familiar."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, ensure_all_finite="allow-nan", reset=False)
        largest: Floats = np.sqrt(self._parts(X) / self.limits_).max(1)
        return largest

    def score_samples(self, X: Any) -> Floats:
        """Minus the distance, as scikit-learn's outlier detectors have it."""
        return -self.distance(X)

    def decision_function(self, X: Any) -> Floats:
        return self.score_samples(X) - self.offset_

    def predict(self, X: Any) -> NDArray[np.int64]:
        return np.where(self.decision_function(X) >= 0, 1, -1)
