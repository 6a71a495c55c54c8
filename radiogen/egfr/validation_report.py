"""Report a cross-validation: validation.json, the out-of-fold table oof.csv, and the model card."""

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
from radiogen.egfr.cross_validation import OutOfFold, PermutationTest, ValidationOptions, permutation_test
from radiogen.egfr.settings import EgfrSettings, SeedStream, derive_seed
from radiogen.egfr.statistics import (
    Difference,
    bootstrap_auc,
    brier,
    calibration,
    delong_difference,
    net_benefit,
)
from radiogen.provenance import write_csv, write_text
from radiogen.runtime import Progress

Labels = NDArray[np.int64]
BASELINES = ("majority", "site", "clinical", "volume")
THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(1, 13))  # thresholds of the decision curve
NOTE = "not for clinical use"
HEADLINE = "AUC of clinical + features minus AUC of clinical alone, same folds; DeLong, 95 %"
PERMUTATION = "AUC of one repeat of the model's pipeline without inner search, labels shuffled among patients"
COLUMNS = ("auprc", "brier", "calibration_slope", "calibration_intercept", "sensitivity", "specificity")


def describe_predictions(
    predictions: OutOfFold, labels: Labels, names: tuple[str, str], draws: int, seed: int
) -> dict[str, Any]:
    """Return the figures of one candidate; all but the AUC's interval are means over the repeats.

    Args:
        predictions: Out-of-fold predictions.
        labels: 1 is the positive class.
        names: Names of the classes 0 and 1.
        draws: Number of bootstrap draws of patients.
        seed: Seed of the draws; the same for all candidates, so that all are tested on the same draws.
    """
    rng = np.random.default_rng(derive_seed(seed, SeedStream.BOOTSTRAPS))
    scores, probabilities, called = (
        predictions.scores,
        predictions.probabilities,
        predictions.predicted_positive,
    )
    lines = [calibration(row, labels) for row in probabilities]
    ranks_patients = float(np.ptp(scores)) > 0
    return {
        "auc": asdict(bootstrap_auc(scores, labels, draws, rng)),
        "auprc": float(np.mean([average_precision_score(labels, row) for row in scores])),
        "prevalence": float(labels.mean()),
        "brier": brier(probabilities, labels),
        "calibration_slope": float(np.mean([slope for slope, _ in lines])) if ranks_patients else math.nan,
        "calibration_intercept": float(np.mean([intercept for _, intercept in lines])),
        "sensitivity": float(called[:, labels == 1].mean()),
        "specificity": float((~called[:, labels == 0]).mean()),
        f"f1_{names[1]}": float(np.mean([_f1(row, labels == 1) for row in called])),
        f"f1_{names[0]}": float(np.mean([_f1(~row, labels == 0) for row in called])),
    }


def _f1(called: NDArray[np.bool_], true: NDArray[np.bool_]) -> float:
    return float(2 * (called & true).sum() / (called.sum() + true.sum()))


def compare_aucs(predictions: Mapping[str, OutOfFold], labels: Labels, model: str) -> list[dict[str, Any]]:
    """Return differences in AUC: the increment over clinical, then model minus each baseline."""
    pairs = [("clinical+features", "clinical"), *((model, baseline) for baseline in BASELINES)]
    comparisons = []
    for first, second in dict.fromkeys(pairs):
        if first in predictions and second in predictions and first != second:
            difference = delong_difference(predictions[first].scores, predictions[second].scores, labels)
            comparisons.append({"first": first, "second": second, **asdict(difference)})
    return comparisons


def increment(predictions: Mapping[str, OutOfFold], labels: Labels) -> Difference | None:
    """Return what the features add to the clinical variables in AUC; None where one of them is missing.

    This is the claim that counts: clinical variables alone reach 0.77 on NSCLC-Radiogenomics.
    """
    if "clinical+features" not in predictions or "clinical" not in predictions:
        return None
    return delong_difference(predictions["clinical+features"].scores, predictions["clinical"].scores, labels)


