"""Prepare the columns of a table for a classifier: ComBat by hospital, stable features, imputing, scaling.

Each step is a scikit-learn transformer, so that every fold learns it from its training patients alone.
"""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.feature_selection import SelectorMixin
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.validation import check_is_fitted, validate_data

from radiogen.features.perturb import icc

Floats = NDArray[np.float64]
SITE = "site_code"  # column with the number of the hospital
MIN_SITE_PATIENTS = 3  # below it the shift and scale of a hospital cannot be learned


class AllowNan(BaseEstimator):  # type: ignore[misc]
    """Base of the estimators that accept missing values."""

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags


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


def make_cleaning(keep_constant: bool = False) -> Pipeline:
    """Return a pipeline that fills gaps with the median, drops constant columns and standardises the rest.

    Args:
        keep_constant: Keep constant columns, as zeros, where the number of columns must not change.
    """
    steps = [("impute", SimpleImputer(strategy="median", keep_empty_features=True))]
    if not keep_constant:
        steps.append(("vary", VaryingColumns()))
    return Pipeline([*steps, ("scale", StandardScaler())])


class KeptColumns(SelectorMixin, AllowNan):  # type: ignore[misc]
    """Keeps the columns with the given numbers; None keeps all."""

    def __init__(self, kept: Sequence[int] | None = None) -> None:
        self.kept = kept

    def fit(self, X: Any, y: Any = None) -> Self:  # noqa: ARG002 - scikit-learn hands it in
        X = validate_data(self, X, dtype=np.float64, ensure_all_finite="allow-nan")
        self.mask_ = np.full(X.shape[1], self.kept is None)
        self.mask_[list(self.kept or ())] = True
        return self

    def _get_support_mask(self) -> NDArray[np.bool_]:
        check_is_fitted(self)
        mask: NDArray[np.bool_] = self.mask_
        return mask


def choose_stable(perturbed: Floats, min_icc: float) -> list[int]:
    """Return the features whose ICC over perturbed masks reaches `min_icc`, or the best one if none does.

    The choice looks at no label, so the inner folds may share it without flattering the tuning.

    Args:
        perturbed: (patients, repeats, features).
        min_icc: Smallest ICC that is kept; a feature without an ICC is dropped.
    """
    coefficients = np.nan_to_num(icc(perturbed), nan=-1.0)
    kept = np.flatnonzero(coefficients >= min_icc)
    return [int(column) for column in (kept if len(kept) else [coefficients.argmax()])]


