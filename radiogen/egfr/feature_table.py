"""Read a feature table, one row a lesion, and make it one row a patient."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.utils.validation import check_is_fitted, validate_data

from radiogen.egfr.settings import EgfrSettings
from radiogen.errors import TableError
from radiogen.io.tables import read_text_table

Floats = NDArray[np.float64]
MOST = 16  # instances of a patient; of more the largest stay
PLACE = "@"  # `shape_volume_ml@1` is the volume of the largest lesion


def spread_out(
    rows: pd.DataFrame, ids: pd.Series, volume: pd.Series | None, most: int = MOST
) -> pd.DataFrame:
    """Rows of several lesions a patient as one row with the columns `name@1`, `name@2`, ..., largest first.

    Args:
        rows: Float columns, one row an instance.
        ids: Patient of each row.
        volume: What they are ordered by; None keeps the order of the rows.
        most: Instances that stay.
    """
    size = volume if volume is not None else pd.Series(0.0, index=rows.index)
    order = pd.DataFrame({"patient": ids, "size": -size, "row": np.arange(len(rows))})
    order = order.sort_values(["patient", "size", "row"])
    order["place"] = order.groupby("patient").cumcount() + 1
    order = order[order["place"] <= most]
    parts = []
    for place, here in order.groupby("place"):
        part = rows.loc[here.index].set_axis(pd.Index(here["patient"], name="patient_id"))
        parts.append(part.add_suffix(f"{PLACE}{place}"))
    return pd.concat(parts, axis=1).sort_index()


def places_of(columns: tuple[str, ...]) -> int:
    """How many instances the columns of `spread_out` hold; 1 for others."""
    return max((int(name.rpartition(PLACE)[2]) for name in columns if PLACE in name), default=1)


class EachInstance(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Learns a transformer from all instances of all samples and applies it to each of them.

    Args:
        transformer: What is applied; a target is repeated for each instance of a sample.
        instances: Instances in a row; one whose numbers are all missing is not there and stays missing.
    """

    def __init__(self, transformer: Any = None, instances: int = 1) -> None:
        self.transformer = transformer
        self.instances = instances

    def fit(self, X: Any, y: Any = None) -> Self:
        X = validate_data(self, X, dtype=np.float64, ensure_all_finite="allow-nan")
        rows, there = self._split(X)
        labels = None if y is None else np.repeat(np.asarray(y), self.instances)[there]
        self.transformer_ = clone(self.transformer).fit(rows[there], labels)
        return self

    def transform(self, X: Any) -> Floats:
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, ensure_all_finite="allow-nan", reset=False)
        rows, there = self._split(X)
        if not there.any():
            there[0] = True  # something must be transformed to know the width
        seen = np.asarray(self.transformer_.transform(rows[there]), dtype=np.float64)
        found = np.full((len(rows), seen.shape[1]), np.nan)
        found[there] = seen
        result: Floats = found.reshape(len(X), -1)
        return result

    def _split(self, X: Floats) -> tuple[Floats, NDArray[np.bool_]]:
        if X.shape[1] % self.instances:
            raise ValueError(f"{X.shape[1]} columns are not {self.instances} instances")
        rows = X.reshape(len(X) * self.instances, -1)
        return rows, np.asarray(~np.isnan(rows).all(axis=1))


KEYS = ("case_id", "patient_id", "lesion", "patch", "cohort", "split", "egfr")
MISSING = ("", "nan", "NaN", "NA", "None", "null")
LARGEST = 1e100  # beyond it squares overflow
TWIN_FEATURES = 5  # so many equal measurements do not happen to two patients by chance


@dataclass(frozen=True)
class FeatureTable:
    """Features of patients: float columns indexed by patient id in sorted order, and where they are from."""

    features: pd.DataFrame
    labels: dict[str, str]  # what the table itself says, patient by patient; empty if it says nothing
    about: dict[str, Any] = field(default_factory=dict)  # features.json
    notes: tuple[str, ...] = ()


def read_features(path: Path, settings: EgfrSettings) -> FeatureTable:
    """Read a feature table and join the lesions of each patient.

    A table of radiogen has the columns case_id, patient_id, lesion, and numbers; its features.json is read if
    it lies beside. A foreign one is named by `id_column` (and `label_column`): there columns that are not
    numbers are left out and said. Of several lesions the largest by `volume_column` stands for the patient,
    or the mean of all, or all of them side by side (`bag`).

    Raises:
        TableError: No id column, no feature, a cell that is not a number, a lesion twice, several lesions
            without a volume, two labels for one patient, or columns other than features.json says.
    """
    raw = read_text_table(path)
    id_column = settings.id_column or "patient_id"
    if id_column not in raw.columns:
        raise TableError(path, f"has no column {id_column!r}", "name the column of patient ids: id_column")
    if settings.label_column and settings.label_column not in raw.columns:
        raise TableError(path, f"has no column {settings.label_column!r}", "correct label_column")
    notes: list[str] = []
    known = raw[~raw[id_column].isin(MISSING)]
    if len(known) < len(raw):
        notes.append(f"{len(raw) - len(known)} rows without a patient id left out")
    lesion_keys = [name for name in (id_column, "case_id", "lesion", "patch") if name in raw.columns]
    known = known.sort_values(lesion_keys)
    _check_doubled(path, known, lesion_keys)
    keys = {*KEYS, id_column, settings.label_column}
    names = [name for name in known.columns if name and name not in keys]
    about = _read_about(path, names)
    numbers = _read_numbers(path, known[names], settings.id_column is not None, notes)
    features = _join_lesions(path, numbers, known[id_column], settings, notes)
    return FeatureTable(features, _read_labels(path, known, id_column, settings), about, tuple(notes))


