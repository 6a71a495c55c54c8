"""Why the published 0.93 shows nothing: a reduction fitted on all labels finds signal in noise."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from radiogen.egfr.classifiers import make_classifier
from radiogen.egfr.settings import EgfrSettings
from radiogen.egfr.statistics import auc
from radiogen.egfr.tuning import TunedClassifier, derive_seed, draw_folds

Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Demonstration:
    """AUC on random labels: the reduction fitted on all patients, and inside the folds."""

    wrong_way: float
    own_way: float


def demonstrate_leak(
    patients: int = 109, features: int = 1024, positives: int = 23, repeats: int = 10, seed: int = 0
) -> Demonstration:
    """Classify random labels from wide random features, with the linear discriminant in the wrong place.

    The features are mixtures of as many directions as there are patients, the k-th with a standard deviation
    of 1/k: a steep spectrum, as averaged feature maps have. Labels are drawn independently of them, so an
    honest AUC is 0.5. Patients and mutants are those of the published study (DESIGN, "EGFR, the facts"), as
    are discriminant and QDA; both ways get the same labels and folds.

    Args:
        patients: Number of patients.
        features: Number of features.
        positives: How many patients get the label 1.
        repeats: Draws of features and labels that are averaged.
        seed: Seed of the draws.
    """
    areas = [_one_draw(patients, features, positives, derive_seed(seed, repeat)) for repeat in range(repeats)]
    wrong, own = np.mean(areas, axis=0)
    return Demonstration(float(wrong), float(own))


def _one_draw(patients: int, features: int, positives: int, seed: int) -> tuple[float, float]:
    rng = np.random.default_rng(seed)
    directions = rng.normal(size=(patients, patients)) / np.arange(1, patients + 1)
    table = directions @ rng.normal(size=(patients, features))
    labels = rng.permutation((np.arange(patients) < positives).astype(np.int64))
    ids = [str(row) for row in range(patients)]
    folds = draw_folds(ids, labels, folds=5, repeats=1, seed=seed)[0]
    seen_all = LinearDiscriminantAnalysis().fit_transform(table, labels)
    own = make_classifier(EgfrSettings(classifier="qda", reduction="paper"), 0, features, seed)
    wrong = make_classifier(EgfrSettings(classifier="qda", reduction="none"), 0, seen_all.shape[1], seed)
    return _held_out_auc(wrong, seen_all, labels, folds), _held_out_auc(own, table, labels, folds)


def _held_out_auc(
    model: TunedClassifier, inputs: NDArray[np.float64], labels: Labels, folds: list[Labels]
) -> float:
    said = np.empty(len(labels))
    for test in folds:
        train = np.setdiff1d(np.arange(len(labels)), test)
        said[test] = clone(model).fit(inputs[train], labels[train]).predict_proba(inputs[test])[:, 1]
    return auc(said, labels)
