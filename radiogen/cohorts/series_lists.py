"""Read the download lists of others: .tcia of the NBIA retriever, .s5cmd of the Imaging Data Commons, CSV."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from radiogen.cohorts.index import COLUMNS
from radiogen.errors import TableError
from radiogen.io.tables import read_text_table

ENDINGS = (".tcia", ".s5cmd", ".csv")
UID, UUID = COLUMNS["SeriesInstanceUID"], COLUMNS["crdc_series_uuid"]
UID_HEADERS = ("SeriesInstanceUID", "Series UID", "Series Instance UID", "series_instance_uid")
UUID_HEADER = "crdc_series_uuid"
S5CMD = re.compile(r"cp (?:--?\S+ )*['\"]?s3://([a-z0-9.-]+)/([^/\s]+)/\*['\"]?(?:\s.*)?")
TCIA_START = "ListOfSeriesToDownload="


@dataclass(frozen=True)
class SeriesList:
    """What a list asks for: SeriesInstanceUIDs, or the names of series in the buckets of the IDC."""

    uids: frozenset[str] = frozenset()
    uuids: frozenset[str] = frozenset()

    def __len__(self) -> int:
        return len(self.uids) + len(self.uuids)


def is_series_list(path: Path) -> bool:
    """Whether a name is that of a download list."""
    return path.suffix.lower() in ENDINGS


def read_series_list(path: Path) -> SeriesList:
    """The series that a download list names.

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
    seen: set[str] = set()
    for number, name in names:
        if not name:
            continue
        if not pattern.fullmatch(name) or ".." in name:
            raise TableError(path, f"line {number} names no series: {name[:80]!r}", "correct it")
        if name in seen:
            raise TableError(path, f"line {number} names {name} again", "remove one of the lines")
        seen.add(name)
    if not seen:
        raise TableError(path, "names no series", "download the list again")
    return frozenset(seen)
