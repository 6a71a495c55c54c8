"""Why the published AUC of 0.93 shows nothing: a reduction fitted on all labels finds signal in noise.

Run: python benchmarks/egfr_leak.py
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from radiogen.egfr.classifiers import TunedClassifier, make_classifier
from radiogen.egfr.cross_validation import draw_folds
from radiogen.egfr.settings import EgfrSettings, derive_seed
from radiogen.egfr.statistics import auc

Labels = NDArray[np.int64]


@dataclass(frozen=True)
class LeakDemonstration:
    """AUC on random labels: with the reduction fitted on all patients, and inside the folds."""

    wrong_way: float
    own_way: float


def demonstrate_leak(
    patients: int = 109, features: int = 1024, positives: int = 23, repeats: int = 10, seed: int = 0
) -> LeakDemonstration:
    """Classify random labels from wide random features, with the linear discriminant in the wrong place.

    The features are mixtures of as many directions as there are patients, the k-th with a standard deviation
    of 1/k: a steep spectrum, as averaged feature maps have. Labels are drawn independently of them, so an
    honest AUC is 0.5. Patients and mutants are those of the published study, as are discriminant and QDA;
    both ways get the same labels and folds.

    Args:
        patients: Number of patients.
        features: Number of features.
        positives: Number of patients with the label 1.
        repeats: Draws of features and labels that are averaged.
        seed: Seed of the draws.
    """
    areas = [_one_draw(patients, features, positives, derive_seed(seed, repeat)) for repeat in range(repeats)]
    wrong, own = np.mean(areas, axis=0)
    return LeakDemonstration(float(wrong), float(own))


def _one_draw(patients: int, features: int, positives: int, seed: int) -> tuple[float, float]:
    rng = np.random.default_rng(seed)
    directions = rng.normal(size=(patients, patients)) / np.arange(1, patients + 1)
    table = directions @ rng.normal(size=(patients, features))
    labels = rng.permutation((np.arange(patients) < positives).astype(np.int64))
    ids = [str(row) for row in range(patients)]
    folds = draw_folds(ids, labels, folds=5, repeats=1, seed=seed)[0]
    leaked = LinearDiscriminantAnalysis().fit_transform(
        table, labels
    )  # has read the labels of all test folds
    own = make_classifier(EgfrSettings(classifier="qda", reduction="paper"), 0, features, seed)
    wrong = make_classifier(EgfrSettings(classifier="qda", reduction="none"), 0, leaked.shape[1], seed)
    return _held_out_auc(wrong, leaked, labels, folds), _held_out_auc(own, table, labels, folds)


def _held_out_auc(
    model: TunedClassifier, inputs: NDArray[np.float64], labels: Labels, folds: list[Labels]
) -> float:
    probabilities = np.empty(len(labels))
    for test in folds:
        train = np.setdiff1d(np.arange(len(labels)), test)
        fitted = clone(model).fit(inputs[train], labels[train])
        probabilities[test] = fitted.predict_proba(inputs[test])[:, 1]
    return auc(probabilities, labels)


if __name__ == "__main__":
    found = demonstrate_leak()
    print(f"AUC on random labels, reduction fitted on all patients\t{found.wrong_way:.3f}")
    print(f"AUC on random labels, reduction inside the folds\t{found.own_way:.3f}")