class PerInstance(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Applies one transformer, learned from all instances of all patients, to each instance of a row.

    So the place of a lesion in the row means nothing. An instance that is not there is missing, never zero.

    Args:
        transformer: What is applied; a target is repeated for each instance of a sample.
        instances: Number of instances in a row; an instance whose numbers are all missing stays missing.
    """

    def __init__(self, transformer: Any = None, instances: int = 1) -> None:
        self.transformer = transformer
        self.instances = instances

    def fit(self, X: Any, y: Any = None) -> Self:
        X = validate_data(self, X, dtype=np.float64, ensure_all_finite="allow-nan")
        rows, is_there = self._split(X)
        labels = None if y is None else np.repeat(np.asarray(y), self.instances)[is_there]
        self.transformer_ = clone(self.transformer).fit(rows[is_there], labels)
        return self

    def transform(self, X: Any) -> Floats:
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, ensure_all_finite="allow-nan", reset=False)
        rows, is_there = self._split(X)
        if not is_there.any():
            is_there[0] = True  # one row must be transformed to know the width of the result
        transformed = np.asarray(self.transformer_.transform(rows[is_there]), dtype=np.float64)
        result = np.full((len(rows), transformed.shape[1]), np.nan)
        result[is_there] = transformed
        wide: Floats = result.reshape(len(X), -1)
        return wide

    def _split(self, X: Floats) -> tuple[Floats, NDArray[np.bool_]]:
        if X.shape[1] % self.instances:
            raise ValueError(f"{X.shape[1]} columns cannot be split into {self.instances} instances")
        rows = X.reshape(len(X) * self.instances, -1)
        return rows, np.asarray(~np.isnan(rows).all(axis=1))


class SiteHarmonizer(TransformerMixin, AllowNan):  # type: ignore[misc]
    """ComBat: shifts and scales each feature of a hospital to the common level, by empirical Bayes.

    The first column is the number of the hospital, the others are features; the result is the features.
    Parametric priors, no covariates (Johnson et al., Biostatistics 8:118, 2007). A hospital that is unknown,
    or that gave fewer than three training patients, stays as it is. Missing values stay missing.
    """

    def fit(self, X: Any, y: Any = None) -> Self:  # noqa: ARG002 - scikit-learn hands it in
        X = validate_data(self, X, dtype=np.float64, ensure_all_finite="allow-nan", ensure_min_features=2)
        codes, table = X[:, 0], X[:, 1:]
        known = np.unique(codes[~np.isnan(codes)])
        self.sites_ = np.array([code for code in known if (codes == code).sum() >= MIN_SITE_PATIENTS])
        is_used = np.isin(codes, self.sites_)
        used = table[is_used] if is_used.any() else table
        self.mean_ = np.nan_to_num(_column_statistic(np.nanmean, used))
        centered = used.copy()
        for code in self.sites_:
            rows = codes[is_used] == code
            centered[rows] -= _column_statistic(np.nanmean, used[rows])
        spread = np.sqrt(_column_statistic(np.nanmean, centered**2))
        self.scale_ = np.where(np.isfinite(spread) & (spread > 0), spread, 1.0)
        standardized = (table - self.mean_) / self.scale_
        pairs = [_shift_and_scale(standardized[codes == code]) for code in self.sites_]
        count = table.shape[1]
        self.shifts_ = np.array([shift for shift, _ in pairs]).reshape(-1, count)
        self.scales_ = np.array([scale for _, scale in pairs]).reshape(-1, count)
        return self

    def transform(self, X: Any) -> Floats:
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, ensure_all_finite="allow-nan", reset=False)
        codes = X[:, 0]
        table: Floats = X[:, 1:].copy()
        for code, shift, scale in zip(self.sites_, self.shifts_, self.scales_, strict=True):
            rows = codes == code
            standardized = (table[rows] - self.mean_) / self.scale_
            table[rows] = (standardized - shift) / scale * self.scale_ + self.mean_
        return table


def _shift_and_scale(standardized: Floats) -> tuple[Floats, Floats]:
    """Return the posterior shift and scale of one hospital, (features,) each, by ComBat's iteration.

    Features share a normal prior of their shifts and an inverse gamma prior of their variances, both with
    moments taken from the features themselves (the parametric priors of Johnson et al. 2007).
    """
    count = (~np.isnan(standardized)).sum(axis=0)
    shift = np.nan_to_num(_column_statistic(np.nanmean, standardized))
    variance = np.nan_to_num(_column_statistic(np.nanvar, standardized, ddof=1), nan=1.0)
    if len(shift) < 2:  # one feature has no prior
        return shift, np.sqrt(np.where(variance > 0, variance, 1.0))
    prior, tau = shift.mean(), shift.var(ddof=1)
    level, spread = variance.mean(), max(float(variance.var(ddof=1)), 1e-12)
    shape, rate = (2 * spread + level**2) / spread, (level * spread + level**3) / spread
    new_shift, new_variance = shift, np.maximum(variance, 1e-12)
    for _ in range(1000):
        before = np.concatenate([new_shift, new_variance])
        new_shift = (count * tau * shift + new_variance * prior) / (count * tau + new_variance)
        squares = np.nan_to_num((standardized - new_shift) ** 2).sum(axis=0)
        new_variance = np.maximum((0.5 * squares + rate) / (count / 2 + shape - 1), 1e-12)
        after = np.concatenate([new_shift, new_variance])
        if (np.abs(after - before) <= 1e-8 * np.maximum(np.abs(before), 1e-8)).all():
            break
    return new_shift, np.sqrt(new_variance)


def _column_statistic(statistic: Any, table: Floats, ddof: int = 0) -> Floats:
    """Return a NaN-aware statistic of each column; NaN, and no warning, for a column without values."""
    has_values = (~np.isnan(table)).sum(axis=0) > ddof
    result = np.full(table.shape[1], np.nan)
    if has_values.any():
        options = {"ddof": ddof} if ddof else {}
        result[has_values] = statistic(table[:, has_values], axis=0, **options)
    return result
