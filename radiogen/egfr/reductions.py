"""Ways to make many features few, each learned from the training part of a fold alone."""

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.cross_decomposition import PLSRegression
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted, validate_data

from radiogen.egfr.settings import ReductionName
from radiogen.errors import ConfigError

Floats = NDArray[np.float64]
PLS_COMPONENTS = 3


class UpToComponents(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """PCA or PLS with as many components as asked for, or as many as the training part can carry."""

    def __init__(self, kind: str = "pca", n_components: int = 10) -> None:
        self.kind = kind
        self.n_components = n_components

    def fit(self, X: Any, y: Any = None) -> Self:
        X = validate_data(self, X, dtype=np.float64, ensure_min_samples=2)
        count = max(1, min(self.n_components, X.shape[1], X.shape[0] - 1))
        if self.kind == "pls":
            self.reducer_ = PLSRegression(count, scale=False).fit(X, np.asarray(y, dtype=float))
        else:
            self.reducer_ = PCA(count, svd_solver="full").fit(X)
        self._n_features_out = count
        return self

    def transform(self, X: Any) -> Floats:
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        reduced: Floats = self.reducer_.transform(X)
        return reduced


def make_reduction(name: ReductionName, components: int) -> tuple[Any, dict[str, list[Any]]]:
    """A reduction and the grid of its own settings that an inner search tries.

    `lda` is a linear discriminant with shrinkage: the features are first turned, without loss, into as
    many principal components as there are patients. `paper` is the plain discriminant of the published
    work. Both give one number.

    Raises:
        ConfigError: There is no such reduction.
    """
    if name == "none":
        return "passthrough", {}
    if name == "paper":
        return LinearDiscriminantAnalysis(), {}
    if name == "lda":
        shrunk = LinearDiscriminantAnalysis(solver="eigen", shrinkage=0.5)
        return Pipeline([("turn", PCA(svd_solver="full")), ("lda", shrunk)]), {
            "lda__shrinkage": [0.5, 0.1, 0.9]
        }
    if name == "pls":
        return UpToComponents("pls", min(components, PLS_COMPONENTS)), {}
    if name == "pca":
        return UpToComponents("pca", components), {}
    raise ConfigError(f"reduction {name}", "is not known", "take lda, paper, pca, pls or none")
