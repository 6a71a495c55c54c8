"""What is done to every column before anything else: gaps filled, constants out, one scale for all."""

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.feature_selection import SelectorMixin
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.validation import check_is_fitted, validate_data


class VaryingColumns(SelectorMixin, BaseEstimator):  # type: ignore[misc]
    """Keeps the columns that vary, or the first where none does, so that a poor fold can still be fitted."""

    def fit(self, X: Any, y: Any = None) -> Self:  # noqa: ARG002 - scikit-learn hands it in
        X = validate_data(self, X, dtype=np.float64)
        self.varies_ = np.ptp(X, axis=0) > 0
        self.varies_[0] |= not self.varies_.any()
        return self

    def _get_support_mask(self) -> NDArray[np.bool_]:
        check_is_fitted(self)
        mask: NDArray[np.bool_] = self.varies_
        return mask


def make_cleaning(constant: bool = False) -> Pipeline:
    """Median for what is missing, constant columns out, the rest to mean 0 and standard deviation 1.

    Args:
        constant: Keep constant columns, as zeros, where the number of columns must not change.
    """
    steps = [("impute", SimpleImputer(strategy="median", keep_empty_features=True))]
    if not constant:
        steps.append(("vary", VaryingColumns()))
    return Pipeline([*steps, ("scale", StandardScaler())])
