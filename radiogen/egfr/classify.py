"""Apply a trained EGFR classifier to a feature table: a probability a patient, with its range."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from radiogen.egfr.cohort import encode_clinical, number_sites
from radiogen.egfr.feature_table import PLACE, read_features
from radiogen.egfr.harmonise import SITE
from radiogen.egfr.persistence import EgfrModel, load_model
from radiogen.egfr.settings import EgfrSettings
from radiogen.egfr.statistics import logit
from radiogen.errors import ConfigError, TableError
from radiogen.io.clinical import read_clinical
from radiogen.provenance import RunRecord, write_csv
from radiogen.runtime import Progress, no_progress

Floats = NDArray[np.float64]
ROUNDING = 1e-9  # a smaller shift is none
CHUNK = 256  # rows of the explaining matrix held at once


@dataclass(frozen=True)
class Prediction:
    """One patient's answer: mean probability over the members, their range, class, and how familiar."""

    probability: float
    low: float  # smallest and largest of the members: how much the answer hangs on who was learned from
    high: float
    called: str
    distance: float  # up to 1 is familiar
    missing: int  # inputs that were not known and got the median
    inputs: int
    contributions: tuple[tuple[str, float], ...]  # input -> shift of the log odds
    strangest: str = ""  # the block of inputs in which the patient lies farthest away

    @property
    def in_distribution(self) -> bool:
        """Whether the patient looks like those learned from, with at most half of the inputs missing."""
        return self.distance <= 1 and 2 * self.missing <= self.inputs


def predict_one(model: EgfrModel, row: Floats, abstain: float = 0.0, explain: int = 0) -> Prediction:
    """Ask all members about one patient, alone, so that no other patient can change the number.

    Args:
        model: The trained classifier.
        row: (inputs,) in the order of config.json, NaN where unknown.
        abstain: No class is called within this distance of the threshold.
        explain: So many inputs are named that moved the log odds most, each against the median patient.
    """
    said = _probabilities(model, row[None, :])[:, 0]
    asked = _asked(model, row)
    probability, threshold = float(said.mean()), float(model.config["threshold"])
    negative, positive = model.config["labels"]
    called = positive if probability >= threshold else negative
    if abs(probability - threshold) < abstain:
        called = "abstained"
    return Prediction(
        probability=probability,
        low=float(said.min()),
        high=float(said.max()),
        called=called,
        distance=float(model.familiarity.distance(row[None, :])[0]),
        strangest=model.familiarity.strangest(row[None, :])[0],
        missing=int(np.isnan(row[asked]).sum()),
        inputs=int(asked.sum()),
        contributions=_contributions(model, row, explain) if explain else (),
    )


def _asked(model: EgfrModel, row: Floats) -> NDArray[np.bool_]:
    """The inputs that this patient can have: not those of a second lesion where there is one."""
    names = [*model.config["clinical_columns"], *model.config["feature_columns"]]
    places = np.array([name.rpartition(PLACE)[2] if PLACE in name else "" for name in names])
    asked = np.ones(len(row), dtype=bool)
    for place in set(places) - {"", "1"}:
        here = places == place
        asked[here] = not np.isnan(row[here]).all()
    return asked


def _probabilities(model: EgfrModel, rows: Floats) -> Floats:
    return np.stack([member.predict_proba(rows)[:, 1] for member in model.members])


def _contributions(model: EgfrModel, row: Floats, count: int) -> tuple[tuple[str, float], ...]:
    """Log odds with each input as it is, minus the log odds with it unknown (the median of the patients)."""
    names = [*model.config["clinical_columns"], *model.config["feature_columns"]]
    here = float(logit(_probabilities(model, row[None, :])).mean())
    shifts = np.zeros(len(row))
    for start in range(0, len(row), CHUNK):
        columns = np.arange(start, min(start + CHUNK, len(row)))
        rows = np.repeat(row[None, :], len(columns), axis=0)
        rows[np.arange(len(columns)), columns] = np.nan
        shifts[columns] = here - logit(_probabilities(model, rows)).mean(0)
    order = np.argsort(-np.abs(shifts), kind="stable")[:count]
    return tuple((names[column], float(shifts[column])) for column in order if abs(shifts[column]) > ROUNDING)


COLUMNS = ("patient_id", "probability", "low", "high", "class", "threshold", "in_distribution", "distance")
EXTRA_COLUMNS = ("strange_in", "missing", "moved_by", "note")


@dataclass(frozen=True)
class Classification:
    """The answers by patient id, and what has to be said about them."""

    out: Path
    predictions: dict[str, Prediction]
    notes: tuple[str, ...]


