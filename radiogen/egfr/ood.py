"""Detect patients out of distribution: how far one lies from the patients a model learned from."""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import OutlierMixin
from sklearn.model_selection import KFold
from sklearn.utils.validation import check_is_fitted, validate_data

from radiogen.egfr.preprocessing import AllowNan, make_cleaning
from radiogen.egfr.reductions import find_components

Floats = NDArray[np.float64]
FAR = 3.0  # standard deviations beyond which the logarithm counts
SHRINKAGE = 0.2  # share of the covariance that is replaced by a multiple of the identity


class OodDetector(OutlierMixin, AllowNan):  # type: ignore[misc]
    """Distance of a patient from the patients learned from; up to 1 is in distribution.

    The inputs are standardised, and what lies beyond 3 standard deviations counts by its logarithm, so that a
    few extreme columns cannot dominate. In each block of columns (shape, intensity, deep, ...) it is the
    Mahalanobis distance with a shrunk covariance, in units of the median of patients who were held out. The
    distance of a patient is that of the worst block: averaged over all columns, a tumour ten times too large
    would drown among a thousand deep features. It is then divided by the `quantile` of that distance among
    patients held out in ten folds. Only means, spreads and directions are kept, nothing of a single patient.

    Args:
        quantile: Share of patients of the same kind who come out as in distribution.
        blocks: Name of each column's block; None puts all columns into one.
    """

    def __init__(self, quantile: float = 0.95, blocks: Sequence[str] | None = None) -> None:
        self.quantile = quantile
        self.blocks = blocks

    def fit(self, X: Any, y: Any = None) -> Self:  # noqa: ARG002 - scikit-learn hands it in
        X = validate_data(self, X, dtype=np.float64, ensure_all_finite="allow-nan", ensure_min_samples=2)
        columns = self._columns(X.shape[1])
        # a patient lies nearer to a centre that it helped to learn, so units come from held-out patients
        held_out = np.empty((len(X), len(columns)))
        for train, test in KFold(min(10, len(X)), shuffle=True, random_state=0).split(X):
            for number, block in enumerate(columns):
                fitted = _fit_block(X[train][:, block])
                held_out[test, number] = _block_distance(fitted, X[test][:, block])
        self.units_ = np.maximum(np.median(held_out, axis=0), 1e-12)
        largest = (held_out / self.units_).max(axis=1)
        # the quantile lies between two patients: with the rank of conformal prediction, ceil(0.95 (n + 1)),
        # one odd patient of a small cohort set the limit
        self.limit_ = max(float(np.quantile(largest, self.quantile)), 1e-12)
        self.offset_ = -1.0
        self.parts_ = [_fit_block(X[:, block]) for block in columns]
        return self

    def _columns(self, count: int) -> list[NDArray[np.int64]]:
        names = list(self.blocks) if self.blocks is not None else [""] * count
        if len(names) != count:
            raise ValueError(f"blocks has {len(names)} names for {count} columns")
        return [np.flatnonzero([name == block for name in names]) for block in dict.fromkeys(names)]

    def distances(self, X: Any) -> Floats:
        """Return the distance of each patient (a row) in each block: (patients, blocks)."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, ensure_all_finite="allow-nan", reset=False)
        columns = self._columns(X.shape[1])
        blocks = zip(self.parts_, columns, strict=True)
        distances = [_block_distance(part, X[:, block]) for part, block in blocks]
        return np.column_stack(distances) / self.units_ / self.limit_

    def distance(self, X: Any) -> Floats:
        """Return the distance of each patient, the largest of the blocks."""
        largest: Floats = self.distances(X).max(axis=1)
        return largest

    def farthest_block(self, X: Any) -> list[str]:
        """Return the block in which each patient lies farthest away."""
        names = list(dict.fromkeys(self.blocks)) if self.blocks is not None else [""]
        return [names[int(number)] for number in self.distances(X).argmax(axis=1)]

    def score_samples(self, X: Any) -> Floats:
        """Return minus the distance, as scikit-learn's outlier detectors do."""
        return -self.distance(X)

    def decision_function(self, X: Any) -> Floats:
        return self.score_samples(X) - self.offset_

    def predict(self, X: Any) -> NDArray[np.int64]:
        return np.where(self.decision_function(X) >= 0, 1, -1)


def _fit_block(X: Floats) -> dict[str, Any]:
    """Return cleaning, centre, principal directions and their shrunk variances of one block of columns.

    With more columns than patients the covariance has no inverse, so a share of it is replaced by a multiple
    of the identity; `rest` is the variance of all directions that the patients do not span.
    """
    cleaning = make_cleaning().fit(X)
    compressed = _compress(cleaning.transform(X))
    centre = compressed.mean(axis=0)
    directions = find_components(compressed - centre)
    spread = ((compressed - centre) @ directions.T).var(axis=0)
    level = max(float(spread.sum()) / compressed.shape[1], 1e-12)
    return {
        "cleaning": cleaning,
        "centre": centre,
        "directions": directions,
        "variances": (1 - SHRINKAGE) * spread + SHRINKAGE * level,
        "rest": SHRINKAGE * level,
    }


def _block_distance(block: dict[str, Any], X: Floats) -> Floats:
    """Return the Mahalanobis distance of each row from the centre of a fitted block."""
    away = _compress(block["cleaning"].transform(X)) - block["centre"]
    along = away @ block["directions"].T
    rest = np.maximum((away**2).sum(axis=1) - (along**2).sum(axis=1), 0.0)
    squares: Floats = (along**2 / block["variances"]).sum(axis=1) + rest / block["rest"]
    return np.sqrt(squares)


def _compress(z: Floats) -> Floats:
    """Return standard scores whose part beyond `FAR` counts by its logarithm."""
    beyond = np.maximum(np.abs(z), FAR) / FAR
    compressed: Floats = np.where(np.abs(z) <= FAR, z, np.sign(z) * FAR * (1 + np.log(beyond)))
    return compressed
