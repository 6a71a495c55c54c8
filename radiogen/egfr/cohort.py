"""Join features, clinical variables and EGFR status into the cohort that a classifier learns from."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from radiogen.egfr.feature_table import (
    RANK_MARK,
    find_twins,
    read_features,
    read_perturbed,
)
from radiogen.egfr.own_features import first_names
from radiogen.egfr.settings import EgfrSettings
from radiogen.egfr.status import compare_ids, join_status, read_records
from radiogen.errors import TableError
from radiogen.io.clinical import CLINICAL_COLUMNS
from radiogen.io.patients import doubled_patients, find_known, name_pair

OUTSIDE_PREFIX = "outside_"  # columns of lung outside the lesions, a negative control

# Numbers made from a clinical column: name of the number -> the word that is 1, or None for the value itself.
ENCODING: dict[str, dict[str, str | None]] = {
    "age": {"age": None},
    "sex": {"sex_female": "female"},
    "smoking": {"smoking_never": "never", "smoking_current": "current"},
    "pack_years": {"pack_years": None},
    "histology": {"histology_adenocarcinoma": "adenocarcinoma"},
    "ethnicity": {"ethnicity_asian": "asian"},
}


@dataclass(frozen=True)
class EgfrCohort:
    """Patients with known status: labels (1 is the positive class), features, clinical numbers, hospital.

    The tables have one row per patient, in the sorted order of the ids. A table may have no columns.
    `outside` are the features of lung outside the lesions, a negative control that no model gets.
    """

    patients: tuple[str, ...]
    labels: NDArray[np.int64]
    label_names: tuple[str, str]  # of 0 and of 1
    features: pd.DataFrame
    clinical: pd.DataFrame
    sites: tuple[str, ...]
    histology: tuple[str, ...]
    outside: pd.DataFrame = field(default_factory=pd.DataFrame)
    perturbed: NDArray[np.float64] | None = None  # (patients, repeats, features) under perturbed masks
    volume_column: str = "shape_volume_ml"
    about: dict[str, Any] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def scans(self) -> dict[str, list[str]]:
        """Hashes of the scans of each patient, where the features say them."""
        known = self.about.get("scans", {})
        return {patient: known[patient] for patient in self.patients if patient in known}

    def patients_among(self, seen: Sequence[str]) -> dict[str, str]:
        """Return the patients that others know, by id or by scan: id -> what they are known by there."""
        return find_known(self.patients, self.scans, seen)

    @property
    def hospitals(self) -> list[str]:
        """The known hospitals; the position in the list is a hospital's number."""
        return sorted(set(self.sites) - {""})

    @property
    def class_counts(self) -> dict[str, int]:
        """Number of patients of each class, by its name."""
        return {name: int((self.labels == number).sum()) for number, name in enumerate(self.label_names)}


def read_cohort(features: Path | None, clinical: Path | None, settings: EgfrSettings) -> EgfrCohort:
    """Read and join the tables; patients of unknown status are counted and left out.

    Raises:
        TableError: A table does not fit, no status is known, or two tables disagree on a status.
    """
    table = read_features(features, settings) if features else None
    has_labels = bool(table and table.labels)
    records = read_records(clinical, settings, has_labels) if clinical else None
    if table is not None:
        ids, numbers = table.features.index, table.features
    elif records is not None:
        ids = records.index.sort_values()
        numbers = pd.DataFrame(index=ids)
    else:
        raise TableError("tables", "there is neither a feature nor a clinical one", "give one of them")
    clinical_rows = pd.DataFrame() if records is None else records
    rows = clinical_rows.reindex(index=ids, columns=list(CLINICAL_COLUMNS[1:])).astype(object)
    notes = list(table.notes if table else ())
    if table is not None and clinical is not None and records is not None:
        notes += compare_ids(features, ids, clinical, records.index)
    status, names = join_status(features or clinical, table.labels if table else {}, rows["egfr"], settings)
    numbers, notes = _drop_empty(features, numbers, notes)
    if table is not None and table.about.get("patients_seen") is None:
        notes.append("whom the segmentation model learned from is not known: it may have seen these patients")
    reasons = _find_unusable(numbers, status, notes)
    kept = reasons.index[reasons == ""]
    left_out = {str(reason): int(count) for reason, count in reasons.value_counts().items() if reason}
    if records is not None and table is not None:
        left_out["in the clinical table without features"] = int((~records.index.isin(ids)).sum())
    # split off before anything is built, so that the negative control never becomes an input
    own = [name for name in numbers.columns if not str(name).startswith(OUTSIDE_PREFIX)]
    chosen = numbers.loc[kept, own]
    return EgfrCohort(
        patients=tuple(kept),
        labels=status[kept].to_numpy(dtype=np.int64),
        label_names=names,
        features=chosen,
        outside=numbers.loc[kept].drop(columns=own),
        perturbed=read_perturbed(features, chosen, settings) if features and settings.stable else None,
        volume_column=(table.volume_column if table else "")
        + (f"{RANK_MARK}1" if settings.lesion == "bag" else ""),
        clinical=_varying(encode_clinical(rows.loc[kept], settings.clinical_columns)),
        sites=tuple(rows.loc[kept, "site"].fillna("")),
        histology=tuple(rows.loc[kept, "histology"].fillna("")),
        about=table.about if table else {},
        left_out={reason: count for reason, count in left_out.items() if count},
        notes=tuple(notes),
    )


