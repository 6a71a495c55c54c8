"""A classifier of two classes that chooses, calibrates and sets its threshold on inner folds alone."""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, MetaEstimatorMixin, clone
from sklearn.model_selection import ParameterGrid, StratifiedKFold
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from radiogen.egfr.statistics import auc, fit_line, logit, sigmoid, youden_threshold
from radiogen.errors import TableError

Floats = NDArray[np.float64]
FLATTEST = 0.05  # smallest calibration slope of standardised scores: calibration may flatten, never turn


class TunedClassifier(ClassifierMixin, MetaEstimatorMixin, BaseEstimator):  # type: ignore[misc]
    """Fits a pipeline with the settings whose out-of-fold scores had the best AUC on inner folds.

    Those same out-of-fold scores give the sigmoid that turns scores into probabilities (Platt 1999) and
    the threshold (Youden). `predict` says class 1 from `threshold_` on.

    Args:
        estimator: Pipeline with decision_function or predict_proba.
        grid: Setting -> values to try; an equal result goes to the first.
        inner_folds: Inner folds; fewer where a class has fewer patients.
        random_state: Seed of the inner folds.
    """

    def __init__(
        self,
        estimator: Any = None,
        grid: dict[str, list[Any]] | None = None,
        inner_folds: int = 3,
        random_state: int = 0,
    ) -> None:
        self.estimator = estimator
        self.grid = grid
        self.inner_folds = inner_folds
        self.random_state = random_state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        tags.input_tags.allow_nan = True
        return tags

    def fit(self, X: Any, y: Any) -> Self:
        X, y = validate_data(self, X, y, dtype=np.float64, ensure_all_finite="allow-nan")
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) != 2:
            raise ValueError(
                f"Only binary classification is supported: y has {len(self.classes_)} class, not two"
            )
        smallest = int(np.bincount(labels).min())
        if smallest < 2:
            raise ValueError("a class has n_samples=1, and inner folds need two")
        folds = min(self.inner_folds, smallest)
        if smallest - -(-smallest // folds) < 2:
            folds = smallest  # a class so small keeps two samples only if one at a time is held out
        inner = StratifiedKFold(folds, shuffle=True, random_state=self.random_state)
        candidates = list(ParameterGrid(self.grid or {}))
        scores = [self._held_out_scores(candidate, X, labels, inner) for candidate in candidates]
        best = int(np.argmax([auc(score, labels) for score in scores]))
        self.best_params_: dict[str, Any] = candidates[best]
        self.slope_, self.intercept_ = _calibrate(scores[best], labels)
        self.threshold_ = youden_threshold(self._probability(scores[best]), labels)
        self.estimator_ = clone(self.estimator).set_params(**self.best_params_).fit(X, labels)
        return self

    def _held_out_scores(
        self, candidate: dict[str, Any], X: Floats, labels: NDArray[np.int64], inner: StratifiedKFold
    ) -> Floats:
        scores = np.empty(len(labels))
        for train, test in inner.split(X, labels):
            model = clone(self.estimator).set_params(**candidate).fit(X[train], labels[train])
            scores[test] = raw_scores(model, X[test])
        return scores

    def _probability(self, scores: Floats) -> Floats:
        return sigmoid(self.slope_ * scores + self.intercept_)

    def predict_proba(self, X: Any) -> Floats:
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, ensure_all_finite="allow-nan", reset=False)
        positive = self._probability(raw_scores(self.estimator_, X))
        return np.column_stack([1 - positive, positive])

    def predict(self, X: Any) -> NDArray[Any]:
        called = self.predict_proba(X)[:, 1] >= self.threshold_
        result: NDArray[Any] = self.classes_[called.astype(int)]
        return result


def raw_scores(model: Any, X: Floats) -> Floats:
    """What a fitted classifier of two classes says for class 1: its decision function, else log odds."""
    if hasattr(model, "decision_function"):
        scores: Floats = np.asarray(model.decision_function(X), dtype=np.float64)
        return scores
    return logit(model.predict_proba(X)[:, 1])


def _calibrate(scores: Floats, labels: NDArray[np.int64]) -> tuple[float, float]:
    positives, negatives = int(labels.sum()), int(len(labels) - labels.sum())
    targets = np.where(labels == 1, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    slope, intercept = fit_line(scores, targets)
    spread = float(scores.std())
    if spread > 0 and slope * spread < FLATTEST:
        slope = FLATTEST / spread
        intercept = float(logit(labels.mean())) - slope * float(scores.mean())
    return slope, intercept


Labels = NDArray[np.int64]


def derive_seed(*parts: int) -> int:
    """One seed from several numbers; neighbours give unrelated streams."""
    return int(np.random.SeedSequence(parts).generate_state(1)[0] >> 1)


def draw_folds(
    patients: Sequence[str], labels: Labels, folds: int, repeats: int, seed: int
) -> list[list[NDArray[np.int64]]]:
    """Rows of the test part, for each repeat and fold; one row is one patient.

    Args:
        patients: One id a row.
        labels: 0 or 1 a row.
        folds: Parts a repeat.
        repeats: How often the parts are drawn.
        seed: A repeat's parts depend on the seed and its number alone.

    Raises:
        TableError: A patient stands in two rows, there is one class only, or a class is too small.
    """
    if len(set(patients)) != len(patients):
        twice = next(patient for patient in patients if list(patients).count(patient) > 1)
        raise TableError("patients", f"{twice} stands in two rows", "give one row a patient")
    check_classes(labels, folds)
    return [_one_repeat(labels, folds, derive_seed(seed, repeat)) for repeat in range(repeats)]


def _one_repeat(labels: Labels, folds: int, seed: int) -> list[NDArray[np.int64]]:
    splitter = StratifiedKFold(folds, shuffle=True, random_state=seed)
    return [test for _, test in splitter.split(np.zeros(len(labels)), labels)]


def check_classes(labels: Labels, folds: int) -> None:
    """See that every training part keeps three patients of each class, which the inner folds need.

    Raises:
        TableError: One class only, or a class with fewer patients than that takes.
    """
    counts = np.bincount(labels, minlength=2)
    if counts.min() == 0:
        raise TableError("patients", "all have the same status", "add patients of the other class")
    smallest = int(counts.min())
    if smallest < folds or smallest - -(-smallest // folds) < 3:
        hint = f"take {smallest} folds, or add patients" if smallest > 3 else "add patients"
        raise TableError("patients", f"the smaller class has {smallest}, for {folds} folds", hint)
