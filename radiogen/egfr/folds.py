"""Folds that are stratified by class, drawn anew for each repeat, and never divide a patient."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedKFold

from radiogen.errors import TableError

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
        way_out = f"take {smallest} folds, or add patients" if smallest > 3 else "add patients"
        raise TableError("patients", f"the smaller class has {smallest}, for {folds} folds", way_out)
