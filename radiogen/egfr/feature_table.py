"""Read a feature table with one row per lesion, and turn it into one row per patient."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors

from radiogen.egfr.own_features import (
    ID,
    find_ids,
    find_lesion,
    find_volume,
    first_names,
    is_pyradiomics,
    not_a_feature,
    plain_header,
)
from radiogen.egfr.settings import EgfrSettings
from radiogen.egfr.status import find_status
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
KNOWN_SHARE = 0.5  # of a patient's and of a column's cells, for a search of twins
TWIN_TOLERANCES = (0.03, 0.0001)  # of many columns, of a few
MANY_FEATURES, TWIN_FEATURES = 20, 5  # fewest columns for each of them
CHANCE_SHARE, AGREEING_SHARE = 0.2, 0.9
TWIN_DRAWS, TWIN_NEIGHBOURS = 4000, 6


@dataclass(frozen=True)
class FeatureTable:
    """Features of patients: float columns, one row per patient in the sorted order of the patient ids."""

    features: pd.DataFrame
    labels: dict[str, str]  # EGFR status by patient id as the table gives it; empty if it gives none
    about: dict[str, Any] = field(default_factory=dict)  # content of features.json
    notes: tuple[str, ...] = ()
    volume_column: str = ""  # that of the largest lesion; the table may not have it


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
    table[ID], source = find_ids(path, table, settings)
    if settings.label_column and settings.label_column not in table.columns:
        raise TableError(path, f"has no column {settings.label_column!r}", "correct label_column")
    notes = (
        [] if source in (ID, settings.id_column) else [f"the patient ids are those of the column {source}"]
    )
    known = table[~table[ID].isin(MISSING)]
    if len(known) < len(table):
        notes.append(f"{len(table) - len(known)} rows without a patient id left out")
    known = _number_lesions(path, known, notes)
    about = _read_about(path)
    keys = {*KEYS, "", source, settings.label_column}
    names = _choose_features([name for name in known.columns if name not in keys], about, notes)
    _check_about(path, about, names)
    is_foreign = settings.id_column is not None or source != ID or is_pyradiomics(names)
    numbers = _read_numbers(path, known[names], is_foreign, notes)
    volume = find_volume(names, settings)
    features = _combine_lesions(path, numbers, known[ID], volume, settings, notes)
    labels = _read_labels(path, known, settings)
    return FeatureTable(features, labels, about, tuple(notes), volume)


def _number_lesions(path: Path, table: pd.DataFrame, notes: list[str]) -> pd.DataFrame:
    """Return the rows in the order of patients and lesions, and refuse a lesion that comes twice."""
    lesion = find_lesion(table.columns)
    keys = [name for name in (ID, "case_id", lesion or "", "patch") if name and name in table.columns]
    repeated = int(table.duplicated().sum())
    if repeated and lesion is None:
        notes.append(f"{repeated} rows that repeat another one left out")
        table = table.drop_duplicates()
    table = table.sort_values(keys, kind="stable")
    duplicates = table[table.duplicated(keys)]
    if len(duplicates) and lesion is not None and "mask" not in map(plain_header, table.columns):
        first = " ".join(f"{name} {duplicates.iloc[0][name]}" for name in keys)
        raise TableError(path, f"{first} appears in two rows", "remove one of them, or number the lesions")
    return table


def _choose_features(names: list[str], about: dict[str, Any], notes: list[str]) -> list[str]:
    """Return the columns that may be features; what a header calls something else is left out and said."""
    kinds = {name: "" if name in about.get("columns", ()) else not_a_feature(name) for name in names}
    for kind in sorted(set(kinds.values()) - {""}):
        found = [name for name in names if kinds[name] == kind]
        notes.append(f"{len(found)} columns left out, each {kind} by its header: {first_names(found)}")
    return [name for name in names if not kinds[name]]


def _read_about(path: Path) -> dict[str, Any]:
    """Read the JSON beside a table; {} without one."""
    beside = path.with_suffix(".json")
    if not beside.is_file():
        return {}
    try:
        about: dict[str, Any] = json.loads(beside.read_text(encoding="utf-8"))
        version, _ = about["schema_version"], list(about["columns"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TableError(beside, "does not describe a feature table", "extract the features again") from error
    if version != 1:
        raise TableError(beside, f"has schema version {version}", "extract the features with this radiogen")
    return about


def _check_about(path: Path, about: dict[str, Any], names: list[str]) -> None:
    """Check that the JSON beside a table names the same features."""
    if not about:
        return
    beside, columns = path.with_suffix(".json"), about["columns"]
    unnamed = next((name for name in names if name not in columns), None)
    if unnamed:
        raise TableError(beside, f"lacks the column {unnamed!r} of {path.name}", "extract again")
    absent = next((name for name in columns if name not in names and name not in KEYS), None)
    if absent:
        wrong = f"names the column {absent!r} of {path.name}, which is not there"
        raise TableError(beside, wrong, "extract again")


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


def _combine_lesions(
    path: Path,
    numbers: pd.DataFrame,
    ids: pd.Series,
    volume: str,
    settings: EgfrSettings,
    notes: list[str],
) -> pd.DataFrame:
    several = int((ids.value_counts() > 1).sum())
    if settings.lesion == "bag":
        notes.append(f"{several} patients with several lesions: pooled by attention")
        return spread_out(numbers, ids, numbers[volume] if volume in numbers.columns else None)
    if not several:
        return numbers.set_axis(pd.Index(ids, name="patient_id")).sort_index()
    if settings.lesion == "mean":
        notes.append(f"{several} patients with several lesions: mean")
        means: pd.DataFrame = numbers.groupby(ids.to_numpy()).mean()
        return means.rename_axis("patient_id")
    if volume not in numbers.columns:
        raise TableError(
            path,
            f"has several rows for {several} patients and no column {volume}, so that none is the largest",
            "name the volume with --volume-column NAME, or take --lesion mean",
        )
    notes.append(f"{several} patients with several lesions: the largest, by {volume}")
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


def _read_labels(path: Path, table: pd.DataFrame, settings: EgfrSettings) -> dict[str, str]:
    column = settings.label_column or find_status(path, table.columns, settings)
    if column is None:
        return {}
    labels = table[[ID, column]].drop_duplicates()
    clashes = labels[labels[ID].duplicated()]
    if len(clashes):
        wrong = f"patient {clashes.iloc[0][ID]} has two values of {column}"
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
    column = find_volume(raw.columns, settings)
    if column in raw.columns:
        volume = pd.to_numeric(outlines[column])
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
    """Return the patients of different ids whose features nearly agree, as pairs (first, later).

    Two rows are those of one patient where nine of ten columns agree within 3 % of the value and of the
    column's spread; of fewer than 20 columns within 0.01 %. Columns in which a fifth of all pairs agree so
    tell nothing. Unrelated tumours reach a half (1,000 PyRadiomics features of 205 tumours), a patient
    measured twice with 1 % of noise, or with rounded numbers, all of them.
    """
    is_known = features.notna()
    known = features.loc[is_known.mean(axis=1) >= KNOWN_SHARE, is_known.mean() >= KNOWN_SHARE]
    if len(known) < 2 or known.shape[1] < TWIN_FEATURES:
        return []
    values = known.to_numpy(dtype=float)
    spread = np.nanquantile(values, 0.75, axis=0) - np.nanquantile(values, 0.25, axis=0)
    first, second = np.random.default_rng(0).integers(0, len(values), (2, TWIN_DRAWS))
    drawn = first != second
    first, second = values[first[drawn]], values[second[drawn]]
    for close in TWIN_TOLERANCES:
        tells = _agreement(first, second, close, spread).mean(axis=0) < CHANCE_SHARE
        if tells.sum() >= (TWIN_FEATURES if close < TWIN_TOLERANCES[0] else MANY_FEATURES):
            break
    else:
        return []
    ranks = known.loc[:, tells].rank().fillna(len(known) / 2)
    near = NearestNeighbors(n_neighbors=min(TWIN_NEIGHBOURS, len(known))).fit(ranks)
    candidates = near.kneighbors(ranks, return_distance=False)
    pairs = sorted(
        {(min(row, other), max(row, other)) for row in range(len(known)) for other in candidates[row]}
    )
    chosen, width = values[:, tells], spread[tells]
    return [
        (str(known.index[row]), str(known.index[other]))
        for row, other in pairs
        if row != other and _agreement(chosen[row], chosen[other], close, width).mean() >= AGREEING_SHARE
    ]


def _agreement(first: Floats, second: Floats, close: float, spread: Floats) -> NDArray[np.bool_]:
    """Whether each pair of values is equal within a share of the larger one and of the column's spread."""
    largest = np.maximum(np.abs(first), np.abs(second))
    both_missing = np.isnan(first) & np.isnan(second)
    agree: NDArray[np.bool_] = (np.abs(first - second) <= close * (largest + spread)) | both_missing
    return agree
