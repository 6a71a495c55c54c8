"""Train the EGFR classifier, validate it beside what it must beat, and write its model folder."""

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from radiogen.drawing import egfr_plots
from radiogen.drawing.egfr_plots import CandidateCurve
from radiogen.egfr.audit import refuse_giveaways
from radiogen.egfr.candidates import Candidate, list_candidates
from radiogen.egfr.classifiers import CLASSIFIERS
from radiogen.egfr.cohort import EgfrCohort, check_overlap, read_cohort
from radiogen.egfr.cross_validation import OutOfFold, ValidationOptions, cross_validate, draw_folds
from radiogen.egfr.external import ExternalValidation, check_external, validate_by_site, validate_external
from radiogen.egfr.feature_table import RANK_MARK
from radiogen.egfr.ood import OodDetector
from radiogen.egfr.persistence import save_model
from radiogen.egfr.settings import EgfrSettings
from radiogen.egfr.statistics import Difference, Estimate
from radiogen.egfr.validation_report import NOTE, increment, summarise, write_card, write_out_of_fold
from radiogen.provenance import RunRecord, record_path, remove_if_refused, write_json
from radiogen.runtime import AnyPath, Progress, no_progress, pick_device

TEXT_COLUMNS = {"patient_id": str, "status": str, "candidate": str, "called": str}  # of oof.csv


@dataclass(frozen=True)
class EgfrTraining:
    """Result of a training: the model folder and the main figures of the validation."""

    folder: Path
    patients: int
    positives: int
    auc: Estimate  # of the model
    increment: Difference | None  # clinical + features over clinical; None without one of them
    permutation_p: float | None
    validation: dict[str, Any]  # content of validation.json
    notes: tuple[str, ...]
    external: ExternalValidation | None = None


@dataclass(frozen=True)
class ExternalCohort:
    """Tables of patients that the finished model is tested on; nothing is learned from them."""

    features: Path | None
    clinical: Path | None


def train_egfr(
    features: AnyPath | None,
    out: AnyPath,
    clinical: AnyPath | None = None,
    settings: EgfrSettings = EgfrSettings(),  # noqa: B008 - frozen
    progress: Progress = no_progress,
    external: ExternalCohort | None = None,
) -> EgfrTraining:
    """Train and validate a classifier of EGFR status.

    Writes to `out`: pipeline.skops (and head.safetensors with head.json), config.json, validation.json,
    oof.csv, MODEL_CARD.md, plots, `external/` for an external cohort, and last the run record. Finished folds
    are cached in a hidden folder beside `out` until then, so that a killed run goes on.

    Args:
        features: Feature table, one row a lesion; None for a model of clinical variables alone.
        out: Folder to write.
        clinical: Clinical table; without it the feature table must hold the status.
        settings: Classifier, inputs and validation.
        progress: Called with what is done and how much there is.
        external: A second cohort, on which the finished model is tested too.

    Raises:
        DeviceError: The device is not there.
        TableError: A table does not fit, there are too few patients, or the segmentation model of the
            features was trained on some of them.
    """
    features = None if features is None else Path(features)
    clinical = None if clinical is None else Path(clinical)
    out = Path(out)
    pick_device(settings.device)  # an absent device is refused before the work
    inputs = [path for path in (features, clinical, settings.clinical_mapping) if path]
    record = RunRecord("train-egfr", settings.options(), settings.seed, inputs)
    cohort = read_cohort(features, clinical, settings)
    allowed = refuse_giveaways(features or clinical, cohort, settings)
    cohort = replace(cohort, notes=(*cohort.notes, *allowed))
    overlap = check_overlap(features, cohort, settings.allow_overlap)
    candidates = list_candidates(cohort, settings)
    # refused before the hours of cross-validation, not after them
    if external:
        check_external(external.features, external.clinical, settings, cohort)
    folds = draw_folds(cohort.patients, cohort.labels, settings.folds, settings.repeats, settings.seed)
    cache = out.with_name(f".{out.name}.folds")
    options = ValidationOptions(settings.seed, settings.jobs, cache, settings.inputs)
    with remove_if_refused(cache):
        predictions = cross_validate(candidates.values(), cohort.labels, folds, options, progress)
    model = candidates[settings.inputs]
    sites = validate_by_site(model, predictions[model.name], cohort, settings)
    validation = summarise(cohort, candidates, predictions, settings, overlap, sites, options, progress)
    config = _describe_model(cohort, model, predictions[model.name], overlap)
    if out.is_dir():
        record_path(out).unlink(missing_ok=True)  # an old record must not vouch for a half-written folder
    # fitted on all patients; its unit comes from patients that it holds out itself
    ood_detector = OodDetector(blocks=_blocks_of(model)).fit(model.inputs)
    files = save_model(out, predictions[model.name].models, ood_detector, config)
    write_json(out / "validation.json", validation)
    write_out_of_fold(out / "oof.csv", cohort, predictions)
    tested = None
    if external:
        folder = out / "external"
        tested = validate_external(external.features, out, folder, external.clinical, settings, progress)
    write_card(out / "MODEL_CARD.md", config, validation, tested.figures if tested else None)
    files += [out / name for name in ("validation.json", "oof.csv", "MODEL_CARD.md")]
    files += plot_validation(out)
    record.decisions.extend(validation["notes"])
    record.finish(out, files)
    shutil.rmtree(cache, ignore_errors=True)
    permutation = validation["permutation"]
    return EgfrTraining(
        folder=out,
        patients=len(cohort.patients),
        positives=int(cohort.labels.sum()),
        auc=Estimate(**validation["candidates"][model.name]["auc"]),
        increment=increment(predictions, cohort.labels),
        permutation_p=permutation["p"] if permutation else None,
        validation=validation,
        notes=tuple(validation["notes"]),
        external=tested,
    )


