"""Judge candidates by cross-validation: every probability comes from a model that never saw the patient."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import NDArray
from sklearn.base import clone

from radiogen.egfr.candidates import Candidate
from radiogen.egfr.folds import derive_seed, draw_folds
from radiogen.egfr.statistics import auc, logit
from radiogen.egfr.tuning import TunedClassifier, raw_scores
from radiogen.errors import ConfigError
from radiogen.runtime import Tick, no_tick

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]
Folds = list[list[NDArray[np.int64]]]


@dataclass(frozen=True)
class OutOfFold:
    """What a candidate said of each patient while that patient was held out, once a repeat."""

    probabilities: Floats  # (repeats, patients)
    scores: Floats  # (repeats, patients): log odds beyond the prevalence of the part learned from
    called: NDArray[np.bool_]  # (repeats, patients): positive at the threshold learned inside
    models: tuple[Any, ...]  # of the folds of the first repeat


def judge(
    candidates: Iterable[Candidate], labels: Labels, folds: Folds, seed: int, jobs: int, tick: Tick = no_tick
) -> dict[str, OutOfFold]:
    """Out-of-fold probabilities of every candidate, all in the same folds.

    A fold's model depends on the seed, the repeat and the fold alone, not on `jobs`.
    """
    with Parallel(n_jobs=jobs, return_as="generator") as pool:
        return {each.name: _judge_one(pool, each, labels, folds, seed, tick) for each in candidates}


def _judge_one(
    pool: Any, candidate: Candidate, labels: Labels, folds: Folds, seed: int, tick: Tick
) -> OutOfFold:
    places = [(repeat, fold) for repeat, tests in enumerate(folds) for fold in range(len(tests))]
    tasks = (
        delayed(_fit_and_predict)(candidate, labels, folds[repeat][fold], derive_seed(seed, repeat, fold))
        for repeat, fold in places
    )
    probabilities, scores = np.empty((2, len(folds), len(labels)))
    called = np.empty(scores.shape, dtype=bool)
    models = []
    for number, ((r, f), (model, *said)) in enumerate(zip(places, pool(tasks), strict=True), start=1):
        test = folds[r][f]
        probabilities[r, test], scores[r, test], called[r, test] = said
        if r == 0:
            models.append(model)
        tick(f"judge {candidate.name}", number, len(places))
    return OutOfFold(probabilities, scores, called, tuple(models))


def _fit_and_predict(
    candidate: Candidate, labels: Labels, test: NDArray[np.int64], seed: int
) -> tuple[Any, Floats, Floats, NDArray[np.bool_]]:
    train = np.setdiff1d(np.arange(len(labels)), test)
    try:
        model = candidate.build(seed).fit(candidate.inputs[train], labels[train])
    except np.linalg.LinAlgError as error:
        wrong = f"too few patients for its {candidate.inputs.shape[1]} columns in a fold"
        way_out = "take --classifier logistic, fewer folds, or more patients"
        raise ConfigError(f"classifier {candidate.settings.classifier}", wrong, way_out) from error
    probability: Floats = model.predict_proba(candidate.inputs[test])[:, 1]
    score = logit(probability) - logit(labels[train].mean())
    return model, probability, score, probability >= getattr(model, "threshold_", 0.5)


@dataclass(frozen=True)
class PermutationTest:
    """How often shuffled labels do as well: the AUC of one repeat without inner search, and its p-value."""

    auc: float
    p: float
    permutations: int
    shuffled_mean: float


def permute_labels(
    candidate: Candidate,
    labels: Labels,
    folds: int,
    permutations: int,
    seed: int,
    jobs: int,
    tick: Tick = no_tick,
) -> PermutationTest:
    """Test against labels that are shuffled among the patients (Phipson and Smyth 2010: never p = 0).

    To be affordable the statistic is that of the candidate's pipeline at its first settings, one repeat, with
    folds drawn anew for each shuffle; the true labels are treated in the same way, so the test is exact.
    """
    rng = np.random.default_rng(derive_seed(seed, 1))
    shuffles = [labels, *(rng.permutation(labels) for _ in range(permutations))]
    tasks = (delayed(_untuned_auc)(candidate, each, folds, seed) for each in shuffles)
    areas = []
    for number, area in enumerate(Parallel(n_jobs=jobs, return_as="generator")(tasks), start=1):
        areas.append(area)
        tick("shuffle labels", number, len(shuffles))
    null = np.array(areas[1:])
    reached = int((null >= areas[0] - 1e-12).sum())
    return PermutationTest(areas[0], (1 + reached) / (1 + permutations), permutations, float(null.mean()))


def _untuned_auc(candidate: Candidate, labels: Labels, folds: int, seed: int) -> float:
    built = candidate.build(seed)
    model = built.estimator if isinstance(built, TunedClassifier) else built
    patients = [str(row) for row in range(len(labels))]
    scores = np.empty(len(labels))
    for test in draw_folds(patients, labels, folds, repeats=1, seed=seed)[0]:
        train = np.setdiff1d(np.arange(len(labels)), test)
        fitted = clone(model).fit(candidate.inputs[train], labels[train])
        scores[test] = raw_scores(fitted, candidate.inputs[test]) - logit(labels[train].mean())
    return auc(scores, labels)
