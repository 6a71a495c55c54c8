"""Read rows of the index of the Imaging Data Commons, a DICOM series each, and select those of a cohort."""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from radiogen.errors import ConfigError, TableError
from radiogen.io.tables import read_text_table
from radiogen.optional import require
from radiogen.resources import CohortCard, SeriesRule, licence_terms

# Columns of the index that are read, and the pattern of their cells: some become folders and addresses.
COLUMNS = {
    "collection_id": re.compile(r"[a-z0-9][a-z0-9_-]{0,63}"),
    "analysis_result_id": re.compile(r"[A-Za-z0-9_.-]{0,64}"),
    "PatientID": re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}"),
    "StudyInstanceUID": re.compile(r"[0-9][0-9.]{0,63}"),
    "SeriesInstanceUID": re.compile(r"[0-9][0-9.]{0,63}"),
    "Modality": re.compile(r"[A-Z0-9]{1,16}"),
    "instanceCount": re.compile(r"[1-9][0-9]*"),
    "series_size_MB": re.compile(r"[0-9]+(\.[0-9]+)?(e[-+]?[0-9]+)?"),
    "license_short_name": re.compile(r".{1,64}"),
    "aws_bucket": re.compile(r"[a-z0-9][a-z0-9.-]{1,62}"),
    "crdc_series_uuid": re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"),
}


@dataclass(frozen=True)
class SeriesRow:
    """One series of the index: its patient, the number of its files and bytes, its place in the buckets."""

    collection: str
    analysis: str  # empty: the collection's own
    patient: str
    study: str
    uid: str
    modality: str
    files: int
    bytes: int
    licence: str
    bucket: str
    uuid: str

    @property
    def folder(self) -> Path:
        """Folder of its files: the layout that `idc download` makes."""
        return Path(self.collection, self.patient, self.study, f"{self.modality}_{self.uid}")


def read_series_rows(index: Path, collection: str | None = None) -> list[SeriesRow]:
    """Read the rows of an index, or those of one collection, every cell checked.

    Args:
        index: Parquet or CSV with the columns of the index of the Imaging Data Commons.
        collection: `collection_id` to keep.

    Raises:
        TableError: A column is missing, a cell cannot be what it says, a series comes twice, no row is left.
    """
    table = _table(index, collection)
    missing = [name for name in COLUMNS if name not in table.columns]
    if missing:
        raise TableError(
            index, f"has no column {missing[0]}", "give rows of the index of the Imaging Data Commons"
        )
    if collection is not None:
        table = table[table["collection_id"] == collection]
    if table.empty:
        raise TableError(index, f"has no series of {collection or 'anything'}", "give another index")
    for name, pattern in COLUMNS.items():
        for cell in table[name].unique():
            if not pattern.fullmatch(cell) or ".." in cell:
                row = int(table.index[table[name] == cell][0]) + 2
                raise TableError(
                    index, f"row {row} has {cell[:80]!r} as {name}", "correct the row, or remove it"
                )
    for name in ("SeriesInstanceUID", "crdc_series_uuid"):
        twice = table[name][table[name].duplicated()]
        if twice.size:
            raise TableError(index, f"has {twice.iloc[0]} twice as {name}", "remove one of the rows")
    return [_row(cells) for cells in table[list(COLUMNS)].to_dict("records")]


def _table(index: Path, collection: str | None) -> pd.DataFrame:
    if index.suffix != ".parquet" or collection is None:
        return read_text_table(index)
    # The packaged index has a million rows: read only those of the collection.
    require("pyarrow", extra="parquet")
    try:
        table = pd.read_parquet(index, filters=[("collection_id", "==", collection)])
    except (OSError, ValueError) as error:
        if "collection_id" in str(error):
            raise TableError(index, "has no column collection_id", "give rows of the index") from error
        raise TableError(index, "cannot be read as Parquet", "copy it again, or give a CSV file") from error
    texts = {name: ["" if pd.isna(v) else str(v).strip() for v in table[name]] for name in table.columns}
    return pd.DataFrame(texts, dtype=str)


def _row(cells: dict[Any, str]) -> SeriesRow:
    return SeriesRow(
        collection=cells["collection_id"],
        analysis=cells["analysis_result_id"],
        patient=cells["PatientID"],
        study=cells["StudyInstanceUID"],
        uid=cells["SeriesInstanceUID"],
        modality=cells["Modality"],
        files=int(cells["instanceCount"]),
        bytes=round(float(cells["series_size_MB"]) * 1e6),  # the index counts in 10^6 bytes, to the byte
        licence=cells["license_short_name"],
        bucket=cells["aws_bucket"],
        uuid=cells["crdc_series_uuid"],
    )


