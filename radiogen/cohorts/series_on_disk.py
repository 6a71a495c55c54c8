"""Check which series a folder holds, whoever downloaded it, by the headers of its files."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pydicom
from pydicom.errors import InvalidDicomError

from radiogen.cohorts.index import SeriesRow
from radiogen.errors import SeriesError
from radiogen.io.dicom.files import walk_files
from radiogen.runtime import Progress, no_progress

TAGS = ["SeriesInstanceUID", "SOPInstanceUID"]
State = Literal["complete", "missing", "part", "too many", "other bytes"]


@dataclass
class SeriesFiles:
    """The files of one series: images told apart by SOPInstanceUID, and their bytes."""

    sop_uids: set[str]
    bytes: int = 0
    copies: int = 0  # files whose image is there already


@dataclass(frozen=True)
class SeriesState:
    """How much of a series is there."""

    row: SeriesRow
    state: State
    files: int

    def __str__(self) -> str:
        where = f"{self.row.patient} {self.row.modality} {self.row.uid}"
        return f"{where}: {self.state}, {self.files} of {self.row.files} files"


@dataclass(frozen=True)
class TreeState:
    """What a folder holds of the series that are expected, and what else is in it."""

    series: tuple[SeriesState, ...]
    others: int  # series that are not expected
    copies: int  # files that hold an image a second time
    damaged: tuple[Path, ...]  # files named .dcm that cannot be read

    def of(self, state: State) -> list[SeriesState]:
        """Return the series in one state."""
        return [one for one in self.series if one.state == state]


def check_tree(tree: Path, rows: Sequence[SeriesRow], progress: Progress = no_progress) -> TreeState:
    """Compare a folder with the series that it should hold; reads the header of every file.

    A series is complete when all its images are there. Bytes are compared too: the index knows them exactly.

    Args:
        tree: Folder of any layout: of `radiogen cohort download`, `idc download` or the NBIA retriever.
        rows: The series that are expected.
        progress: Told of headers read.

    Raises:
        SeriesError: The folder does not exist.
    """
    if not tree.is_dir():
        raise SeriesError(tree, "is not a folder", "give the folder that was downloaded to")
    found, damaged = _series_of(tree, progress)
    states = tuple(_state(row, found.get(row.uid)) for row in rows)
    others = len(set(found) - {row.uid for row in rows})
    return TreeState(states, others, sum(one.copies for one in found.values()), tuple(damaged))


def _series_of(tree: Path, progress: Progress) -> tuple[dict[str, SeriesFiles], list[Path]]:
    paths = list(walk_files(tree))
    found: dict[str, SeriesFiles] = {}
    damaged = []
    for n, path in enumerate(paths, start=1):
        uids = _uids(path)
        if uids is not None:
            series = found.setdefault(uids[0], SeriesFiles(set()))
            series.copies += uids[1] in series.sop_uids
            series.bytes += 0 if uids[1] in series.sop_uids else path.stat().st_size
            series.sop_uids.add(uids[1])
        elif path.suffix.lower() == ".dcm":
            damaged.append(path)
        progress("headers", n, len(paths))
    return found, damaged


def _uids(path: Path) -> tuple[str, str] | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom warns of odd values that are not used here
            header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=TAGS)
        return str(header.SeriesInstanceUID), str(header.SOPInstanceUID)
    except (InvalidDicomError, OSError, AttributeError, ValueError, EOFError, KeyError, TypeError):
        return None


def _state(row: SeriesRow, files: SeriesFiles | None) -> SeriesState:
    if files is None:
        return SeriesState(row, "missing", 0)
    count = len(files.sop_uids)
    if count < row.files:
        return SeriesState(row, "part", count)
    if count > row.files:
        return SeriesState(row, "too many", count)
    return SeriesState(row, "complete" if files.bytes == row.bytes else "other bytes", count)
