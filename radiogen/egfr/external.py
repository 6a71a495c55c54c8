"""Judge a trained classifier on a second cohort that it has never seen."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from radiogen.egfr.candidates import Candidate
from radiogen.egfr.classify import Classification, check_extractor, classify_egfr
from radiogen.egfr.cohort import EgfrCohort, check_overlap, read_cohort
from radiogen.egfr.judgement import describe, without_nan
from radiogen.egfr.persistence import load_model
from radiogen.egfr.settings import EgfrSettings
from radiogen.egfr.statistics import Estimate, bootstrap_auc, brier, calibration, delong_auc, logit
from radiogen.egfr.tuning import derive_seed
from radiogen.egfr.validation import OutOfFold
from radiogen.errors import TableError
from radiogen.provenance import RunRecord, write_json
from radiogen.runtime import Progress, no_progress


@dataclass(frozen=True)
class ExternalJudgement:
    """What a model is worth on a second cohort."""

    folder: Path
    patients: int
    auc: Estimate
    figures: dict[str, Any]
    classification: Classification


def check_external(
    features: Path | None, clinical: Path | None, settings: EgfrSettings, cohort: EgfrCohort
) -> None:
    """Refuse a second cohort that cannot judge a model of the first, before anything is learned.

    Raises:
        TableError: Its tables do not fit, or it holds patients of the first.
    """
    other = read_cohort(features, clinical, settings)
    check_overlap(features, other, settings.allow_overlap)
    if "features" in settings.inputs:
        check_extractor(features, other.about, cohort.about)
    absent = [name for name in cohort.features.columns if name not in other.features.columns]
    if absent and "features" in settings.inputs:
        raise TableError(features, f"lacks the column {absent[0]!r}", "extract with the same settings")
    _check_new(features or clinical, other, cohort.patients)


def _check_new(path: Path | None, cohort: EgfrCohort, learned_from: Iterable[str]) -> None:
    known = sorted(set(cohort.patients) & set(learned_from))
    if known:
        raise TableError(
            path, f"holds {len(known)} patients the model learned from ({known[0]})", "leave them out"
        )


def judge_external(
    features: Path | None,
    model: Path,
    out: Path,
    clinical: Path | None = None,
    settings: EgfrSettings | None = None,
    progress: Progress = no_progress,
) -> ExternalJudgement:
    """Apply a trained classifier to patients of known status and judge it, nothing being learned.

    Writes to `out`: predictions.csv, external.json, and their run records.

    Args:
        features: Feature table of the second cohort, by the model's extractor; None for a clinical model.
        model: Model folder of `train_egfr`.
        out: Folder to write.
        clinical: Clinical table of the second cohort; needed for clinical inputs and, mostly, for the status.
        settings: How the tables are read; None takes the settings that the model was trained with.
        progress: Called with what is done and how much there is.

    Raises:
        ModelError: The model folder cannot be used.
        TableError: The tables do not fit the model, or hold patients that it learned from.
    """
    trained = load_model(model)
    how = settings or EgfrSettings(**{**trained.config["settings"], "stable": 0})
    given = [path for path in (features, clinical, how.clinical_mapping, model / "config.json") if path]
    record = RunRecord("judge-external", how.options(), how.seed, given)
    record.model_hash = trained.sha256
    cohort = read_cohort(features, clinical, how)
    overlap = check_overlap(features, cohort, how.allow_overlap)
    _check_new(features or clinical, cohort, trained.config["patients_seen"])
    if list(cohort.label_names) != trained.config["labels"]:
        raise TableError(
            features or clinical,
            f"has the statuses {', '.join(cohort.label_names)}",
            f"the model knows {', '.join(trained.config['labels'])}",
        )
    said = classify_egfr(
        features, model, out / "predictions.csv", clinical, how.clinical_mapping, explain=0, progress=progress
    )
    probabilities = np.array([said.predictions[patient].probability for patient in cohort.patients])
    called = probabilities >= trained.config["threshold"]
    outcome = OutOfFold(probabilities[None], logit(probabilities)[None], called[None], ())
    figures = {
        "schema_version": 1,
        "note": "not for clinical use",
        "patients": len(cohort.patients),
        "classes": {
            name: int((cohort.labels == label).sum()) for label, name in enumerate(cohort.label_names)
        },
        "left_out": cohort.left_out,
        "overlap_with_segmentation_training": overlap,
        **describe(outcome, cohort.labels, cohort.label_names, how.bootstraps, how.seed),
        "auc_delong": asdict(delong_auc(outcome.scores, cohort.labels)),
        "notes": [*cohort.notes, *said.notes],
    }
    write_json(out / "external.json", without_nan(figures))
    record.finish(out / "external.json")
    return ExternalJudgement(out, len(cohort.patients), Estimate(**figures["auc"]), figures, said)


FEWEST = 5  # patients of each class in a hospital for an AUC to be given


def judge_sites(
    candidate: Candidate, said: OutOfFold, cohort: EgfrCohort, settings: EgfrSettings
) -> dict[str, Any]:
    """For each hospital: the AUC of a model of the other hospitals, and that of the folds within it.

    Where the overall AUC is much better than both, the model has learned to tell hospitals apart. A hospital
    with fewer than five patients of a class, or with so few left elsewhere, is given without figures.
    """
    sites = np.array(cohort.sites)
    judged: dict[str, Any] = {}
    for site, count in sorted(Counter(cohort.sites).items()):
        here = sites == site
        labels = cohort.labels[here]
        entry: dict[str, Any] = {"patients": count, "positives": int(labels.sum())}
        if site and _enough(labels) and _enough(cohort.labels[~here]):
            rng = np.random.default_rng(derive_seed(settings.seed, 3))
            within = bootstrap_auc(said.scores[:, here], labels, settings.bootstraps, rng)
            model = candidate.build(derive_seed(settings.seed, 4), np.flatnonzero(~here))
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
        judged[site or "unknown"] = entry
    return judged if len(judged) > 1 else {}


def _enough(labels: np.ndarray[Any, Any]) -> bool:
    return bool(min(labels.sum(), len(labels) - labels.sum()) >= FEWEST)