def _blocks_of(model: Candidate) -> list[str]:
    """Return the block of each input: clinical, or a feature's name up to the first underscore."""
    features = [name.partition("_")[0] for name in model.feature_columns]
    return ["clinical"] * len(model.clinical_columns) + features


def _describe_model(
    cohort: EgfrCohort, model: Candidate, predictions: OutOfFold, overlap: int | None
) -> dict[str, Any]:
    """Return the content of config.json, with which `classify_egfr` checks and orders the inputs."""
    thresholds = [member.threshold_ for member in predictions.models]
    settings, about = model.settings, cohort.about
    name = "logistic" if model.baseline else settings.classifier
    return {
        "kind": "egfr",
        "marker": settings.marker,
        "note": NOTE,
        "labels": list(cohort.label_names),
        "inputs": model.name,
        "classifier": name,
        "reduction": "none" if model.baseline else settings.reduction or CLASSIFIERS[name].reduction,
        "clinical_columns": list(model.clinical_columns),
        "feature_columns": list(model.feature_columns),
        "threshold": float(sum(thresholds) / len(thresholds)),
        "hospitals": cohort.hospitals if settings.harmonise else [],
        "lesion": settings.lesion,
        "volume_column": cohort.volume_column.removesuffix(f"{RANK_MARK}1"),
        "id_column": settings.id_column,
        "id_pattern": settings.id_pattern,
        "extractor": about.get("extractor"),
        "features_model_hash": about.get("model_hash"),
        "prompt": about.get("prompt"),
        "patients_seen": list(cohort.patients),
        "scans_seen": sorted({scan for scans in cohort.scans.values() for scan in scans} - {""}),
        "overlap_with_segmentation_training": overlap,
        "settings": settings.options(),
    }


def plot_validation(folder: Path) -> list[Path]:
    """Draw the plots of a model folder.

    Curves are of the probabilities averaged over the repeats, one line a candidate: the model, clinical,
    clinical + features, volume, as far as they are there.

    Returns:
        roc.png, precision_recall.png, calibration.png, decision_curve.png, confusion.png.
    """
    validation = json.loads((folder / "validation.json").read_text(encoding="utf-8"))
    table = pd.read_csv(folder / "oof.csv", dtype=TEXT_COLUMNS, keep_default_na=False)
    names = dict.fromkeys([validation["model"], "clinical+features", "clinical", "volume"])
    curves = [_curve(table, validation, name) for name in names if name in validation["candidates"]]
    prevalence = validation["candidates"]["majority"]["prevalence"]
    net_benefit = dict(validation["decision_curve"])
    thresholds = net_benefit.pop("threshold")
    own = table[table["candidate"] == validation["model"]]
    classes = list(validation["classes"])
    counts = pd.crosstab(own["status"], own["called"]).reindex(index=classes, columns=classes, fill_value=0)
    means = counts.to_numpy(dtype=float) / validation["repeats"]
    marker = validation["marker"]
    title = f"{marker}: {validation['model']}, mean of the repeats"
    return [
        egfr_plots.draw_roc(curves, folder / "roc.png", marker),
        egfr_plots.draw_precision_recall(curves, prevalence, folder / "precision_recall.png", marker),
        egfr_plots.draw_calibration(curves[:2], folder / "calibration.png", marker),
        egfr_plots.draw_decision_curve(thresholds, net_benefit, folder / "decision_curve.png", marker),
        egfr_plots.draw_confusion(means, classes, title, folder / "confusion.png"),
    ]


def _curve(table: pd.DataFrame, validation: dict[str, Any], name: str) -> CandidateCurve:
    own = table[table["candidate"] == name]
    means = {"status": "first", "score": "mean", "probability": "mean"}
    patients = own.groupby("patient_id").agg(means)
    candidate = validation["candidates"][name]
    return CandidateCurve(
        name=name,
        labels=np.array(patients["status"] == validation["positive"], dtype=np.float64),
        scores=np.array(patients["score"], dtype=np.float64),
        probabilities=np.array(patients["probability"], dtype=np.float64),
        auc=(candidate["auc"]["value"], candidate["auc"]["low"], candidate["auc"]["high"]),
        auprc=candidate["auprc"],
    )
