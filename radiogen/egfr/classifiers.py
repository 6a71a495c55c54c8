"""The classifiers by name: pipelines that tune, calibrate and set their threshold on inner folds alone."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import ClassifierMixin, MetaEstimatorMixin, clone
from sklearn.compose import ColumnTransformer
from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import ParameterGrid, StratifiedKFold
from sklearn.pipeline import Pipeline
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from radiogen.egfr.preprocessing import AllowNan, KeptColumns, PerInstance, SiteHarmonizer, make_cleaning
from radiogen.egfr.reductions import make_reduction
from radiogen.egfr.settings import EgfrSettings, ReductionName
from radiogen.egfr.statistics import auc, fit_line, logit, sigmoid, youden_threshold
from radiogen.errors import ConfigError

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]
Grid = dict[str, list[Any]]
MIN_SLOPE = 0.05  # of the calibration, of standardised scores: calibration may flatten, never reverse


class TunedClassifier(ClassifierMixin, MetaEstimatorMixin, AllowNan):  # type: ignore[misc]
    """A pipeline fitted with the settings whose out-of-fold scores had the best AUC on inner folds.

    The same out-of-fold scores give the sigmoid that turns scores into probabilities (Platt 1999) and the
    threshold (Youden). `predict` calls class 1 from `threshold_` on.

    Args:
        estimator: Pipeline with decision_function or predict_proba.
        grid: Setting -> values to try; of equal results the first wins.
        inner_folds: Number of inner folds; fewer where a class has fewer patients.
        random_state: Seed of the inner folds.
    """

    def __init__(
        self,
        estimator: Any = None,
        grid: Grid | None = None,
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
            raise ValueError("a class has n_samples=1, but inner folds need two")
        folds = min(self.inner_folds, smallest)
        held_out = -(-smallest // folds)  # of the smaller class, in the largest fold
        if smallest - held_out < 2:
            folds = smallest  # so small a class keeps two samples only if one at a time is held out
        inner = StratifiedKFold(folds, shuffle=True, random_state=self.random_state)
        candidates = list(ParameterGrid(self.grid or {}))
        scores = [self._held_out_scores(candidate, X, labels, inner) for candidate in candidates]
        # by AUC, which needs no threshold and does not depend on the prevalence of a fold
        best = int(np.argmax([auc(score, labels) for score in scores]))
        self.best_params_: dict[str, Any] = candidates[best]
        # from out-of-fold scores too, since scores of fitted patients separate the classes too well
        self.slope_, self.intercept_ = _calibrate(scores[best], labels)
        self.threshold_ = youden_threshold(self._probability(scores[best]), labels)
        self.estimator_ = clone(self.estimator).set_params(**self.best_params_).fit(X, labels)
        return self

    def _held_out_scores(
        self, candidate: dict[str, Any], X: Floats, labels: Labels, inner: StratifiedKFold
    ) -> Floats:
        """Return the score of each sample from a model that was fitted without it."""
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
    """Return the decision function of a fitted binary classifier, else the log odds of class 1."""
    if hasattr(model, "decision_function"):
        scores: Floats = np.asarray(model.decision_function(X), dtype=np.float64)
        return scores
    return logit(model.predict_proba(X)[:, 1])


def _calibrate(scores: Floats, labels: Labels) -> tuple[float, float]:
    """Return slope and intercept of Platt's sigmoid, with his targets that keep off 0 and 1.

    On few patients without signal the fitted slope can be negative, which would reverse the ranking.
    """
    positives, negatives = int(labels.sum()), int(len(labels) - labels.sum())
    targets = np.where(labels == 1, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    slope, intercept = fit_line(scores, targets)
    spread = float(scores.std())
    if spread > 0 and slope * spread < MIN_SLOPE:
        slope = MIN_SLOPE / spread
        intercept = float(logit(labels.mean())) - slope * float(scores.mean())
    return slope, intercept


@dataclass(frozen=True)
class Recipe:
    """A classifier: how it is made, which of its settings are searched, and its usual reduction."""

    make: Callable[[], Any]
    grid: Grid
    reduction: ReductionName


def _make_mlp() -> Any:
    from radiogen.egfr.heads import MlpHead  # torch is loaded only where it is needed

    return MlpHead()


def _make_attention() -> Any:
    from radiogen.egfr.heads import GatedAttentionHead

    return GatedAttentionHead()


# saga stops early at tol 0.01: an exact solution takes ten times as long and ranks alike.
_elastic_net = partial(LogisticRegression, solver="saga", l1_ratio=0.5, tol=0.01, max_iter=2000)
_boosting = partial(GradientBoostingClassifier, n_estimators=50, max_depth=2, subsample=0.7)

# The published classifiers work on one discriminant; the others get principal components. Grids start with
# the usual value, since the permutation test takes the first settings and equal results go to the first.
CLASSIFIERS: dict[str, Recipe] = {
    "qda": Recipe(partial(QuadraticDiscriminantAnalysis, reg_param=0.1), {}, "lda"),
    "tree": Recipe(partial(DecisionTreeClassifier, max_depth=3, min_samples_leaf=5), {}, "lda"),
    "forest": Recipe(partial(RandomForestClassifier, 100, min_samples_leaf=3), {}, "lda"),
    "svc": Recipe(SVC, {"C": [1.0, 0.1, 10.0]}, "lda"),
    "logistic": Recipe(partial(LogisticRegression, max_iter=1000), {"C": [0.1, 0.01, 1.0]}, "pca"),
    "elasticnet": Recipe(_elastic_net, {"C": [0.1, 0.03, 0.3]}, "none"),
    "boosting": Recipe(_boosting, {}, "pca"),
    "mlp": Recipe(_make_mlp, {}, "pca"),
    "attention": Recipe(_make_attention, {}, "pca"),
}


def make_classifier(
    settings: EgfrSettings,
    clinical: int,
    features: int,
    seed: int,
    kept: list[int] | None = None,
    instances: int = 1,
) -> TunedClassifier:
    """Return the pipeline of some settings, wrapped so that it tunes itself on inner folds.

    Args:
        settings: Which classifier and reduction.
        clinical: Number of clinical columns, which come first; they bypass the reduction.
        features: Number of feature columns, which are reduced. To harmonise, the first is the hospital.
        seed: Seed of every random part.
        kept: Numbers of the features that are used; None for all.
        instances: How many lesions stand side by side in the features, for attention.

    Raises:
        ConfigError: There is no such classifier.
    """
    if settings.classifier not in CLASSIFIERS:
        raise ConfigError(
            f"classifier {settings.classifier}", "is not known", f"take {', '.join(CLASSIFIERS)}"
        )
    recipe = CLASSIFIERS[settings.classifier]
    uses_attention = settings.classifier == "attention"
    classifier = recipe.make()
    wanted = {"random_state": seed, "device": settings.device, "instances": instances, "context": clinical}
    accepted = classifier.get_params()
    classifier.set_params(**{name: value for name, value in wanted.items() if name in accepted})
    reduction, reduction_grid = make_reduction(settings.reduction or recipe.reduction, settings.components)
    blocks: list[tuple[str, Any, slice]] = []
    grid = {f"classifier__{name}": values for name, values in recipe.grid.items()}
    if clinical:
        # attention is told the number of clinical columns beforehand, so none may be dropped
        cleaning = make_cleaning(keep_constant=uses_attention)
        blocks.append(("clinical", cleaning, slice(0, clinical)))
    if features:
        # hospitals are aligned before the median fills gaps, else a gap would get the median of all
        first: list[tuple[str, Any]] = [("harmonise", SiteHarmonizer())] if settings.harmonise else []
        first += [] if kept is None else [("stable", KeptColumns(kept))]
        reduced: Any = Pipeline([*first, *make_cleaning().steps, ("reduce", reduction)])
        if uses_attention:
            reduced = PerInstance(reduced, instances)
        blocks.append(("features", reduced, slice(clinical, clinical + features)))
        if reduction_grid:  # searched in place of the classifier's own grid, to keep the search small
            inner = "transformer__reduce" if uses_attention else "reduce"
            grid = {f"columns__features__{inner}__{name}": values for name, values in reduction_grid.items()}
    pipeline = Pipeline([("columns", ColumnTransformer(blocks)), ("classifier", classifier)])
    return TunedClassifier(pipeline, grid, settings.inner_folds, random_state=seed)


def make_baseline(columns: int, inner_folds: int, seed: int) -> TunedClassifier:
    """Return a logistic regression on all columns, which shows what a few variables can do."""
    settings = EgfrSettings(classifier="logistic", reduction="none", inner_folds=inner_folds)
    return make_classifier(settings, clinical=columns, features=0, seed=seed)