def licences_of(rows: Iterable[SeriesRow]) -> dict[str, int]:
    """Count the series under each licence, the most frequent first."""
    return dict(Counter(row.licence for row in rows).most_common())


def patients_of(rows: Iterable[SeriesRow]) -> list[str]:
    """Return the patients of some series, in their order."""
    return list(dict.fromkeys(row.patient for row in rows))


def of_patients(rows: Iterable[SeriesRow], patients: Collection[str]) -> list[SeriesRow]:
    """Return the series of some patients."""
    return [row for row in rows if row.patient in patients]


@dataclass(frozen=True)
class CohortSeries:
    """The series of a cohort by the part they play; what is neither CT nor outline is left out."""

    ct: tuple[SeriesRow, ...]
    outlines: tuple[SeriesRow, ...]
    automatic: tuple[SeriesRow, ...]
    to_fetch: tuple[SeriesRow, ...]  # what a download brings: CTs and outlines, by the rules of the card

    @property
    def patients(self) -> list[str]:
        """All patients with a CT."""
        return patients_of(self.ct)


@dataclass(frozen=True)
class SeriesSelection:
    """Which series of a cohort are selected.

    Attributes:
        patients: Only these; empty: all.
        limit: Only so many patients.
        only_with_outline: Only studies with an outline that somebody drew.
    """

    patients: tuple[str, ...] = ()
    limit: int | None = None
    only_with_outline: bool = False


def cohort_series(rows: Sequence[SeriesRow], card: CohortCard) -> CohortSeries:
    """Sort the rows of a collection by the rules of its card.

    A rule names modality and analysis: by `Modality == "SEG"` alone, outlines that nobody drew would count.

    Raises:
        ConfigError: The card has no rules, or its collection is not in the rows.
        TableError: A PatientID is none of the cohort's pseudonyms, or a licence is not known.
    """
    if not card.series or not card.source.idc:
        how = card.source.how or card.source.page or "see radiogen cohort show"
        raise ConfigError(f"cohort {card.name}", "is not in the Imaging Data Commons", how)
    mine = [row for row in rows if row.collection == card.source.idc]
    for row in mine:
        if not card.names_pseudonym(row.patient):
            raise TableError("index", f"{row.patient!r} is no patient of {card.name}", "give another index")
    matched = [(row, _rule_of(row, card)) for row in mine]
    parts = {
        name: tuple(row for row, rule in matched if rule is not None and rule.part == name)
        for name in ("ct", "outline", "automatic")
    }
    fetch = tuple(row for row, rule in matched if rule is not None and rule.fetch)
    for licence in licences_of(fetch):
        licence_terms(licence)
    return CohortSeries(parts["ct"], parts["outline"], parts["automatic"], fetch)


def _rule_of(row: SeriesRow, card: CohortCard) -> SeriesRule | None:
    for rule in card.series:
        if row.modality == rule.modality and row.analysis == rule.analysis:
            return rule
    return None


def select_series(series: CohortSeries, selection: SeriesSelection, name: str) -> list[SeriesRow]:
    """Select the series to download, by patient.

    With `only_with_outline` the CTs of a patient are those of the studies in which there is an outline; the
    index does not say which one was drawn on.

    Raises:
        ConfigError: A patient is not in the cohort, or nothing is left.
    """
    known = set(series.patients)
    for patient in selection.patients:
        if patient not in known:
            raise ConfigError(f"--patients {patient}", f"is not in {name}", "see the index for its ids")
    rows: Sequence[SeriesRow] = series.to_fetch
    if selection.only_with_outline:
        studies = {row.study for row in series.outlines}
        rows = [row for row in rows if row.study in studies]
    if selection.patients:
        rows = of_patients(rows, set(selection.patients))
    rows = sorted(rows, key=lambda row: (row.patient, row.study, row.modality, row.uid))
    if selection.limit is not None:
        rows = of_patients(rows, set(patients_of(rows)[: selection.limit]))
    if not rows:
        raise ConfigError(f"cohort {name}", "has no such series", "widen the selection")
    return list(rows)


def series_of_list(
    series: CohortSeries, uids: Collection[str], uuids: Collection[str]
) -> tuple[list[SeriesRow], int]:
    """Return the series that a list names, of any part, and how many of its names are not among them."""
    rows = [*series.ct, *series.outlines, *series.automatic]
    found = [row for row in rows if row.uid in uids or row.uuid in uuids]
    return found, len(uids) + len(uuids) - len(found)


def packaged_index() -> Path:
    """Return the Parquet file of the installed package, one row a series of the whole archive.

    Raises:
        MissingPackageError: idc-index is not installed.
    """
    return Path(require("idc_index_data", extra="download").IDC_INDEX_PARQUET_FILEPATH)
