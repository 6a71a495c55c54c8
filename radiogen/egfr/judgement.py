"""Figures of candidates that were judged in the same folds, and what one adds to another."""

import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from radiogen.egfr.candidates import Candidate
from radiogen.egfr.cohort import EgfrCohort
from radiogen.egfr.settings import EgfrSettings
from radiogen.egfr.statistics import (
    Difference,
    bootstrap_auc,
    brier,
    calibration,
    delong_difference,
    net_benefit,
)
from radiogen.egfr.tuning import derive_seed
from radiogen.egfr.validation import Judging, OutOfFold, permute_labels
from radiogen.provenance import write_csv
from radiogen.runtime import Progress

Labels = NDArray[np.int64]
BASELINES = ("majority", "site", "clinical", "volume")
CURVE = tuple(round(0.05 * step, 2) for step in range(1, 13))  # thresholds of the decision curve


def describe(
    said: OutOfFold, labels: Labels, names: tuple[str, str], draws: int, seed: int
) -> dict[str, Any]:
    """Figures of one candidate; all but the AUC's interval are means over the repeats.

    Args:
        said: What it said out of fold.
        labels: 1 is the positive class.
        names: Names of the classes 0 and 1.
        draws: Bootstrap draws of patients.
        seed: Seed of the draws; the same for all candidates.
    """
    rng = np.random.default_rng(derive_seed(seed, 2))
    repeats = range(len(said.scores))
    lines = [calibration(said.probabilities[row], labels) for row in repeats]
    tells_apart = float(np.ptp(said.scores)) > 0
    found = said.called[:, labels == 1].mean()
    spared = (~said.called[:, labels == 0]).mean()
    return {
        "auc": asdict(bootstrap_auc(said.scores, labels, draws, rng)),
        "auprc": float(np.mean([average_precision_score(labels, said.scores[row]) for row in repeats])),
        "prevalence": float(labels.mean()),
        "brier": brier(said.probabilities, labels),
        "calibration_slope": float(np.mean([slope for slope, _ in lines])) if tells_apart else math.nan,
        "calibration_intercept": float(np.mean([intercept for _, intercept in lines])),
        "sensitivity": float(found),
        "specificity": float(spared),
        f"f1_{names[1]}": float(np.mean([_f1(said.called[row], labels == 1) for row in repeats])),
        f"f1_{names[0]}": float(np.mean([_f1(~said.called[row], labels == 0) for row in repeats])),
    }


def _f1(called: NDArray[np.bool_], true: NDArray[np.bool_]) -> float:
    return float(2 * (called & true).sum() / (called.sum() + true.sum()))


def compare(outcomes: Mapping[str, OutOfFold], labels: Labels, model: str) -> list[dict[str, Any]]:
    """Differences in AUC on the same patients: the increment over clinical, then model and baselines."""
    pairs = [("clinical+features", "clinical"), *((model, baseline) for baseline in BASELINES)]
    listed = []
    for first, second in dict.fromkeys(pairs):
        if first in outcomes and second in outcomes and first != second:
            gap = delong_difference(outcomes[first].scores, outcomes[second].scores, labels)
            listed.append({"first": first, "second": second, **asdict(gap)})
    return listed


def increment(outcomes: Mapping[str, OutOfFold], labels: Labels) -> Difference | None:
    """What the features add to the clinical variables in AUC; None where one of them is not there."""
    if "clinical+features" not in outcomes or "clinical" not in outcomes:
        return None
    return delong_difference(outcomes["clinical+features"].scores, outcomes["clinical"].scores, labels)


def decision_curves(outcomes: Mapping[str, OutOfFold], labels: Labels, model: str) -> dict[str, list[float]]:
    """Net benefit of the model, of the clinical variables, and of calling everybody positive."""
    thresholds = np.array(CURVE)
    shown = [name for name in dict.fromkeys((model, "clinical", "clinical+features")) if name in outcomes]
    curves = {name: net_benefit(outcomes[name].probabilities, labels, thresholds) for name in shown}
    curves["everybody positive"] = net_benefit(np.ones((1, len(labels))), labels, thresholds)
    return {"threshold": list(CURVE), **{name: curve.tolist() for name, curve in curves.items()}}


