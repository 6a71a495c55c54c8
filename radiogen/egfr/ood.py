"""Does a patient look like those the model learned from? A distance with a stated and calibrated rule."""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.model_selection import KFold
from sklearn.utils.validation import check_is_fitted, validate_data

from radiogen.egfr.classifiers import make_cleaning
from radiogen.egfr.reductions import find_components

Floats = NDArray[np.float64]
FAR = 3.0  # standard deviations beyond which the logarithm counts
SHRINKAGE = 0.2  # share of the covariance that is replaced by a multiple of the identity


class Familiarity(OutlierMixin, BaseEstimator):  # type: ignore[misc]
    """Distance from the patients learned from; up to 1 is familiar.

    The inputs are standardised, and what lies beyond 3 standard deviations counts by its logarithm, so that a
    few wild columns cannot rule. In each block of columns (shape, intensity, deep, ...) the distance is
    Mahalanobis's with a shrunk covariance, in units of the median of patients who were held out; that of the
    patient is the largest of the blocks, so that a tumour ten times too large is seen among a thousand deep
    features. The unit is then the `quantile` of that distance among patients held out of ten folds, between
    two of them, so that one odd patient of a small cohort does not set it. Only means, spreads and directions
    are kept, nothing of a single patient.

    Args:
        quantile: Share of patients of the same kind who look familiar.
        blocks: Name of each column's block; None puts all into one.
    """

    def __init__(self, quantile: float = 0.95, blocks: Sequence[str] | None = None) -> None:
        self.quantile = quantile
        self.blocks = blocks

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags

    def fit(self, X: Any, y: Any = None) -> Self:  # noqa: ARG002 - scikit-learn hands it in
        X = validate_data(self, X, dtype=np.float64, ensure_all_finite="allow-nan", ensure_min_samples=2)
        columns = self._columns(X.shape[1])
        held_out = np.empty((len(X), len(columns)))
        for train, test in KFold(min(10, len(X)), shuffle=True, random_state=0).split(X):
            for number, block in enumerate(columns):
                held_out[test, number] = _measure(_learn(X[train][:, block]), X[test][:, block])
        self.units_ = np.maximum(np.median(held_out, axis=0), 1e-12)
        largest = (held_out / self.units_).max(axis=1)
        self.limit_ = max(float(np.quantile(largest, self.quantile)), 1e-12)
        self.offset_ = -1.0
        self.parts_ = [_learn(X[:, block]) for block in columns]
        return self

    def _columns(self, count: int) -> list[NDArray[np.int64]]:
        names = list(self.blocks) if self.blocks is not None else [""] * count
        if len(names) != count:
            raise ValueError(f"blocks has {len(names)} names for {count} columns")
        return [np.flatnonzero([name == each for name in names]) for each in dict.fromkeys(names)]

    def distances(self, X: Any) -> Floats:
        """Distance of each patient (a row) in each block: (patients, blocks); up to 1 is familiar."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, ensure_all_finite="allow-nan", reset=False)
        columns = self._columns(X.shape[1])
        measured = [_measure(part, X[:, block]) for part, block in zip(self.parts_, columns, strict=True)]
        return np.column_stack(measured) / self.units_ / self.limit_

    def distance(self, X: Any) -> Floats:
        """Distance of each patient, that of the block in which it is strangest."""
        largest: Floats = self.distances(X).max(axis=1)
        return largest

    def strangest(self, X: Any) -> list[str]:
        """The block in which each patient lies farthest away."""
        names = list(dict.fromkeys(self.blocks)) if self.blocks is not None else [""]
        return [names[int(number)] for number in self.distances(X).argmax(axis=1)]

    def score_samples(self, X: Any) -> Floats:
        """Minus the distance, as scikit-learn's outlier detectors have it."""
        return -self.distance(X)

    def decision_function(self, X: Any) -> Floats:
        return self.score_samples(X) - self.offset_

    def predict(self, X: Any) -> NDArray[np.int64]:
        return np.where(self.decision_function(X) >= 0, 1, -1)


def _learn(X: Floats) -> dict[str, Any]:
    """Cleaning, centre, directions and what each of them is divided by, of one block."""
    cleaning = make_cleaning().fit(X)
    drawn = _draw_together(cleaning.transform(X))
    centre = drawn.mean(axis=0)
    rows = find_components(drawn - centre)
    spread = ((drawn - centre) @ rows.T).var(axis=0)
    level = max(float(spread.sum()) / drawn.shape[1], 1e-12)
    return {
        "cleaning": cleaning,
        "centre": centre,
        "directions": rows,
        "variances": (1 - SHRINKAGE) * spread + SHRINKAGE * level,
        "rest": SHRINKAGE * level,
    }


def _measure(part: dict[str, Any], X: Floats) -> Floats:
    away = _draw_together(part["cleaning"].transform(X)) - part["centre"]
    along = away @ part["directions"].T
    rest = np.maximum((away**2).sum(axis=1) - (along**2).sum(axis=1), 0.0)
    squares: Floats = (along**2 / part["variances"]).sum(axis=1) + rest / part["rest"]
    return np.sqrt(squares)


def _draw_together(z: Floats) -> Floats:
    beyond = np.maximum(np.abs(z), FAR) / FAR
    drawn: Floats = np.where(np.abs(z) <= FAR, z, np.sign(z) * FAR * (1 + np.log(beyond)))
    return drawn
