"""What a validation found, as validation.json and oof.csv hold it."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from radiogen.egfr.candidates import Candidate
from radiogen.egfr.cohort import EgfrCohort
from radiogen.egfr.judgement import compare, decision_curves, describe, increment, without_nan
from radiogen.egfr.settings import EgfrSettings
from radiogen.egfr.statistics import Difference
from radiogen.egfr.validation import Judging, OutOfFold, permute_labels
from radiogen.provenance import write_csv
from radiogen.runtime import Tick

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
    tick: Tick,
) -> dict[str, Any]:
    """All that stands in validation.json; the permutation test is made here."""
    labels, model = cohort.labels, candidates[settings.inputs]
    gain = increment(outcomes, labels)
    test = None
    if settings.permutations:
        test = permute_labels(model, labels, settings.folds, settings.permutations, how, tick)
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
