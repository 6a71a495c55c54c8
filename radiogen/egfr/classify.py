"""Classify patients with a trained EGFR model: a probability per patient, with its range and reasons."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from radiogen.egfr.cohort import encode_clinical, number_sites
from radiogen.egfr.feature_table import RANK_MARK, FeatureTable, read_features
from radiogen.egfr.persistence import EgfrModel, load_model, seen_by
from radiogen.egfr.preprocessing import SITE
from radiogen.egfr.settings import MARKER, EgfrSettings
from radiogen.egfr.statistics import logit
from radiogen.errors import ConfigError, TableError
from radiogen.io.clinical import read_clinical
from radiogen.io.patients import find_known
from radiogen.provenance import RunRecord, write_csv
from radiogen.runtime import AnyPath, Progress, no_progress

Floats = NDArray[np.float64]
ROUNDING = 1e-9  # a smaller shift of the log odds is rounding
CHUNK_ROWS = 256  # rows of the matrix of explanations in memory at once
ANSWER_COLUMNS = ("patient_id", "probability", "low", "high", "class", "threshold", "in_distribution")
COLUMNS = (
    *ANSWER_COLUMNS,
    "distance",
    "strange_in",
    "missing",
    "moved_by",
    "note",
    "marker",
)  # predictions.csv
ABSTAINED = "abstained"
LONGEST_ID = 63  # a longer one is the hash of a scan


@dataclass(frozen=True)
class Prediction:
    """Answer for one patient: mean probability over the members, their range, class, and OOD distance."""

    probability: float
    low: float  # smallest and largest of the members: how much the answer depends on the training patients
    high: float
    called: str
    distance: float  # from the training patients; up to 1 is in distribution
    missing: int  # inputs that were not known and got the median
    inputs: int
    contributions: tuple[tuple[str, float], ...]  # input -> shift of the log odds
    farthest_block: str = ""  # the block of inputs in which the patient lies farthest away

    @property
    def in_distribution(self) -> bool:
        """Whether the patient is like those of the training, with at most half of the inputs missing."""
        return not self.strangeness

    @property
    def strangeness(self) -> str:
        """Why the patient is out of distribution, in a few words; empty if not."""
        reasons = []
        if self.distance > 1:
            block = f" in {self.farthest_block}" if self.farthest_block else ""
            reasons.append(f"unlike the patients learned from{block}, distance {self.distance:.2f}")
        if 2 * self.missing > self.inputs:
            reasons.append(f"{self.missing} of {self.inputs} inputs missing")
        return "; ".join(reasons)


def predict_one(
    model: EgfrModel, row: Floats, abstain: float = 0.0, explain: int = 0, call_all: bool = False
) -> Prediction:
    """Classify one patient alone, so that no other patient can change the number.

    Args:
        model: The trained classifier.
        row: (inputs,) in the order of config.json, NaN where unknown.
        abstain: No class is called within this distance of the threshold.
        explain: Number of inputs to name that moved the log odds most, each against the median patient.
        call_all: Call a class for a patient out of distribution too.
    """
    probabilities = _probabilities(model, row[None, :])[:, 0]
    is_expected = _expected_inputs(model, row)
    probability, threshold = float(probabilities.mean()), float(model.config["threshold"])
    negative, positive = model.config["labels"]
    called = positive if probability >= threshold else negative
    prediction = Prediction(
        probability=probability,
        low=float(probabilities.min()),
        high=float(probabilities.max()),
        called=called,
        distance=float(model.ood_detector.distance(row[None, :])[0]),
        farthest_block=model.ood_detector.farthest_block(row[None, :])[0],
        missing=int(np.isnan(row[is_expected]).sum()),
        inputs=int(is_expected.sum()),
        contributions=_contributions(model, row, explain) if explain else (),
    )
    abstains = abs(probability - threshold) < abstain or not (call_all or prediction.in_distribution)
    return replace(prediction, called=ABSTAINED) if abstains else prediction


def _expected_inputs(model: EgfrModel, row: Floats) -> NDArray[np.bool_]:
    """Return which inputs this patient can have: not those of a second lesion that is not there."""
    names = [*model.config["clinical_columns"], *model.config["feature_columns"]]
    ranks = np.array([name.rpartition(RANK_MARK)[2] if RANK_MARK in name else "" for name in names])
    is_expected = np.ones(len(row), dtype=bool)
    for rank in set(ranks) - {"", "1"}:
        here = ranks == rank
        is_expected[here] = not np.isnan(row[here]).all()
    return is_expected


def _probabilities(model: EgfrModel, rows: Floats) -> Floats:
    """Return the probability by member and row: (members, rows)."""
    return np.stack([member.predict_proba(rows)[:, 1] for member in model.members])


def _contributions(model: EgfrModel, row: Floats, count: int) -> tuple[tuple[str, float], ...]:
    """Return the inputs that move the log odds most, with the shift against the input being unknown.

    An unknown input gets the median of the training patients.
    """
    # in chunks: a thousand features would make a million cells per patient
    names = [*model.config["clinical_columns"], *model.config["feature_columns"]]
    log_odds = float(logit(_probabilities(model, row[None, :])).mean())
    shifts = np.zeros(len(row))
    for start in range(0, len(row), CHUNK_ROWS):
        columns = np.arange(start, min(start + CHUNK_ROWS, len(row)))
        rows = np.repeat(row[None, :], len(columns), axis=0)
        rows[np.arange(len(columns)), columns] = np.nan
        shifts[columns] = log_odds - logit(_probabilities(model, rows)).mean(0)
    order = np.argsort(-np.abs(shifts), kind="stable")[:count]
    return tuple((names[column], float(shifts[column])) for column in order if abs(shifts[column]) > ROUNDING)


@dataclass(frozen=True)
class Classification:
    """The predictions by patient id, and notes for the user."""

    out: Path
    predictions: dict[str, Prediction]
    notes: tuple[str, ...]
    marker: str = MARKER


def classify_egfr(
    features: AnyPath | None,
    model: AnyPath,
    out: AnyPath,
    clinical: AnyPath | None = None,
    clinical_mapping: AnyPath | None = None,
    abstain: float = 0.0,
    explain: int = 3,
    progress: Progress = no_progress,
    call_all: bool = False,
) -> Classification:
    """Write predictions.csv for the patients of a feature table.

    Each row holds the mean probability over the members of the model, the smallest and the largest of them,
    the class at the model's threshold, whether the patient is in distribution (distance up to 1, as for 95 of
    100 patients like those of the training; else the block of inputs that is farthest away), how many inputs
    were missing, and the inputs that moved the log odds most.

    Args:
        features: Feature table of the kind the model learned from; None for a clinical model.
        model: Model folder of `train_egfr`.
        out: CSV file to write.
        clinical: Clinical table; needed where the model has clinical inputs.
        clinical_mapping: YAML of `radiogen.io.clinical.ClinicalMapping`.
        abstain: No class is called within this distance of the threshold.
        explain: Number of inputs to name in a row.
        progress: Called with what is done and how much there is.
        call_all: Call a class for patients out of distribution too; without it the model abstains for them.

    Raises:
        ConfigError: `abstain` or `explain` is out of range.
        ModelError: The model folder cannot be used.
        TableError: The tables do not fit the model: a column or a patient is missing, or another extractor
            made the features.
    """
    features = None if features is None else Path(features)
    clinical = None if clinical is None else Path(clinical)
    clinical_mapping = None if clinical_mapping is None else Path(clinical_mapping)
    model, out = Path(model), Path(out)
    if not 0 <= abstain < 1:
        raise ConfigError(f"abstain {abstain}", "is not a distance of probabilities", "take 0 to 1")
    if explain < 0:
        raise ConfigError(f"explain {explain}", "is not a number of inputs", "take 0 or more")
    trained = load_model(model)
    files = [path for path in (features, clinical, clinical_mapping, model / "config.json") if path]
    options = {"abstain": abstain, "explain": explain, "call_all": call_all}
    record = RunRecord("classify-egfr", options, inputs=files)
    record.model_hash = trained.sha256
    inputs, notes, scans = _read_inputs(features, clinical, clinical_mapping, trained.config)
    predictions = {}
    for number, (patient, row) in enumerate(zip(inputs.index, inputs.to_numpy(), strict=True), start=1):
        predictions[str(patient)] = predict_one(trained, row, abstain, explain, call_all)
        progress("classify", number, len(inputs))
    # named rather than refused: a table may hold old and new patients
    known = find_known(predictions, scans, seen_by(trained))
    if known:
        notes.append(f"the model learned from {len(known)} of these patients; their numbers are too good")
    outside = sum(not prediction.in_distribution for prediction in predictions.values())
    if outside:
        answer = "their class is called all the same" if call_all else "no class is called for them"
        notes.append(f"{outside} of {len(predictions)} patients are out of distribution: {answer}")
    marker = trained.config.get("marker", MARKER)
    _write_predictions(out, predictions, float(trained.config["threshold"]), known, marker)
    record.decisions.extend(notes)
    record.finish(out)
    return Classification(out, predictions, tuple(notes), marker)


def _read_inputs(
    features: Path | None, clinical: Path | None, mapping: Path | None, config: dict[str, Any]
) -> tuple[pd.DataFrame, list[str], dict[str, list[str]]]:
    """Return the inputs of the model by patient, notes, and the hashes of the scans behind them."""
    records = read_clinical(clinical, mapping).set_index("patient_id") if clinical else None
    blocks: list[pd.DataFrame] = []
    notes: list[str] = []
    scans: dict[str, list[str]] = {}
    if config["feature_columns"]:
        if features is None:
            raise TableError("features", "are needed by this model", "give a feature table")
        block, table = _read_features(features, records, config)
        blocks.append(block)
        notes, scans = list(table.notes), table.about.get("scans", {})
    if config["clinical_columns"]:
        if clinical is None or records is None:
            names = ", ".join(config["clinical_columns"])
            raise TableError("clinical table", "is needed by this model", f"give one with {names}")
        ids = blocks[0].index if blocks else records.index.sort_values()
        absent = [str(patient) for patient in ids if patient not in records.index]
        if absent:
            raise TableError(
                clinical, f"has no row for patient {absent[0]}", "add it, empty cells are allowed"
            )
        used = tuple(config["settings"]["clinical_columns"])
        blocks.insert(0, encode_clinical(records.loc[ids], used)[config["clinical_columns"]])
    return pd.concat(blocks, axis=1).astype(np.float64), notes, scans


def _read_features(
    path: Path, records: pd.DataFrame | None, config: dict[str, Any]
) -> tuple[pd.DataFrame, FeatureTable]:
    """Return the feature columns of the model, in its order, and the table they come from."""
    names = ("classifier", "lesion", "volume_column", "id_column", "id_pattern")
    options = {name: config[name] for name in names if config.get(name)}
    table = read_features(path, EgfrSettings(**options))
    training = {"extractor": config["extractor"], "model_hash": config["features_model_hash"]}
    check_extractor(path, table.about, training)
    numbers, notes, wanted = table.features, list(table.notes), config["feature_columns"]
    if config.get("hospitals"):
        sites = [""] * len(numbers) if records is None else records["site"].reindex(numbers.index)
        numbers = numbers.assign(**{SITE: number_sites(sites, config["hospitals"])})
        unknown = int(numbers[SITE].isna().sum())
        if unknown:
            notes.append(f"{unknown} patients of a hospital that was not harmonised: left as they are")
    columns = list(numbers.columns)
    if config["lesion"] == "bag":  # these patients may have fewer lesions than those of the training
        first = {name.rpartition(RANK_MARK)[0] for name in columns}
        columns = [name for name in wanted if name.rpartition(RANK_MARK)[0] in first]
    absent = [name for name in wanted if name not in columns]
    if absent:
        more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
        raise TableError(path, f"lacks the column {absent[0]!r}{more}", "extract with the model's settings")
    if table.about.get("prompt") != config["prompt"]:
        notes.append(f"prompt {table.about.get('prompt')}, the model learned with {config['prompt']}")
    return numbers.reindex(columns=wanted), replace(table, notes=tuple(notes))


def check_extractor(path: Path | None, about: dict[str, Any], training: dict[str, Any]) -> None:
    """Check that a table was made like that of the training, by the JSON beside each.

    Raises:
        TableError: Another extractor, or another segmentation model, made the features.
    """
    for key, maker in (("extractor", "extractor"), ("model_hash", "segmentation model")):
        if training.get(key) is not None and about.get(key) != training[key]:
            raise TableError(
                path,
                f"was made by another {maker} than the features this model learned from",
                "extract again with the one of the model's training, and keep features.json beside the table",
            )


def _other_id(patient: str, known: str) -> str:
    """Return under which id, or by which scan, a model knows a patient; empty if by the same."""
    return (
        ""
        if patient == known
        else f" as {known}"
        if len(known) <= LONGEST_ID
        else ", by the voxels of the scan"
    )


def _write_predictions(
    out: Path, predictions: dict[str, Prediction], threshold: float, known: dict[str, str], marker: str
) -> None:
    rows = []
    for patient, prediction in predictions.items():
        probabilities = (prediction.probability, prediction.low, prediction.high)
        cells = (
            patient,
            *(f"{value:.6f}" for value in probabilities),
            prediction.called,
            f"{threshold:.6f}",
            "yes" if prediction.in_distribution else "no",
            f"{prediction.distance:.3f}",
            "" if prediction.distance <= 1 else prediction.farthest_block,
            prediction.missing,
            "; ".join(f"{name} {shift:+.2f}" for name, shift in prediction.contributions),
            f"learned from this patient{_other_id(patient, known[patient])}" if patient in known else "",
            marker,
        )
        rows.append(dict(zip(COLUMNS, cells, strict=True)))
    write_csv(out, COLUMNS, rows)