def _check_doubled(path: Path, table: pd.DataFrame, keys: list[str]) -> None:
    doubled = table[table.duplicated(keys)]
    if len(doubled):
        first = " ".join(f"{name} {doubled.iloc[0][name]}" for name in keys)
        raise TableError(path, f"{first} stands in two rows", "remove one of them")


def _read_about(path: Path, names: list[str]) -> dict[str, Any]:
    beside = path.with_suffix(".json")
    if not beside.is_file():
        return {}
    try:
        about: dict[str, Any] = json.loads(beside.read_text(encoding="utf-8"))
        version, columns = about["schema_version"], about["columns"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TableError(beside, "does not describe a feature table", "extract the features again") from error
    if version != 1:
        raise TableError(beside, f"has schema version {version}", "extract the features with this radiogen")
    stranger = next((name for name in names if name not in columns), None)
    absent = next((name for name in columns if name not in names and name not in KEYS), None)
    if stranger or absent:
        wrong = f"{'lacks' if stranger else 'names'} the column {stranger or absent!r} of {path.name}"
        raise TableError(beside, wrong if stranger else f"{wrong}, which is not there", "extract again")
    return about


def _read_numbers(path: Path, cells: pd.DataFrame, foreign: bool, notes: list[str]) -> pd.DataFrame:
    blank = cells.isin(MISSING)
    numbers = cells.mask(blank).apply(pd.to_numeric, errors="coerce").astype(float)
    wrong = (numbers.isna() & ~blank).to_numpy() | (numbers.abs() > LARGEST).to_numpy()
    if wrong.any() and not foreign:
        row, column = np.argwhere(wrong)[0]
        raise TableError(
            path,
            f"row {cells.index[row] + 2}, {cells.columns[column]}: {cells.iloc[row, column]!r} is no number",
            "leave the cell empty, or name the id_column of a foreign table",
        )
    texts = [name for name, bad in zip(cells.columns, wrong.any(0), strict=True) if bad]
    if texts:
        notes.append(f"{len(texts)} columns that are not numbers left out: {name_some(texts)}")
    kept: pd.DataFrame = numbers.drop(columns=texts)
    return kept


def name_some(names: list[str]) -> str:
    """The first five names.

    >>> name_some(list("abcdefg"))
    'a, b, c, d, e, ...'
    """
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def _join_lesions(
    path: Path, numbers: pd.DataFrame, ids: pd.Series, settings: EgfrSettings, notes: list[str]
) -> pd.DataFrame:
    several = int((ids.value_counts() > 1).sum())
    volume = settings.volume_column
    if settings.lesion == "bag":
        notes.append(f"{several} patients with several lesions: pooled by attention")
        return spread_out(numbers, ids, numbers[volume] if volume in numbers.columns else None)
    if not several:
        return numbers.set_axis(pd.Index(ids, name="patient_id")).sort_index()
    notes.append(f"{several} patients with several lesions: {settings.lesion}")
    if settings.lesion == "mean":
        means: pd.DataFrame = numbers.groupby(ids.to_numpy()).mean()
        return means.rename_axis("patient_id")
    if volume not in numbers.columns:
        raise TableError(path, f"has several rows a patient and no column {volume}", "take lesion=mean")
    order = pd.DataFrame({"patient_id": ids, "volume": -numbers[volume], "row": np.arange(len(ids))})
    order = order.sort_values(["patient_id", "volume", "row"]).drop_duplicates("patient_id")
    return numbers.iloc[order["row"]].set_axis(pd.Index(order["patient_id"]))


def _read_labels(path: Path, table: pd.DataFrame, id_column: str, settings: EgfrSettings) -> dict[str, str]:
    column = settings.label_column or ("egfr" if "egfr" in table.columns else None)
    if column is None:
        return {}
    said = table[[id_column, column]].drop_duplicates()
    twice = said[said[id_column].duplicated()]
    if len(twice):
        raise TableError(path, f"patient {twice.iloc[0][id_column]} has two values of {column}", "correct it")
    return {str(patient): str(label) for patient, label in said.itertuples(index=False)}


def find_twins(features: pd.DataFrame) -> list[tuple[str, str]]:
    """Patients of different ids whose features are all equal, as pairs (first, later)."""
    varying = features.loc[:, features.nunique() > 1]
    if varying.shape[1] < TWIN_FEATURES:
        return []
    firsts: dict[bytes, str] = {}
    pairs = []
    for patient, row in zip(varying.index, varying.to_numpy(), strict=True):
        key = row.tobytes()
        if np.isnan(row).all():
            continue
        if key in firsts:
            pairs.append((firsts[key], str(patient)))
        firsts.setdefault(key, str(patient))
    return pairs
