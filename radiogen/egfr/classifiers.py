"""The classifiers by name: each one pipeline in which everything that learns sits."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.compose import ColumnTransformer
from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.feature_selection import SelectorMixin
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils.validation import check_is_fitted, validate_data

from radiogen.egfr.feature_table import EachInstance
from radiogen.egfr.harmonise import SiteHarmonizer
from radiogen.egfr.reductions import make_reduction
from radiogen.egfr.settings import EgfrSettings, ReductionName
from radiogen.egfr.stability import KeptColumns
from radiogen.egfr.tuning import TunedClassifier
from radiogen.errors import ConfigError


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


Grid = dict[str, list[Any]]


@dataclass(frozen=True)
class Recipe:
    """A classifier: how it is made, which of its settings are searched, what reduction it usually gets."""

    build: Callable[[], Any]
    grid: Grid
    reduction: ReductionName


def make_mlp() -> Any:
    from radiogen.egfr.heads import MlpHead

    return MlpHead()


def make_attention() -> Any:
    from radiogen.egfr.heads import GatedAttentionHead

    return GatedAttentionHead()


def make_elastic_net() -> Any:
    """Half L1, half L2; stopped early, since an exact solution takes ten times as long and ranks alike."""
    return LogisticRegression(solver="saga", l1_ratio=0.5, tol=0.01, max_iter=2000)


# The published classifiers stand on one discriminant; the others get principal components.
CLASSIFIERS: dict[str, Recipe] = {
    "qda": Recipe(lambda: QuadraticDiscriminantAnalysis(reg_param=0.1), {}, "lda"),
    "tree": Recipe(lambda: DecisionTreeClassifier(max_depth=3, min_samples_leaf=5), {}, "lda"),
    "forest": Recipe(lambda: RandomForestClassifier(100, min_samples_leaf=3), {}, "lda"),
    "svc": Recipe(SVC, {"C": [1.0, 0.1, 10.0]}, "lda"),
    "logistic": Recipe(lambda: LogisticRegression(max_iter=1000), {"C": [0.1, 0.01, 1.0]}, "pca"),
    "elasticnet": Recipe(make_elastic_net, {"C": [0.1, 0.03, 0.3]}, "none"),
    "boosting": Recipe(
        lambda: GradientBoostingClassifier(n_estimators=50, max_depth=2, subsample=0.7), {}, "pca"
    ),
    "mlp": Recipe(make_mlp, {}, "pca"),
    "attention": Recipe(make_attention, {}, "pca"),
}


def make_classifier(
    settings: EgfrSettings,
    clinical: int,
    features: int,
    seed: int,
    kept: list[int] | None = None,
    instances: int = 1,
) -> TunedClassifier:
    """The pipeline of a setting, wrapped so that it tunes itself on inner folds.

    Args:
        settings: Which classifier and reduction.
        clinical: How many of the first columns are clinical; they pass around the reduction.
        features: How many columns follow; they are reduced. To harmonise, the first is the hospital.
        seed: Seed of whatever in it needs chance.
        kept: The features that are used, by their number; None for all.
        instances: How many lesions stand side by side in the features, for attention.

    Raises:
        ConfigError: There is no such classifier.
    """
    if settings.classifier not in CLASSIFIERS:
        raise ConfigError(
            f"classifier {settings.classifier}", "is not known", f"take {', '.join(CLASSIFIERS)}"
        )
    recipe = CLASSIFIERS[settings.classifier]
    pools = settings.classifier == "attention"
    classifier = recipe.build()
    handed_in = {"random_state": seed, "device": settings.device, "instances": instances, "context": clinical}
    takes = classifier.get_params()
    classifier.set_params(**{name: value for name, value in handed_in.items() if name in takes})
    reduction, reduction_grid = make_reduction(settings.reduction or recipe.reduction, settings.components)
    blocks: list[tuple[str, Any, slice]] = []
    searched = {f"classifier__{name}": values for name, values in recipe.grid.items()}
    if clinical:
        blocks.append(("clinical", make_cleaning(constant=pools), slice(0, clinical)))
    if features:
        first: list[tuple[str, Any]] = [("harmonise", SiteHarmonizer())] if settings.harmonise else []
        first += [] if kept is None else [("stable", KeptColumns(kept))]
        reduced: Any = Pipeline([*first, *make_cleaning().steps, ("reduce", reduction)])
        if pools:
            reduced = EachInstance(reduced, instances)
        blocks.append(("features", reduced, slice(clinical, clinical + features)))
        if reduction_grid:
            prefix = "columns__features__transformer__reduce__" if pools else "columns__features__reduce__"
            searched = {prefix + name: values for name, values in reduction_grid.items()}
    pipeline = Pipeline([("columns", ColumnTransformer(blocks)), ("classifier", classifier)])
    return TunedClassifier(pipeline, searched, settings.inner_folds, random_state=seed)


def make_baseline(columns: int, inner_folds: int, seed: int) -> TunedClassifier:
    """What a few variables can do: logistic regression on all of them."""
    few = EgfrSettings(classifier="logistic", reduction="none", inner_folds=inner_folds)
    return make_classifier(few, clinical=columns, features=0, seed=seed)