def without_nan(content: Any) -> Any:
    """The same content with None for every number that is not finite, as JSON needs it."""
    if isinstance(content, Mapping):
        return {key: without_nan(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [without_nan(value) for value in content]
    if isinstance(content, float) and not math.isfinite(content):
        return None
    return content


NOTE = "not for clinical use"
HEADLINE = "AUC of clinical + features minus AUC of clinical alone, same folds; DeLong, 95 %"
PERMUTATION = "AUC of one repeat of the model's pipeline without inner search, labels shuffled among patients"


def summarise(
    cohort: EgfrCohort,
    candidates: dict[str, Candidate],
    outcomes: dict[str, OutOfFold],
    settings: EgfrSettings,
    overlap: int | None,
    sites: dict[str, Any],
    how: Judging,
    progress: Progress,
) -> dict[str, Any]:
    """All that stands in validation.json; the permutation test is made here."""
    labels, model = cohort.labels, candidates[settings.inputs]
    gain = increment(outcomes, labels)
    test = None
    if settings.permutations:
        test = permute_labels(model, labels, settings.folds, settings.permutations, how, progress)
    described = {
        name: describe(said, labels, cohort.label_names, settings.bootstraps, settings.seed)
        for name, said in outcomes.items()
    }
    content = {
        "schema_version": 1,
        "note": NOTE,
        "patients": len(labels),
        "classes": {name: int((labels == label).sum()) for label, name in enumerate(cohort.label_names)},
        "positive": cohort.label_names[1],
        "left_out": cohort.left_out,
        "model": model.name,
        "classifier": "logistic" if model.baseline else settings.classifier,
        "folds": settings.folds,
        "repeats": settings.repeats,
        "inner_folds": settings.inner_folds,
        "overlap_with_segmentation_training": overlap,
        "headline": None if gain is None else {"what": HEADLINE, **asdict(gain)},
        "candidates": described,
        "comparisons": compare(outcomes, labels, model.name),
        "permutation": None if test is None else {"how": PERMUTATION, **asdict(test)},
        "sites": sites,
        "decision_curve": decision_curves(outcomes, labels, model.name),
        "notes": _notes(cohort, model, overlap, gain),
    }
    result: dict[str, Any] = without_nan(content)
    return result


def _notes(cohort: EgfrCohort, model: Candidate, overlap: int | None, gain: Difference | None) -> list[str]:
    notes = list(cohort.notes)
    notes += [f"{count} patients left out: {why}" for why, count in cohort.left_out.items()]
    patients, columns = model.inputs.shape
    smaller = int(min(cohort.labels.sum(), patients - cohort.labels.sum()))
    if columns > patients:
        notes.append(f"{columns} columns for {patients} patients: only a reduction makes that bearable")
    if smaller < 50:
        notes.append(
            f"the smaller class has {smaller} patients: expect an interval of 0.1 or more either way"
        )
    if gain is None:
        notes.append("no increment over clinical variables: they or the features are missing")
    if overlap:
        notes.append(f"the segmentation model saw {overlap} of the patients: the figures flatter")
    return notes


def write_out_of_fold(path: Path, cohort: EgfrCohort, outcomes: dict[str, OutOfFold]) -> None:
    """Write oof.csv: what each candidate said of each held-out patient in each repeat."""
    names = cohort.label_names
    columns, rows = ("patient_id", "status", "candidate", "repeat", "probability", "score", "called"), []
    for name, said in outcomes.items():
        for repeat, row in np.ndindex(said.scores.shape):
            figures = (f"{each[repeat, row]:.6f}" for each in (said.probabilities, said.scores))
            status, called = names[cohort.labels[row]], names[int(said.called[repeat, row])]
            cells = (cohort.patients[row], status, name, repeat, *figures, called)
            rows.append(dict(zip(columns, cells, strict=True)))
    write_csv(path, columns, rows)
