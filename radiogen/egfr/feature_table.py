"""Read a feature table with one row per lesion, and turn it into one row per patient."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from radiogen.egfr.settings import EgfrSettings
from radiogen.errors import TableError
from radiogen.features.perturb import perturbed_path
from radiogen.io.tables import read_text_table

Floats = NDArray[np.float64]
KEYS = ("case_id", "patient_id", "lesion", "patch", "cohort", "split", "egfr")  # columns that are no features
LESION_KEYS = ["patient_id", "case_id", "lesion"]
MISSING = ("", "nan", "NaN", "NA", "None", "null")
LARGEST_NUMBER = 1e100  # beyond it squares overflow
MAX_INSTANCES = 16  # lesions or patches of a patient in a bag; of more the largest are kept
RANK_MARK = "@"  # `shape_volume_ml@1` is the volume of the largest lesion
TWIN_FEATURES = 5  # so many equal measurements do not happen to two patients by chance


@dataclass(frozen=True)
class FeatureTable:
    """Features of patients: float columns, one row per patient in the sorted order of the patient ids."""

    features: pd.DataFrame
    labels: dict[str, str]  # EGFR status by patient id as the table gives it; empty if it gives none
    about: dict[str, Any] = field(default_factory=dict)  # content of features.json
    notes: tuple[str, ...] = ()


def read_features(path: Path, settings: EgfrSettings) -> FeatureTable:
    """Read a feature table and combine the lesions of each patient.

    A table of radiogen has the columns case_id, patient_id, lesion, and numbers; its features.json is read if
    it lies beside. A foreign table is read with `id_column` (and `label_column`): its columns that are not
    numbers are left out with a note. Of several lesions the largest by `volume_column` represents the
    patient, or the mean of all, or all of them side by side (`bag`).

    Raises:
        TableError: There is no id column or no feature, a cell is not a number, a lesion appears in two rows,
            there are several lesions but no volume, one patient has two labels, or the columns differ from
            features.json.
    """
    table = read_text_table(path)
    id_column = settings.id_column or "patient_id"
    if id_column not in table.columns:
        raise TableError(path, f"has no column {id_column!r}", "name the column of patient ids: id_column")
    if settings.label_column and settings.label_column not in table.columns:
        raise TableError(path, f"has no column {settings.label_column!r}", "correct label_column")
    notes: list[str] = []
    known = table[~table[id_column].isin(MISSING)]
    if len(known) < len(table):
        notes.append(f"{len(table) - len(known)} rows without a patient id left out")
    lesion_keys = [name for name in (id_column, "case_id", "lesion", "patch") if name in table.columns]
    known = known.sort_values(lesion_keys)
    _check_duplicates(path, known, lesion_keys)
    keys = {*KEYS, id_column, settings.label_column}
    names = [name for name in known.columns if name and name not in keys]
    about = _read_about(path, names)
    numbers = _read_numbers(path, known[names], settings.id_column is not None, notes)
    features = _combine_lesions(path, numbers, known[id_column], settings, notes)
    return FeatureTable(features, _read_labels(path, known, id_column, settings), about, tuple(notes))


def _check_duplicates(path: Path, table: pd.DataFrame, keys: list[str]) -> None:
    duplicates = table[table.duplicated(keys)]
    if len(duplicates):
        first = " ".join(f"{name} {duplicates.iloc[0][name]}" for name in keys)
        raise TableError(path, f"{first} appears in two rows", "remove one of them")


def _read_about(path: Path, names: list[str]) -> dict[str, Any]:
    """Read the JSON beside a table and check that it names the same features; {} without one."""
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
    unnamed = next((name for name in names if name not in columns), None)
    if unnamed:
        raise TableError(beside, f"lacks the column {unnamed!r} of {path.name}", "extract again")
    absent = next((name for name in columns if name not in names and name not in KEYS), None)
    if absent:
        wrong = f"names the column {absent!r} of {path.name}, which is not there"
        raise TableError(beside, wrong, "extract again")
    return about


def _read_numbers(path: Path, cells: pd.DataFrame, is_foreign: bool, notes: list[str]) -> pd.DataFrame:
    blank = cells.isin(MISSING)
    numbers = cells.mask(blank).apply(pd.to_numeric, errors="coerce").astype(float)
    wrong = (numbers.isna() & ~blank).to_numpy() | (numbers.abs() > LARGEST_NUMBER).to_numpy()
    if wrong.any() and not is_foreign:
        row, column = np.argwhere(wrong)[0]
        raise TableError(
            path,
            f"row {cells.index[row] + 2}, {cells.columns[column]}: {cells.iloc[row, column]!r} is no number",
            "leave the cell empty, or name the id_column of a foreign table",
        )
    texts = [name for name, is_text in zip(cells.columns, wrong.any(0), strict=True) if is_text]
    if texts:
        notes.append(f"{len(texts)} columns that are not numbers left out: {first_names(texts)}")
    kept: pd.DataFrame = numbers.drop(columns=texts)
    return kept


def first_names(names: list[str]) -> str:
    """Return the first five names as text.

    >>> first_names(list("abcdefg"))
    'a, b, c, d, e, ...'
    """
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def _combine_lesions(
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
        raise TableError(path, f"has several rows per patient and no column {volume}", "take lesion=mean")
    # equal volumes keep the order of the rows, so that the table's order never decides
    order = pd.DataFrame({"patient_id": ids, "volume": -numbers[volume], "row": np.arange(len(ids))})
    order = order.sort_values(["patient_id", "volume", "row"]).drop_duplicates("patient_id")
    return numbers.iloc[order["row"]].set_axis(pd.Index(order["patient_id"]))


def spread_out(
    rows: pd.DataFrame, ids: pd.Series, volume: pd.Series | None, most: int = MAX_INSTANCES
) -> pd.DataFrame:
    """Put the lesions of a patient into one row with the columns `name@1`, `name@2`, ..., largest first.

    Args:
        rows: Float columns, one row an instance (a lesion or a patch).
        ids: Patient of each row.
        volume: What the instances are ordered by; None keeps the order of the rows.
        most: Number of instances that are kept.
    """
    size = volume if volume is not None else pd.Series(0.0, index=rows.index)
    order = pd.DataFrame({"patient": ids, "size": -size, "row": np.arange(len(rows))})
    order = order.sort_values(["patient", "size", "row"])
    order["rank"] = order.groupby("patient").cumcount() + 1
    order = order[order["rank"] <= most]
    parts = []
    for rank, group in order.groupby("rank"):
        part = rows.loc[group.index].set_axis(pd.Index(group["patient"], name="patient_id"))
        parts.append(part.add_suffix(f"{RANK_MARK}{rank}"))
    return pd.concat(parts, axis=1).sort_index()


def count_instances(columns: tuple[str, ...]) -> int:
    """Return how many instances a row of `spread_out` holds, by its columns; 1 for other tables."""
    ranks = (int(name.rpartition(RANK_MARK)[2]) for name in columns if RANK_MARK in name)
    return max(ranks, default=1)


def _read_labels(path: Path, table: pd.DataFrame, id_column: str, settings: EgfrSettings) -> dict[str, str]:
    column = settings.label_column or ("egfr" if "egfr" in table.columns else None)
    if column is None:
        return {}
    labels = table[[id_column, column]].drop_duplicates()
    clashes = labels[labels[id_column].duplicated()]
    if len(clashes):
        wrong = f"patient {clashes.iloc[0][id_column]} has two values of {column}"
        raise TableError(path, wrong, "correct it")
    return {str(patient): str(label) for patient, label in labels.itertuples(index=False)}


def read_perturbed(table: Path, features: pd.DataFrame, settings: EgfrSettings) -> Floats:
    """Read the features of each patient under perturbed masks: (patients, repeats, features).

    Of several lesions the one that is largest in the unperturbed masks represents the patient. All repeats
    are kept, not only their ICC, since the ICC is computed anew from the training patients of each fold.

    Raises:
        TableError: There is no table of perturbed masks beside the table, or it does not fit the features.
    """
    path = perturbed_path(table)
    hint = "extract with --perturb, or leave --stable out"
    if not path.is_file():
        raise TableError(path, "is missing, but --stable needs it", hint)
    raw = read_text_table(path)
    absent = [name for name in (*LESION_KEYS, "repeat", *features.columns) if name not in raw.columns]
    if absent:
        raise TableError(path, f"lacks the column {absent[0]!r}", hint)
    raw["repeat"] = raw["repeat"].astype(int)
    outlines = raw[raw["repeat"] == 0]  # the masks as they were drawn
    if settings.volume_column in raw.columns:
        volume = pd.to_numeric(outlines[settings.volume_column])
        outlines = outlines.assign(size=-volume).sort_values(["patient_id", "size", "case_id", "lesion"])
    chosen = outlines.drop_duplicates("patient_id")[LESION_KEYS]
    rows = raw.merge(chosen, on=LESION_KEYS).sort_values(["patient_id", "repeat"])
    repeats = rows["repeat"].nunique()
    rows = rows[rows["patient_id"].isin(features.index)]
    if repeats < 2 or len(rows) != repeats * len(features):
        raise TableError(path, "does not hold every patient equally often", hint)
    numbers = rows[list(features.columns)].apply(pd.to_numeric, errors="coerce")
    perturbed: Floats = numbers.to_numpy(dtype=float).reshape(len(features), repeats, features.shape[1])
    return perturbed


def find_twins(features: pd.DataFrame) -> list[tuple[str, str]]:
    """Return the patients of different ids whose features are all equal, as pairs (first, later).

    One patient under two ids would stand on both sides of a fold.
    """
    varying = features.loc[:, features.nunique() > 1]
    if varying.shape[1] < TWIN_FEATURES:
        return []
    first_of: dict[bytes, str] = {}
    pairs = []
    for patient, row in zip(varying.index, varying.to_numpy(), strict=True):
        if np.isnan(row).all():
            continue
        key = row.tobytes()
        if key in first_of:
            pairs.append((first_of[key], str(patient)))
        first_of.setdefault(key, str(patient))
    return pairs
