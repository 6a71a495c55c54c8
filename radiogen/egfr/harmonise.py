"""ComBat by hospital as a step of a pipeline: learned from the training part, applied to the others."""

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

Floats = NDArray[np.float64]
FEWEST = 3  # patients of a hospital from which its shift and scale can be learned
SITE = "site_code"  # name of the column that holds the number of the hospital


class SiteHarmonizer(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Shift and scale each feature of a hospital to the common one, by empirical Bayes.

    The first column is the number of the hospital, the others are features; what is given back are the
    features. This is ComBat with parametric priors and without covariates (Johnson et al., Biostatistics
    8:118, 2007). A hospital that is not known, or of which fewer than three patients were seen, stays as it
    is. Missing values stay missing.
    """

    def fit(self, X: Any, y: Any = None) -> Self:  # noqa: ARG002 - scikit-learn hands it in
        X = validate_data(self, X, dtype=np.float64, ensure_all_finite="allow-nan", ensure_min_features=2)
        codes, table = X[:, 0], X[:, 1:]
        known = np.unique(codes[~np.isnan(codes)])
        chosen = [code for code in known if (codes == code).sum() >= FEWEST]
        self.sites_ = np.array(chosen)
        here = np.isin(codes, self.sites_)
        used = table[here] if here.any() else table
        self.mean_ = np.nan_to_num(_quiet(np.nanmean, used))
        centred = used.copy()
        for code in self.sites_:
            rows = codes[here] == code
            centred[rows] -= _quiet(np.nanmean, used[rows])
        spread = np.sqrt(_quiet(np.nanmean, centred**2))
        self.scale_ = np.where(np.isfinite(spread) & (spread > 0), spread, 1.0)
        standard = (table - self.mean_) / self.scale_
        pairs = [_shift_and_scale(standard[codes == code]) for code in self.sites_]
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
            standard = (table[rows] - self.mean_) / self.scale_
            table[rows] = (standard - shift) / scale * self.scale_ + self.mean_
        return table

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags


def _shift_and_scale(standard: Floats) -> tuple[Floats, Floats]:
    """The posterior shift and scale of one hospital, (features,) each; ComBat's fixed-point iteration."""
    count = (~np.isnan(standard)).sum(axis=0)
    shift = np.nan_to_num(_quiet(np.nanmean, standard))
    variance = np.nan_to_num(_quiet(np.nanvar, standard, ddof=1), nan=1.0)
    if len(shift) < 2:
        return shift, np.sqrt(np.where(variance > 0, variance, 1.0))
    prior, tau = shift.mean(), shift.var(ddof=1)
    level, spread = variance.mean(), max(float(variance.var(ddof=1)), 1e-12)
    shape, rate = (2 * spread + level**2) / spread, (level * spread + level**3) / spread
    new_shift, new_variance = shift, np.maximum(variance, 1e-12)
    for _ in range(1000):
        before = np.concatenate([new_shift, new_variance])
        new_shift = (count * tau * shift + new_variance * prior) / (count * tau + new_variance)
        squares = np.nan_to_num((standard - new_shift) ** 2).sum(axis=0)
        new_variance = np.maximum((0.5 * squares + rate) / (count / 2 + shape - 1), 1e-12)
        after = np.concatenate([new_shift, new_variance])
        if (np.abs(after - before) <= 1e-8 * np.maximum(np.abs(before), 1e-8)).all():
            break
    return new_shift, np.sqrt(new_variance)


def _quiet(measure: Any, table: Floats, **how: Any) -> Floats:
    """A statistic of each column that passes over missing values; NaN without a word where all are."""
    there = (~np.isnan(table)).sum(axis=0) > how.get("ddof", 0)
    found = np.full(table.shape[1], np.nan)
    if there.any():
        found[there] = measure(table[:, there], axis=0, **how)
    return found
