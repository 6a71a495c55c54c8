"""Turn the name of a cohort, or a download list, into series of the index."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from radiogen.cohorts.index import (
    COLUMNS,
    SeriesRow,
    SeriesSelection,
    cohort_series,
    of_patients,
    packaged_index,
    patients_of,
    read_series_rows,
    select_series,
    series_of_list,
)
from radiogen.errors import ConfigError, TableError
from radiogen.io.tables import read_text_table
from radiogen.resources import CohortCard, cohort_card, cohort_names

ENDINGS = (".tcia", ".s5cmd", ".csv")
UID, UUID = COLUMNS["SeriesInstanceUID"], COLUMNS["crdc_series_uuid"]
UID_HEADERS = ("SeriesInstanceUID", "Series UID", "Series Instance UID", "series_instance_uid")
UUID_HEADER = "crdc_series_uuid"
S5CMD = re.compile(r"cp (?:--?\S+ )*['\"]?s3://([a-z0-9.-]+)/([^/\s]+)/\*['\"]?(?:\s.*)?")
TCIA_START = "ListOfSeriesToDownload="


@dataclass(frozen=True)
class SeriesList:
    """What a list names: SeriesInstanceUIDs, or the UUIDs of series in the buckets of the IDC."""

    uids: frozenset[str] = frozenset()
    uuids: frozenset[str] = frozenset()

    def __len__(self) -> int:
        return len(self.uids) + len(self.uuids)


def is_series_list(path: Path) -> bool:
    """Return whether a file name is that of a download list."""
    return path.suffix.lower() in ENDINGS


def read_series_list(path: Path) -> SeriesList:
    """Read the series that a download list names.

    Raises:
        TableError: It cannot be read, names nothing, names a series twice, or names what cannot be a series.
    """
    if path.suffix.lower() == ".csv":
        return _csv(path)
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise TableError(path, f"cannot be read: {error}", "download the list again") from error
    return _tcia(path, lines) if path.suffix.lower() == ".tcia" else _s5cmd(path, lines)


def _tcia(path: Path, lines: list[str]) -> SeriesList:
    if TCIA_START not in lines:
        raise TableError(path, f"has no line {TCIA_START}", "download the list again")
    start = lines.index(TCIA_START) + 1
    return SeriesList(uids=_checked(path, ((n, line) for n, line in enumerate(lines[start:], start + 1))))


def _s5cmd(path: Path, lines: list[str]) -> SeriesList:
    uuids = []
    for number, line in enumerate(lines, start=1):
        if not line or line.startswith("#"):
            continue
        found = S5CMD.fullmatch(line)
        if found is None:
            raise TableError(path, f"line {number} is not cp s3://BUCKET/SERIES/* FOLDER", "correct it")
        uuids.append((number, found[2]))
    return SeriesList(uuids=_checked(path, uuids, UUID))


def _csv(path: Path) -> SeriesList:
    table = read_text_table(path)
    for name in UID_HEADERS:
        if name in table.columns:
            return SeriesList(uids=_checked(path, _cells(table, name)))
    if UUID_HEADER in table.columns:
        return SeriesList(uuids=_checked(path, _cells(table, UUID_HEADER), UUID))
    raise TableError(path, "has no column of series", f"name it {UID_HEADERS[0]} or {UUID_HEADER}")


def _cells(table: pd.DataFrame, name: str) -> Iterable[tuple[int, str]]:
    return enumerate(table[name], start=2)


def _checked(path: Path, names: Iterable[tuple[int, str]], pattern: re.Pattern[str] = UID) -> frozenset[str]:
    checked: set[str] = set()
    for number, name in names:
        if not name:
            continue
        if not pattern.fullmatch(name) or ".." in name:
            raise TableError(path, f"line {number} names no series: {name[:80]!r}", "correct it")
        if name in checked:
            raise TableError(path, f"line {number} names {name} again", "remove one of the lines")
        checked.add(name)
    if not checked:
        raise TableError(path, "names no series", "download the list again")
    return frozenset(checked)


@dataclass(frozen=True)
class SeriesRequest:
    """The series that were requested, their cohorts, and how many names of a list are unknown."""

    cards: tuple[CohortCard, ...]
    rows: tuple[SeriesRow, ...]
    unknown: int = 0


def find_request(name: str, selection: SeriesSelection, index: Path | None = None) -> SeriesRequest:
    """Find the series of a cohort by the rules of its card, or those that a download list names.

    Args:
        name: Of a cohort, or path of a `.tcia`, `.s5cmd` or CSV list.
        selection: Which of them.
        index: Rows of the index; else the one that is installed with idc-index.

    Raises:
        RadiogenError: Nothing is left, or a list, an index or a card does not fit.
    """
    if is_series_list(Path(name)):
        return _of_list(Path(name), selection, index)
    card = cohort_card(name)
    if not card.source.idc:
        cohort_series([], card)  # raises, and names where else to get it
    series = cohort_series(read_series_rows(index or packaged_index(), card.source.idc), card)
    return SeriesRequest((card,), tuple(select_series(series, selection, card.name)))


def _of_list(path: Path, selection: SeriesSelection, index: Path | None) -> SeriesRequest:
    if selection.only_with_outline:
        raise ConfigError("--only-with-outline", "does not go with a list", "name the cohort instead")
    listed = read_series_list(path)
    index = index or packaged_index()
    cards: list[CohortCard] = []
    rows: list[SeriesRow] = []
    for card in (cohort_card(name) for name in cohort_names()):
        if card.source.idc:
            mine = _of_cohort(index, card)
            if not mine:
                continue
            found, _ = series_of_list(cohort_series(mine, card), listed.uids, listed.uuids)
            if found:
                cards.append(card)
                rows += found
    unknown = len(listed) - len(rows)
    if selection.patients:
        rows = of_patients(rows, selection.patients)
    if selection.limit is not None:
        rows = of_patients(rows, patients_of(rows)[: selection.limit])
    if not rows:
        raise TableError(path, "names no series of a known cohort", "see radiogen cohort list")
    return SeriesRequest(tuple(cards), tuple(rows), unknown)


def _of_cohort(index: Path, card: CohortCard) -> Sequence[SeriesRow]:
    """Return the rows of one cohort; none where the index has none of it."""
    try:
        return read_series_rows(index, card.source.idc)
    except TableError as error:
        if error.wrong.startswith("has no series"):
            return []
        raise
