"""Validate a classifier on patients from elsewhere: an external cohort, and each hospital by the others."""

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from radiogen.egfr.candidates import Candidate
from radiogen.egfr.classify import Classification, check_extractor, classify_egfr
from radiogen.egfr.cohort import EgfrCohort, check_overlap, read_cohort
from radiogen.egfr.cross_validation import OutOfFold
from radiogen.egfr.feature_table import find_twins
from radiogen.egfr.persistence import load_model, seen_by
from radiogen.egfr.settings import EgfrSettings, SeedStream, derive_seed
from radiogen.egfr.statistics import Estimate, bootstrap_auc, brier, calibration, delong_auc, logit
from radiogen.egfr.validation_report import NOTE, describe_predictions, without_nan
from radiogen.errors import TableError
from radiogen.io.patients import name_pair
from radiogen.provenance import RunRecord, write_json
from radiogen.runtime import Progress, no_progress

MIN_CLASS_PATIENTS = 5  # of each class in a hospital, for an AUC to be given


@dataclass(frozen=True)
class ExternalValidation:
    """Performance of a model on an external cohort."""

    folder: Path
    patients: int
    auc: Estimate
    figures: dict[str, Any]  # content of external.json
    classification: Classification


def check_external(
    features: Path | None, clinical: Path | None, settings: EgfrSettings, cohort: EgfrCohort
) -> None:
    """Check that an external cohort can test a model of `cohort`, before anything is learned.

    Raises:
        TableError: Its tables do not fit, or it holds patients of `cohort`.
    """
    other = read_cohort(features, clinical, settings)
    check_overlap(features, other, settings.allow_overlap)
    if "features" in settings.inputs:
        check_extractor(features, other.about, cohort.about)
    absent = [name for name in cohort.features.columns if name not in other.features.columns]
    if absent and "features" in settings.inputs:
        raise TableError(features, f"lacks the column {absent[0]!r}", "extract with the same settings")
    known = other.patients_among([*cohort.patients, *(scan for own in cohort.scans.values() for scan in own)])
    both = pd.concat(
        [cohort.features.add_prefix("1 ", axis=0), other.features.add_prefix("2 ", axis=0)], join="inner"
    )
    twins = {two[2:]: one[2:] for one, two in find_twins(both) if one[0] != two[0]}
    _check_new(features or clinical, {**twins, **known})


def _check_new(path: Path | None, known: dict[str, str]) -> None:
    if known:
        wrong = f"holds {len(known)} patients the model learned from ({name_pair(*min(known.items()))})"
        raise TableError(path, wrong, "leave them out")


def validate_external(
    features: Path | None,
    model: Path,
    out: Path,
    clinical: Path | None = None,
    settings: EgfrSettings | None = None,
    progress: Progress = no_progress,
) -> ExternalValidation:
    """Apply a trained classifier to patients of known status and measure its performance; nothing is learned.

    Writes to `out`: predictions.csv, external.json, and their run records.

    Args:
        features: Feature table of the cohort, made by the model's extractor; None for a clinical model.
        model: Model folder of `train_egfr`.
        out: Folder to write.
        clinical: Clinical table of the cohort; needed for clinical inputs and, mostly, for the status.
        settings: How the tables are read; None takes the settings that the model was trained with.
        progress: Called with what is done and how much there is.

    Raises:
        ModelError: The model folder cannot be used.
        TableError: The tables do not fit the model, or hold patients that it learned from.
    """
    trained = load_model(model)
    if settings is None:
        # which features are stable is settled in the model, so no perturbed masks are needed
        settings = EgfrSettings(**{**trained.config["settings"], "stable": 0})
    mapping = settings.clinical_mapping
    inputs = [path for path in (features, clinical, mapping, model / "config.json") if path]
    record = RunRecord("judge-external", settings.options(), settings.seed, inputs)
    record.model_hash = trained.sha256
    cohort = read_cohort(features, clinical, settings)
    overlap = check_overlap(features, cohort, settings.allow_overlap)
    _check_new(features or clinical, cohort.patients_among(seen_by(trained)))
    if list(cohort.label_names) != trained.config["labels"]:
        raise TableError(
            features or clinical,
            f"has the statuses {', '.join(cohort.label_names)}",
            f"the model knows {', '.join(trained.config['labels'])}",
        )
    table = out / "predictions.csv"
    answer = classify_egfr(features, model, table, clinical, mapping, explain=0, progress=progress)
    # patients of unknown status are predicted too, but only those of the cohort can be counted
    probabilities = np.array([answer.predictions[patient].probability for patient in cohort.patients])
    called = probabilities >= trained.config["threshold"]
    predictions = OutOfFold(probabilities[None], logit(probabilities)[None], called[None], ())
    figures = {
        "schema_version": 1,
        "note": NOTE,
        "marker": settings.marker,
        "patients": len(cohort.patients),
        "classes": cohort.class_counts,
        "left_out": cohort.left_out,
        "overlap_with_segmentation_training": overlap,
        **describe_predictions(
            predictions, cohort.labels, cohort.label_names, settings.bootstraps, settings.seed
        ),
        "auc_delong": asdict(delong_auc(predictions.scores, cohort.labels)),
        "notes": [*cohort.notes, *answer.notes],
    }
    write_json(out / "external.json", without_nan(figures))
    record.finish(out / "external.json")
    return ExternalValidation(out, len(cohort.patients), Estimate(**figures["auc"]), figures, answer)


def validate_by_site(
    candidate: Candidate, predictions: OutOfFold, cohort: EgfrCohort, settings: EgfrSettings
) -> dict[str, Any]:
    """Return for each hospital the AUC of a model of the other hospitals, and that of the folds within it.

    Where the overall AUC is much better than both, the model has learned to tell hospitals apart. A hospital
    with fewer than five patients of a class, or with so few left elsewhere, is listed without figures.
    """
    sites = np.array(cohort.sites)
    by_site: dict[str, Any] = {}
    for site, count in sorted(Counter(cohort.sites).items()):
        here = sites == site
        labels = cohort.labels[here]
        entry: dict[str, Any] = {"patients": count, "positives": int(labels.sum())}
        if site and _has_enough(labels) and _has_enough(cohort.labels[~here]):
            # the model of the other hospitals never saw this scanner nor its share of mutants
            rng = np.random.default_rng(derive_seed(settings.seed, SeedStream.LEFT_OUT_BOOTSTRAPS))
            within = bootstrap_auc(predictions.scores[:, here], labels, settings.bootstraps, rng)
            model = candidate.build(
                derive_seed(settings.seed, SeedStream.LEFT_OUT_MODELS), np.flatnonzero(~here)
            )
            model.fit(candidate.inputs[~here], cohort.labels[~here])
            probabilities = model.predict_proba(candidate.inputs[here])[:, 1]
            slope, intercept = calibration(probabilities, labels)
            entry |= {
                "auc_within": asdict(within),
                "auc_left_out": asdict(bootstrap_auc(probabilities, labels, settings.bootstraps, rng)),
                "brier_left_out": brier(probabilities, labels),
                "calibration_slope_left_out": slope,
                "calibration_intercept_left_out": intercept,
            }
        by_site[site or "unknown"] = entry
    return by_site if len(by_site) > 1 else {}


def _has_enough(labels: np.ndarray[Any, Any]) -> bool:
    return bool(min(labels.sum(), len(labels) - labels.sum()) >= MIN_CLASS_PATIENTS)