def _drop_empty(path: Path | None, numbers: pd.DataFrame, notes: list[str]) -> tuple[pd.DataFrame, list[str]]:
    empty = [str(name) for name in numbers.columns[numbers.isna().all()]]
    if empty:
        notes = [*notes, f"{len(empty)} columns without a value left out: {first_names(empty)}"]
    kept = numbers.drop(columns=empty)
    if path is not None and not (kept.nunique() > 1).any():
        raise TableError(path, "has no feature column that varies", "give a table with number columns")
    return kept, notes


def _find_unusable(numbers: pd.DataFrame, status: pd.Series, notes: list[str]) -> pd.Series:
    """Return the reason why each patient cannot be used, "" where there is none."""
    reasons = pd.Series("", index=status.index)
    if numbers.shape[1]:
        reasons[numbers.isna().all(axis=1)] = "without any feature"
    twins = dict.fromkeys(find_twins(numbers), "nearly equal features")
    twins |= dict.fromkeys(doubled_patients(list(map(str, status.index))), "ids that read as one patient")
    for (first, later), why in twins.items():
        # most likely one patient under two ids, who would stand in training and test
        if status[first] != status[later] and not status[[first, later]].isna().any():
            raise TableError(
                f"patients {first} and {later}", f"have {why}, and not one status", "correct one"
            )
        reasons[later] = "under a second id"
    if twins:
        some = [f"{later} is {first} ({why})" for (first, later), why in list(twins.items())[:5]]
        notes.append(f"{len(twins)} pairs of ids are of one patient: {first_names(some)}")
    reasons[status.isna()] = "without a known status"
    return reasons


def check_overlap(features: Path | None, cohort: EgfrCohort, allowed: bool) -> int | None:
    """Return how many patients the segmentation model of the features was trained on; None if unknown.

    Its features of a training patient would be too good in that patient's test fold.

    Raises:
        TableError: There are some, and they are not allowed.
    """
    if cohort.about.get("patients_seen") is None:
        return None
    overlap = cohort.patients_among([*cohort.about["patients_seen"], *cohort.about.get("scans_seen", ())])
    if overlap and not allowed:
        first = name_pair(*next(iter(overlap.items())))
        raise TableError(
            features,
            f"its segmentation model was trained on {len(overlap)} of these patients ({first}, ...)",
            "extract with a model that saw other patients, or take --allow-overlap, which marks the report",
        )
    return len(overlap)


def number_sites(sites: Iterable[Any], hospitals: Sequence[str]) -> list[float]:
    """Return the number of each patient's hospital, NaN where it is not one of them."""
    numbers = {name: float(number) for number, name in enumerate(hospitals)}
    return [numbers.get(str(site), math.nan) for site in sites]


def encode_clinical(rows: pd.DataFrame, columns: tuple[str, ...]) -> pd.DataFrame:
    """Return clinical words as numbers, each from its own row alone; NaN where unknown."""
    encoded = {}
    for column in columns:
        for name, word in ENCODING[column].items():
            if word is None:
                encoded[name] = rows[column].astype(float)
            else:
                words = rows[column].fillna("")
                encoded[name] = (words == word).astype(float).mask(words == "")
    return pd.DataFrame(encoded, index=rows.index, dtype=float)


def _varying(numbers: pd.DataFrame) -> pd.DataFrame:
    return numbers.loc[:, numbers.nunique() > 1]