def classify_egfr(
    features: Path | None,
    model: Path,
    out: Path,
    clinical: Path | None = None,
    clinical_mapping: Path | None = None,
    abstain: float = 0.0,
    explain: int = 3,
    progress: Progress = no_progress,
) -> Classification:
    """Write predictions.csv for the patients of a feature table.

    Each row holds the mean probability over the members of the model, the smallest and the largest of them,
    the class at the model's threshold, whether the patient looks like those it learned from (distance up to
    1, as 95 of 100 such patients have; beyond it, in which block of inputs), how many inputs were missing,
    and the inputs that moved the log odds most.

    Args:
        features: Feature table of the kind the model learned from; None for a clinical model.
        model: Model folder of `train_egfr`.
        out: CSV file to write.
        clinical: Clinical table; needed where the model has clinical inputs.
        clinical_mapping: YAML of `radiogen.io.clinical.ClinicalMapping`.
        abstain: No class is called within this distance of the threshold.
        explain: How many inputs are named.
        progress: Called with what is done and how much there is.

    Raises:
        ModelError: The model folder cannot be used.
        TableError: The tables do not fit the model: a column or a patient is missing, another extractor.
    """
    if not 0 <= abstain < 1 or explain < 0:
        raise ConfigError(
            f"abstain {abstain}, explain {explain}", "cannot be used", "take 0 to 1, and 0 or more"
        )
    trained = load_model(model)
    given = [path for path in (features, clinical, clinical_mapping, model / "config.json") if path]
    record = RunRecord("classify-egfr", {"abstain": abstain, "explain": explain}, inputs=given)
    record.model_hash = trained.sha256
    inputs, notes = _read_inputs(features, clinical, clinical_mapping, trained.config)
    predictions = {}
    for number, (patient, row) in enumerate(zip(inputs.index, inputs.to_numpy(), strict=True), start=1):
        predictions[str(patient)] = predict_one(trained, row, abstain, explain)
        progress("classify", number, len(inputs))
    known = sorted(set(predictions) & set(trained.config["patients_seen"]))
    if known:
        notes.append(f"the model learned from {len(known)} of these patients; their numbers flatter it")
    strange = sum(not each.in_distribution for each in predictions.values())
    if strange:
        notes.append(f"{strange} of {len(predictions)} patients do not look like those learned from")
    _write(out, predictions, float(trained.config["threshold"]), set(known))
    record.decisions.extend(notes)
    record.finish(out)
    return Classification(out, predictions, tuple(notes))


def _read_inputs(
    features: Path | None, clinical: Path | None, mapping: Path | None, config: dict[str, Any]
) -> tuple[pd.DataFrame, list[str]]:
    records = read_clinical(clinical, mapping).set_index("patient_id") if clinical else None
    blocks: list[pd.DataFrame] = []
    notes: list[str] = []
    if config["feature_columns"]:
        if features is None:
            raise TableError("features", "are needed by this model", "give a feature table")
        block, notes = _read_features(features, records, config)
        blocks.append(block)
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
    return pd.concat(blocks, axis=1).astype(np.float64), notes


def _read_features(
    path: Path, records: pd.DataFrame | None, config: dict[str, Any]
) -> tuple[pd.DataFrame, list[str]]:
    """The feature columns that the model wants, in its order, and what has to be said of them."""
    how = {name: config[name] for name in ("classifier", "lesion", "volume_column", "id_column")}
    table = read_features(path, EgfrSettings(**how))
    learned = {"extractor": config["extractor"], "model_hash": config["features_model_hash"]}
    check_extractor(path, table.about, learned)
    numbers, notes, wanted = table.features, list(table.notes), config["feature_columns"]
    if config.get("hospitals"):
        sites = [""] * len(numbers) if records is None else records["site"].reindex(numbers.index)
        numbers = numbers.assign(**{SITE: number_sites(sites, config["hospitals"])})
        unknown = int(numbers[SITE].isna().sum())
        notes += [f"{unknown} patients of a hospital that was not harmonised: left as they are"] * (
            unknown > 0
        )
    columns = list(numbers.columns)
    if config["lesion"] == "bag":  # fewer lesions than the model has places for are no fault
        first = {name.rpartition(PLACE)[0] for name in columns}
        columns = [name for name in wanted if name.rpartition(PLACE)[0] in first]
    absent = [name for name in wanted if name not in columns]
    if absent:
        more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
        raise TableError(path, f"lacks the column {absent[0]!r}{more}", "extract with the model's settings")
    if table.about.get("prompt") != config["prompt"]:
        notes.append(f"prompt {table.about.get('prompt')}, the model learned with {config['prompt']}")
    return numbers.reindex(columns=wanted), notes


def check_extractor(path: Path | None, about: dict[str, Any], learned: dict[str, Any]) -> None:
    """See that two tables were made alike, by what stands beside them.

    Raises:
        TableError: Another extractor, or features of another segmentation model.
    """
    for name, what in (("extractor", "extractor"), ("model_hash", "segmentation model")):
        if learned.get(name) is not None and about.get(name) != learned[name]:
            raise TableError(
                path,
                f"was made by another {what} than the features this model learned from",
                "extract again with the one of the model's training, and keep features.json beside the table",
            )


def _write(out: Path, predictions: dict[str, Prediction], threshold: float, known: set[str]) -> None:
    columns, rows = (*COLUMNS, *EXTRA_COLUMNS), []
    for patient, said in predictions.items():
        cells = (
            patient,
            *(f"{value:.6f}" for value in (said.probability, said.low, said.high)),
            said.called,
            f"{threshold:.6f}",
            "yes" if said.in_distribution else "no",
            f"{said.distance:.3f}",
            "" if said.distance <= 1 else said.strangest,
            said.missing,
            "; ".join(f"{name} {shift:+.2f}" for name, shift in said.contributions),
            "learned from this patient" if patient in known else "",
        )
        rows.append(dict(zip(columns, cells, strict=True)))
    write_csv(out, columns, rows)
