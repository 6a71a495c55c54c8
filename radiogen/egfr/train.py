"""Train the EGFR classifier, judge it beside what it must beat, and write its model folder."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from radiogen.egfr.candidates import Candidate, list_candidates
from radiogen.egfr.card import write_card
from radiogen.egfr.classifiers import CLASSIFIERS
from radiogen.egfr.cohort import EgfrCohort, check_overlap, read_cohort
from radiogen.egfr.external import ExternalJudgement, check_external, judge_external, judge_sites
from radiogen.egfr.judgement import NOTE, increment, summarise, write_out_of_fold
from radiogen.egfr.ood import Familiarity
from radiogen.egfr.persistence import save_model
from radiogen.egfr.plots import plot_validation
from radiogen.egfr.settings import EgfrSettings
from radiogen.egfr.statistics import Difference, Estimate
from radiogen.egfr.tuning import draw_folds
from radiogen.egfr.validation import Judging, OutOfFold, judge
from radiogen.provenance import RunRecord, record_path, remove_if_refused, write_json
from radiogen.runtime import Progress, no_progress, pick_device


@dataclass(frozen=True)
class EgfrTraining:
    """What came out: the model folder and the figures that count."""

    folder: Path
    patients: int
    positives: int
    auc: Estimate  # of the model
    increment: Difference | None  # clinical + features over clinical; None without one of them
    permutation_p: float | None
    validation: dict[str, Any]  # all of validation.json
    notes: tuple[str, ...]
    external: ExternalJudgement | None = None


@dataclass(frozen=True)
class SecondCohort:
    """Tables of patients that nothing is learned from."""

    features: Path | None
    clinical: Path | None


def train_egfr(
    features: Path | None,
    out: Path,
    clinical: Path | None = None,
    settings: EgfrSettings = EgfrSettings(),  # noqa: B008 - frozen
    progress: Progress = no_progress,
    external: SecondCohort | None = None,
) -> EgfrTraining:
    """Train and judge a classifier of EGFR status.

    Writes to `out`: pipeline.skops (and head.safetensors with head.json), config.json, validation.json,
    oof.csv, MODEL_CARD.md, pictures, `external/` for a second cohort, and last the run record. Finished folds
    are kept in a hidden folder beside `out` until then, so that a killed run goes on.

    Args:
        features: Feature table, one row a lesion; None for a model of clinical variables alone.
        out: Folder to write.
        clinical: Clinical table; without it the feature table must hold the status.
        settings: How.
        progress: Called with what is done and how much there is.
        external: A second cohort, on which the finished model is judged too.

    Raises:
        DeviceError: The device is not there.
        TableError: A table that does not fit, too few patients, or features of a model that saw the patients.
    """
    pick_device(settings.device)
    inputs = [path for path in (features, clinical, settings.clinical_mapping) if path]
    record = RunRecord("train-egfr", settings.options(), settings.seed, inputs)
    cohort = read_cohort(features, clinical, settings)
    overlap = check_overlap(features, cohort, settings.allow_overlap)
    candidates = list_candidates(cohort, settings)
    if external:
        check_external(external.features, external.clinical, settings, cohort)
    folds = draw_folds(cohort.patients, cohort.labels, settings.folds, settings.repeats, settings.seed)
    parts = out.with_name(f".{out.name}.folds")  # finished folds, for a run that is killed
    how = Judging(settings.seed, settings.jobs, parts, settings.inputs)
    with remove_if_refused(parts):
        outcomes = judge(candidates.values(), cohort.labels, folds, how, progress)
    sites = judge_sites(candidates[settings.inputs], outcomes[settings.inputs], cohort, settings)
    validation = summarise(cohort, candidates, outcomes, settings, overlap, sites, how, progress)
    model = candidates[settings.inputs]
    familiarity = Familiarity(blocks=_blocks_of(model)).fit(model.inputs)
    config = _describe_model(cohort, model, outcomes[model.name], overlap)
    if out.is_dir():
        record_path(out).unlink(missing_ok=True)  # an old record must not vouch for a half-written folder
    files = save_model(out, outcomes[model.name].models, familiarity, config)
    write_json(out / "validation.json", validation)
    write_out_of_fold(out / "oof.csv", cohort, outcomes)
    second = None
    if external:
        second = judge_external(
            external.features, out, out / "external", external.clinical, settings, progress
        )
    write_card(out / "MODEL_CARD.md", config, validation, second.figures if second else None)
    files += [out / name for name in ("validation.json", "oof.csv", "MODEL_CARD.md")]
    files += plot_validation(out)
    record.decisions.extend(validation["notes"])
    record.finish(out, files)
    shutil.rmtree(parts, ignore_errors=True)
    test = validation["permutation"]
    return EgfrTraining(
        folder=out,
        patients=len(cohort.patients),
        positives=int(cohort.labels.sum()),
        auc=Estimate(**validation["candidates"][model.name]["auc"]),
        increment=increment(outcomes, cohort.labels),
        permutation_p=test["p"] if test else None,
        validation=validation,
        notes=tuple(validation["notes"]),
        external=second,
    )


def _blocks_of(model: Candidate) -> list[str]:
    """The block of each input: clinical, or the part of a feature's name before the first underscore."""
    return [
        *("clinical" for _ in model.clinical_columns),
        *(name.partition("_")[0] for name in model.feature_columns),
    ]


def _describe_model(
    cohort: EgfrCohort, model: Candidate, said: OutOfFold, overlap: int | None
) -> dict[str, Any]:
    thresholds = [member.threshold_ for member in said.models]
    settings, about = model.settings, cohort.about
    name = "logistic" if model.baseline else settings.classifier
    return {
        "kind": "egfr",
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
        "volume_column": settings.volume_column,
        "id_column": settings.id_column,
        "extractor": about.get("extractor"),
        "features_model_hash": about.get("model_hash"),
        "prompt": about.get("prompt"),
        "patients_seen": list(cohort.patients),
        "overlap_with_segmentation_training": overlap,
        "settings": settings.options(),
    }