def decision_curves(
    predictions: Mapping[str, OutOfFold], labels: Labels, model: str
) -> dict[str, list[float]]:
    """Return the net benefit of the model, of the clinical variables, and of calling everybody positive."""
    thresholds = np.array(THRESHOLDS)
    shown = [name for name in dict.fromkeys((model, "clinical", "clinical+features")) if name in predictions]
    curves = {name: net_benefit(predictions[name].probabilities, labels, thresholds) for name in shown}
    curves["everybody positive"] = net_benefit(np.ones((1, len(labels))), labels, thresholds)
    return {"threshold": list(THRESHOLDS), **{name: curve.tolist() for name, curve in curves.items()}}


def without_nan(content: Any) -> Any:
    """Return the same content with None for every number that is not finite, as JSON needs it."""
    if isinstance(content, Mapping):
        return {key: without_nan(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [without_nan(value) for value in content]
    if isinstance(content, float) and not math.isfinite(content):
        return None
    return content


def summarise(
    cohort: EgfrCohort,
    candidates: dict[str, Candidate],
    predictions: dict[str, OutOfFold],
    settings: EgfrSettings,
    overlap: int | None,
    sites: dict[str, Any],
    options: ValidationOptions,
    progress: Progress,
) -> dict[str, Any]:
    """Return the content of validation.json; the permutation test is run here."""
    labels, model = cohort.labels, candidates[settings.inputs]
    gain = increment(predictions, labels)
    test = None
    if settings.permutations:
        test = permutation_test(model, labels, settings.folds, settings.permutations, options, progress)
    figures = {
        name: describe_predictions(each, labels, cohort.label_names, settings.bootstraps, settings.seed)
        for name, each in predictions.items()
    }
    content = {
        "schema_version": 1,
        "note": NOTE,
        "marker": settings.marker,
        "patients": len(labels),
        "classes": cohort.class_counts,
        "positive": cohort.label_names[1],
        "left_out": cohort.left_out,
        "model": model.name,
        "classifier": "logistic" if model.baseline else settings.classifier,
        "folds": settings.folds,
        "repeats": settings.repeats,
        "inner_folds": settings.inner_folds,
        "overlap_with_segmentation_training": overlap,
        "headline": None if gain is None else {"what": HEADLINE, **asdict(gain)},
        "candidates": figures,
        "comparisons": compare_aucs(predictions, labels, model.name),
        "permutation": None if test is None else _permutation_figures(test),
        "sites": sites,
        "decision_curve": decision_curves(predictions, labels, model.name),
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


def write_out_of_fold(path: Path, cohort: EgfrCohort, predictions: dict[str, OutOfFold]) -> None:
    """Write oof.csv: the predictions of each candidate for each held-out patient in each repeat."""
    names, rows = cohort.label_names, []
    for candidate, each in predictions.items():
        for repeat, row in np.ndindex(each.scores.shape):
            rows.append(
                {
                    "patient_id": cohort.patients[row],
                    "status": names[cohort.labels[row]],
                    "candidate": candidate,
                    "repeat": repeat,
                    "probability": f"{each.probabilities[repeat, row]:.6f}",
                    "score": f"{each.scores[repeat, row]:.6f}",
                    "called": names[int(each.predicted_positive[repeat, row])],
                }
            )
    write_csv(path, tuple(rows[0]), rows)


def write_card(
    path: Path,
    config: Mapping[str, Any],
    validation: Mapping[str, Any],
    external: Mapping[str, Any] | None = None,
) -> None:
    """Write MODEL_CARD.md from the files of the model folder and the figures of an external cohort."""
    negative, positive = config["labels"]
    classes = ", ".join(f"{count} {name}" for name, count in validation["classes"].items())
    lines = [
        f"# Classifier of {config['marker']}: {positive} against {negative}",
        "",
        "**Research software, not for clinical use.**",
        "",
        f"- Inputs: {config['inputs']} ({len(config['clinical_columns'])} clinical numbers, "
        f"{len(config['feature_columns'])} features)",
        f"- Classifier: {config['classifier']}; reduction of the features: {config['reduction']}",
        f"- Trained on {validation['patients']} patients: {classes}",
        f"- Cross-validated in {validation['folds']} folds, {validation['repeats']} times; all that is "
        "learned is learned in the training part, settings, calibration and threshold on its "
        f"{validation['inner_folds']} inner folds",
        f"- The probability is the mean over the models of {validation['folds']} folds; the threshold is "
        f"{config['threshold']:.3f}",
        f"- Features were extracted with the prompt: {config['prompt'] or 'unknown'}",
        "",
        "## Validation",
        "",
        _headline(validation),
        "",
        *_table(validation, (negative, positive)),
        "",
        *_differences(validation),
        "",
        _permutation(validation),
        "",
        *_sites(validation),
        "Intervals are at 95 %: of the AUC by a bootstrap of the patients, of differences by DeLong. They",
        "hold the chance of which patients were tested, not of which were trained on. Sensitivity is the",
        f"share of {positive} called {positive}, specificity the share of {negative} called {negative}. Read",
        f"an AUPRC beside the prevalence, {validation['candidates']['majority']['prevalence']:.2f}.",
        "",
        "## Limitations",
        "",
        *(f"- {note}" for note in validation["notes"]),
        _external(external),
        "- A patient with a distance up to 1 counts as in distribution, as 95 of 100 patients like those of "
        "the training do.",
    ]
    write_text(path, "\n".join(lines) + "\n")


def _external(figures: Mapping[str, Any] | None) -> str:
    if figures is None:
        return "- No external cohort was tested; another hospital, scanner or population may give less."
    auc = figures["auc"]
    return (
        f"- On an external cohort of {figures['patients']} patients the AUC was {auc['value']:.3f} "
        f"({auc['low']:.3f} to {auc['high']:.3f}), the Brier score {figures['brier']:.3f}, the calibration "
        f"slope {figures['calibration_slope']:.2f}."
    )


def _headline(validation: Mapping[str, Any]) -> str:
    gain = validation["headline"]
    if gain is None:
        return "The increment over clinical variables could not be measured."
    verdict = "includes zero" if gain["low"] <= 0 <= gain["high"] else "excludes zero"
    return (
        f"**Increment of the features over the clinical variables: {gain['value']:+.3f} in AUC "
        f"({gain['low']:+.3f} to {gain['high']:+.3f}, p = {gain['p']:.3f})**; the interval {verdict}."
    )


def _table(validation: Mapping[str, Any], names: tuple[str, str]) -> list[str]:
    keys = (*COLUMNS, f"f1_{names[1]}", f"f1_{names[0]}")
    head = ["candidate", "AUC", *(key.replace("_", " ") for key in keys)]
    rows = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    for name, figures in validation["candidates"].items():
        auc = figures["auc"]
        cells = [name, f"{auc['value']:.3f} ({auc['low']:.3f} to {auc['high']:.3f})"]
        cells += ["-" if figures[key] is None else f"{figures[key]:.3f}" for key in keys]
        rows.append(f"| {' | '.join(cells)} |")
    return rows


def _differences(validation: Mapping[str, Any]) -> list[str]:
    return [
        f"- {each['first']} minus {each['second']}: {each['value']:+.3f} "
        f"({each['low']:+.3f} to {each['high']:+.3f}, p = {each['p']:.3f})"
        for each in validation["comparisons"]
    ]


def _permutation_figures(test: PermutationTest) -> dict[str, Any]:
    return {
        "how": PERMUTATION,
        "auc": test.auc,
        "p": test.p,
        "permutations": test.permutations,
        "shuffled_mean": test.permuted_mean_auc,
    }


def _permutation(validation: Mapping[str, Any]) -> str:
    test = validation["permutation"]
    if test is None:
        return "No permutation test was run."
    return (
        f"With shuffled labels ({test['permutations']} times; {test['how']}) the mean AUC was "
        f"{test['shuffled_mean']:.3f}; the true labels gave {test['auc']:.3f}, p = {test['p']:.3f}."
    )


def _sites(validation: Mapping[str, Any]) -> list[str]:
    lines = []
    for site, each in validation["sites"].items():
        if "auc_left_out" not in each:
            continue
        out, within = each["auc_left_out"], each["auc_within"]
        lines.append(
            f"- Hospital {site} ({each['patients']} patients, {each['positives']} {validation['positive']}): "
            f"AUC {within['value']:.3f} within it ({within['low']:.3f} to {within['high']:.3f}), "
            f"{out['value']:.3f} by a model of the others ({out['low']:.3f} to {out['high']:.3f})"
        )
    return [*lines, ""] if lines else []
