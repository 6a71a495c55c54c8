"""The model card of an EGFR classifier, written from what was measured and nothing else."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from radiogen.provenance import write_text

COLUMNS = ("auprc", "brier", "calibration_slope", "calibration_intercept", "sensitivity", "specificity")


def write_card(
    path: Path,
    config: Mapping[str, Any],
    validation: Mapping[str, Any],
    external: Mapping[str, Any] | None = None,
) -> None:
    """Write MODEL_CARD.md from the files of the model folder and what a second cohort gave."""
    negative, positive = config["labels"]
    classes = ", ".join(f"{count} {name}" for name, count in validation["classes"].items())
    lines = [
        f"# Classifier of {positive} against {negative}",
        "",
        "**Research software, not for clinical use.**",
        "",
        f"- Inputs: {config['inputs']} ({len(config['clinical_columns'])} clinical numbers, "
        f"{len(config['feature_columns'])} features)",
        f"- Classifier: {config['classifier']}; reduction of the features: {config['reduction']}",
        f"- Learned from {validation['patients']} patients: {classes}",
        f"- Judged by {validation['folds']} folds, {validation['repeats']} times; everything that learns is "
        f"learned in the training part, settings, calibration and threshold on {validation['inner_folds']} "
        "inner folds of it",
        f"- The probability is the mean over the models of {validation['folds']} folds; the threshold is "
        f"{config['threshold']:.3f}",
        f"- Features were extracted with the prompt: {config['prompt'] or 'unknown'}",
        "",
        "## What was measured",
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
        "hold the chance of which patients were judged, not that of which were learned from. Sensitivity is",
        f"the share of {positive} found, specificity the share of {negative} spared. An AUPRC is to be read",
        f"beside the prevalence, {validation['candidates']['majority']['prevalence']:.2f}.",
        "",
        "## What to keep in mind",
        "",
        *(f"- {note}" for note in validation["notes"]),
        _external(external),
        "- Up to a distance of 1 a patient is called familiar; 95 of 100 like those learned from are.",
    ]
    write_text(path, "\n".join(lines) + "\n")


def _external(figures: Mapping[str, Any] | None) -> str:
    if figures is None:
        return (
            "- No other cohort was judged; a hospital, scanner or population of another kind may give less."
        )
    auc = figures["auc"]
    return (
        f"- On a second cohort of {figures['patients']} patients the AUC was {auc['value']:.3f} "
        f"({auc['low']:.3f} to {auc['high']:.3f}), the Brier score {figures['brier']:.3f}, the calibration "
        f"slope {figures['calibration_slope']:.2f}."
    )


def _headline(validation: Mapping[str, Any]) -> str:
    gain = validation["headline"]
    if gain is None:
        return "The increment over clinical variables could not be measured."
    verdict = "does not exclude no gain at all" if gain["low"] <= 0 <= gain["high"] else "excludes zero"
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


def _permutation(validation: Mapping[str, Any]) -> str:
    test = validation["permutation"]
    if test is None:
        return "No permutation test was made."
    return (
        f"With shuffled labels ({test['permutations']} times; {test['how']}) the mean AUC was "
        f"{test['shuffled_mean']:.3f}; the true labels gave {test['auc']:.3f}, p = {test['p']:.3f}."
    )


def _sites(validation: Mapping[str, Any]) -> list[str]:
    judged = {site: each for site, each in validation["sites"].items() if "auc_left_out" in each}
    lines = []
    for site, each in judged.items():
        out, within = each["auc_left_out"], each["auc_within"]
        lines.append(
            f"- Hospital {site} ({each['patients']} patients, {each['positives']} {validation['positive']}): "
            f"AUC {within['value']:.3f} within it ({within['low']:.3f} to {within['high']:.3f}); of a model "
            f"of the others {out['value']:.3f} ({out['low']:.3f} to {out['high']:.3f})"
        )
    return [*lines, ""] if lines else []
