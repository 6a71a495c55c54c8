"""Nested cross-validation of the candidates: no model has seen the patient whose probability it gives.

The inner folds choose settings and threshold, the outer ones test. Imputing, scaling, harmonising,
reduction, selection, calibration and threshold are learned anew in each outer fold.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.model_selection import StratifiedKFold

from radiogen.cache import cached_arrays, key_of
from radiogen.egfr.candidates import Candidate, Rows
from radiogen.egfr.classifiers import TunedClassifier, raw_scores
from radiogen.egfr.settings import SeedStream, derive_seed
from radiogen.egfr.statistics import auc, logit
from radiogen.errors import ConfigError, TableError
from radiogen.runtime import Progress, no_progress

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]
Folds = list[list[Rows]]  # rows of the test part, by repeat and fold


@dataclass(frozen=True)
class OutOfFold:
    """Predictions of a candidate for each patient while that patient was held out, once per repeat."""

    probabilities: Floats  # (repeats, patients)
    scores: Floats  # (repeats, patients): logit(p) minus logit(training prevalence)
    predicted_positive: NDArray[np.bool_]  # (repeats, patients): at the threshold of the inner folds
    models: tuple[Any, ...]  # of the folds of the first repeat


@dataclass(frozen=True)
class ValidationOptions:
    """How a cross-validation is run, beside what it validates."""

    seed: int = 0
    jobs: int = 1  # processes
    cache: Path | None = None  # folder of finished folds, from which a killed run goes on
    models_of: str | None = None  # the candidate whose models of the first repeat are returned


def draw_folds(patients: Sequence[str], labels: Labels, folds: int, repeats: int, seed: int) -> Folds:
    """Return the rows of the test part, for each repeat and fold; one row is one patient.

    Args:
        patients: One id per row.
        labels: 0 or 1, one per row.
        folds: Number of folds per repeat.
        repeats: How often the folds are drawn.
        seed: The folds of a repeat depend on the seed and the number of the repeat alone.

    Raises:
        TableError: A patient appears in two rows, there is one class only, or a class is too small.
    """
    if len(set(patients)) != len(patients):
        twice = next(patient for patient in patients if list(patients).count(patient) > 1)
        raise TableError(f"patient {twice}", "appears in two rows", "give one row per patient")
    _check_classes(labels, folds)
    rows = np.zeros(len(labels))
    drawn = []
    for repeat in range(repeats):
        splitter = StratifiedKFold(folds, shuffle=True, random_state=derive_seed(seed, repeat))
        drawn.append([test for _, test in splitter.split(rows, labels)])
    return drawn


def _check_classes(labels: Labels, folds: int) -> None:
    """Check that every training part keeps three patients of each class, which the inner folds need."""
    counts = np.bincount(labels, minlength=2)
    if counts.min() == 0:
        raise TableError("patients", "all have the same status", "add patients of the other class")
    smallest = int(counts.min())
    held_out = -(-smallest // folds)  # of the smaller class, in the largest fold
    if smallest < folds or smallest - held_out < 3:
        hint = f"take {smallest} folds, or add patients" if smallest > 3 else "add patients"
        wrong = f"the minority class has {smallest} patients, too few for {folds} folds"
        raise TableError("patients", wrong, hint)


def cross_validate(
    candidates: Iterable[Candidate],
    labels: Labels,
    folds: Folds,
    options: ValidationOptions,
    progress: Progress = no_progress,
) -> dict[str, OutOfFold]:
    """Return the out-of-fold predictions of every candidate by its name, all in the same folds.

    The model of a fold depends on the seed, the repeat and the fold alone, not on the number of processes. A
    candidate with more draws than there are repeats goes through the first repeats again.
    """
    with Parallel(n_jobs=options.jobs, return_as="generator") as pool:
        return {
            candidate.name: _validate_candidate(pool, candidate, labels, folds, options, progress)
            for candidate in candidates
        }


def _validate_candidate(
    pool: Any,
    candidate: Candidate,
    labels: Labels,
    folds: Folds,
    options: ValidationOptions,
    progress: Progress,
) -> OutOfFold:
    draws = max(candidate.draws, len(folds))
    places = [(draw, fold) for draw in range(draws) for fold in range(len(folds[draw % len(folds)]))]
    tests = [folds[draw % len(folds)][fold] for draw, fold in places]
    is_wanted = candidate.name == options.models_of
    tasks = (
        delayed(_run_fold)(candidate, labels, test, place, options, is_wanted and place[0] == 0)
        for place, test in zip(places, tests, strict=True)
    )
    probabilities = np.empty((draws, len(labels)))
    scores = np.empty((draws, len(labels)))
    predicted_positive = np.empty((draws, len(labels)), dtype=bool)
    models = []
    for number, (model, *predictions) in enumerate(pool(tasks)):
        draw, test = places[number][0], tests[number]
        probabilities[draw, test], scores[draw, test], predicted_positive[draw, test] = predictions
        if model is not None:
            models.append(model)
        progress(f"cross-validate {candidate.name}", number + 1, len(places))
    return OutOfFold(probabilities, scores, predicted_positive, tuple(models))


def _run_fold(
    candidate: Candidate,
    labels: Labels,
    test: Rows,
    place: tuple[int, int],
    options: ValidationOptions,
    keeps_model: bool,
) -> tuple[Any, Floats, Floats, NDArray[np.bool_]]:
    """Fit on all rows but `test` and predict those; the model is returned only where it is wanted.

    A fold whose model is wanted is not taken from the cache, which holds arrays alone: nothing that was
    written by a killed run is unpickled.
    """
    seed = derive_seed(options.seed, *place)
    inputs = candidate.inputs_of(place[0], options.seed)
    if keeps_model:
        return _fit_and_predict(candidate, inputs, labels, test, seed)
    key = _cache_key(candidate, seed, inputs, labels, test) if options.cache else ""
    probability, score, predicted_positive = cached_arrays(
        options.cache, key, lambda: _fit_and_predict(candidate, inputs, labels, test, seed)[1:]
    )
    return None, probability, score, predicted_positive


def _cache_key(candidate: Candidate, *parts: Any) -> str:
    perturbed = candidate.perturbed if candidate.perturbed is not None else np.empty(0)
    settings = candidate.settings.fit_settings()
    return key_of(candidate.name, settings, candidate.baseline, perturbed, *parts)


def _fit_and_predict(
    candidate: Candidate, inputs: Floats, labels: Labels, test: Rows, seed: int
) -> tuple[Any, Floats, Floats, NDArray[np.bool_]]:
    train = np.setdiff1d(np.arange(len(labels)), test)
    try:
        model = candidate.build(seed, train).fit(inputs[train], labels[train])
    except np.linalg.LinAlgError as error:
        wrong = f"too few patients for its {inputs.shape[1]} columns in a fold"
        hint = "take --classifier logistic, fewer folds, or more patients"
        raise ConfigError(f"classifier {candidate.settings.classifier}", wrong, hint) from error
    probability: Floats = model.predict_proba(inputs[test])[:, 1]
    # folds differ a little in prevalence; without it the scores of all folds can be ranked together
    score = logit(probability) - logit(labels[train].mean())
    return model, probability, score, probability >= getattr(model, "threshold_", 0.5)


@dataclass(frozen=True)
class PermutationTest:
    """AUC of one repeat without inner search, and how often shuffled labels do as well."""

    auc: float
    p: float
    permutations: int
    permuted_mean_auc: float


def permutation_test(
    candidate: Candidate,
    labels: Labels,
    folds: int,
    permutations: int,
    options: ValidationOptions,
    progress: Progress = no_progress,
) -> PermutationTest:
    """Test against labels that are shuffled among the patients (Phipson and Smyth 2010: p is never 0).

    To be affordable the statistic is that of the candidate's pipeline at its first settings, in one repeat,
    with folds drawn anew for each shuffle; the true labels are treated alike, so the test is exact.
    """
    rng = np.random.default_rng(derive_seed(options.seed, SeedStream.PERMUTATIONS))
    shuffles = [labels, *(rng.permutation(labels) for _ in range(permutations))]
    tasks = (delayed(_untuned_auc)(candidate, shuffled, folds, options) for shuffled in shuffles)
    areas = []
    for number, area in enumerate(Parallel(n_jobs=options.jobs, return_as="generator")(tasks), start=1):
        areas.append(area)
        progress("shuffle labels", number, len(shuffles))
    null = np.array(areas[1:])
    # rounding must not make an equal AUC a smaller one
    reached = int((null >= areas[0] - 1e-12).sum())
    return PermutationTest(areas[0], (1 + reached) / (1 + permutations), permutations, float(null.mean()))


def _untuned_auc(candidate: Candidate, labels: Labels, folds: int, options: ValidationOptions) -> float:
    def measure() -> tuple[Floats]:
        patients = [str(row) for row in range(len(labels))]
        scores = np.empty(len(labels))
        for test in draw_folds(patients, labels, folds, repeats=1, seed=options.seed)[0]:
            train = np.setdiff1d(np.arange(len(labels)), test)
            built = candidate.build(options.seed, train)
            model = built.estimator if isinstance(built, TunedClassifier) else built
            fitted = clone(model).fit(candidate.inputs[train], labels[train])
            scores[test] = raw_scores(fitted, candidate.inputs[test]) - logit(labels[train].mean())
        return (np.array(auc(scores, labels)),)

    parts = ("untuned", folds, options.seed, candidate.inputs, labels)
    key = _cache_key(candidate, *parts) if options.cache else ""
    return float(cached_arrays(options.cache, key, measure)[0])
