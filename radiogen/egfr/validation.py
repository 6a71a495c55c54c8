"""Judge candidates by cross-validation: every probability comes from a model that never saw the patient."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import NDArray
from sklearn.base import clone

from radiogen.cache import cached_arrays, key_of
from radiogen.egfr.candidates import Candidate
from radiogen.egfr.statistics import auc, logit
from radiogen.egfr.tuning import TunedClassifier, derive_seed, draw_folds, raw_scores
from radiogen.errors import ConfigError
from radiogen.runtime import Progress, no_progress

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


@dataclass(frozen=True)
class Judging:
    """How a validation is run: its seed, how many processes, and where finished folds are kept."""

    seed: int = 0
    jobs: int = 1
    kept: Path | None = None  # folder of finished folds; a killed run goes on from there
    models_of: str | None = None  # the candidate whose models of the first repeat are handed back


def judge(
    candidates: Iterable[Candidate],
    labels: Labels,
    folds: Folds,
    how: Judging,
    progress: Progress = no_progress,
) -> dict[str, OutOfFold]:
    """Out-of-fold probabilities of every candidate, all in the same folds.

    A fold's model depends on the seed, the repeat and the fold alone, not on how it is run. A candidate with
    more draws than there are repeats is judged in the first ones again.
    """
    with Parallel(n_jobs=how.jobs, return_as="generator") as pool:
        return {each.name: _judge_one(pool, each, labels, folds, how, progress) for each in candidates}


def _judge_one(
    pool: Any, candidate: Candidate, labels: Labels, folds: Folds, how: Judging, progress: Progress
) -> OutOfFold:
    draws = max(candidate.draws, len(folds))
    places = [(draw, fold) for draw in range(draws) for fold in range(len(folds[draw % len(folds)]))]
    keeps = candidate.name == how.models_of
    tests = [folds[draw % len(folds)][fold] for draw, fold in places]
    tasks = (
        delayed(_one_fold)(candidate, labels, test, place, how, keeps and place[0] == 0)
        for place, test in zip(places, tests, strict=True)
    )
    probabilities, scores = np.empty((2, draws, len(labels)))
    called = np.empty(scores.shape, dtype=bool)
    models = []
    for number, (model, *said) in enumerate(pool(tasks), start=1):
        draw, test = places[number - 1][0], tests[number - 1]
        probabilities[draw, test], scores[draw, test], called[draw, test] = said
        if model is not None:
            models.append(model)
        progress(f"judge {candidate.name}", number, len(places))
    return OutOfFold(probabilities, scores, called, tuple(models))


def _one_fold(
    candidate: Candidate,
    labels: Labels,
    test: NDArray[np.int64],
    place: tuple[int, int],
    how: Judging,
    keeps_model: bool,
) -> tuple[Any, Floats, Floats, NDArray[np.bool_]]:
    """Fit on what is not in `test`; the model is handed back only where it is kept."""
    seed = derive_seed(how.seed, *place)
    inputs = candidate.inputs_of(place[0], how.seed)
    if keeps_model:
        return _fit_and_predict(candidate, inputs, labels, test, seed)
    known = (candidate.name, candidate.settings.fitting(), candidate.baseline, seed)
    measured = candidate.measured if candidate.measured is not None else np.empty(0)
    key = key_of(*known, inputs, measured, labels, test) if how.kept else ""
    probability, score, called = cached_arrays(
        how.kept, key, lambda: _fit_and_predict(candidate, inputs, labels, test, seed)[1:]
    )
    return None, probability, score, called


def _fit_and_predict(
    candidate: Candidate, inputs: Floats, labels: Labels, test: NDArray[np.int64], seed: int
) -> tuple[Any, Floats, Floats, NDArray[np.bool_]]:
    train = np.setdiff1d(np.arange(len(labels)), test)
    try:
        model = candidate.build(seed, train).fit(inputs[train], labels[train])
    except np.linalg.LinAlgError as error:
        wrong = f"too few patients for its {inputs.shape[1]} columns in a fold"
        hint = "take --classifier logistic, fewer folds, or more patients"
        raise ConfigError(f"classifier {candidate.settings.classifier}", wrong, hint) from error
    probability: Floats = model.predict_proba(inputs[test])[:, 1]
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
    how: Judging,
    progress: Progress = no_progress,
) -> PermutationTest:
    """Test against labels that are shuffled among the patients (Phipson and Smyth 2010: never p = 0).

    To be affordable the statistic is that of the candidate's pipeline at its first settings, one repeat, with
    folds drawn anew for each shuffle; the true labels are treated in the same way, so the test is exact.
    """
    rng = np.random.default_rng(derive_seed(how.seed, 1))
    shuffles = [labels, *(rng.permutation(labels) for _ in range(permutations))]
    tasks = (delayed(_untuned_auc)(candidate, each, folds, how) for each in shuffles)
    areas = []
    for number, area in enumerate(Parallel(n_jobs=how.jobs, return_as="generator")(tasks), start=1):
        areas.append(area)
        progress("shuffle labels", number, len(shuffles))
    null = np.array(areas[1:])
    reached = int((null >= areas[0] - 1e-12).sum())
    return PermutationTest(areas[0], (1 + reached) / (1 + permutations), permutations, float(null.mean()))


def _untuned_auc(candidate: Candidate, labels: Labels, folds: int, how: Judging) -> float:
    def measure() -> tuple[Floats]:
        patients = [str(row) for row in range(len(labels))]
        scores = np.empty(len(labels))
        for test in draw_folds(patients, labels, folds, repeats=1, seed=how.seed)[0]:
            train = np.setdiff1d(np.arange(len(labels)), test)
            built = candidate.build(how.seed, train)
            model = built.estimator if isinstance(built, TunedClassifier) else built
            fitted = clone(model).fit(candidate.inputs[train], labels[train])
            scores[test] = raw_scores(fitted, candidate.inputs[test]) - logit(labels[train].mean())
        return (np.array(auc(scores, labels)),)

    known = ("untuned", candidate.name, candidate.settings.fitting(), candidate.baseline, folds, how.seed)
    measured = candidate.measured if candidate.measured is not None else np.empty(0)
    key = key_of(*known, candidate.inputs, measured, labels) if how.kept else ""
    return float(cached_arrays(how.kept, key, measure)[0])
