"""Find CT slices and outlines in any folder by their content, never by their names.

Headers are read once. For a tree of many files the facts are kept in an index beside the cases, and a file is
read again only when its size or time changed. The index names nobody: PatientIDs and paths stand in it as
hashes.
"""

import gzip
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from radiogen import __version__
from radiogen.errors import SeriesError
from radiogen.io.dicom.file_kind import read_facts
from radiogen.io.dicom.slice_header import FileFacts, OutlineFile, SliceFile
from radiogen.pool import run_in_processes
from radiogen.provenance import short_hash, whole_file
from radiogen.runtime import cpu_count

INDEX_FROM = 2000  # files: a smaller tree is read anew in a second or two
SCHEMA = f"1 {__version__}"
PARALLEL_FROM = 2000  # files: below that a second process costs more than it saves
CHUNK = 250  # files a task
_NO_PATH = Path()

Crawled = Callable[[int, int], None]  # files read, files in all


@dataclass
class DicomTree:
    """The content of a folder: all its files, CT slices, outlines, damaged files, other files by kind."""

    files: list[Path] = field(default_factory=list)
    slices: list[SliceFile] = field(default_factory=list)
    outlines: list[OutlineFile] = field(default_factory=list)
    damaged: dict[Path, str] = field(default_factory=dict)
    ignored: Counter[str] = field(default_factory=Counter)

    def add(self, path: Path, facts: FileFacts) -> None:
        """Sort one file in."""
        self.files.append(path)
        self.slices.extend(facts.slices)
        if facts.outline is not None:
            self.outlines.append(facts.outline)
        if facts.damage:
            self.damaged[path] = facts.damage
        if facts.ignored:
            self.ignored[facts.ignored] += 1


@dataclass(frozen=True)
class _Entry:
    size: int
    mtime_ns: int
    facts: FileFacts


@dataclass(frozen=True)
class _Content:
    schema: str
    entries: dict[str, _Entry]


_CONTENT: TypeAdapter[_Content] = TypeAdapter(_Content)


class HeaderIndex:
    """Facts by file, valid while size and time of the file are the same."""

    def __init__(self, path: Path) -> None:
        """Open the index at `path`; one that cannot be read counts as empty."""
        self._path = path
        self._entries: dict[str, _Entry] = {}
        try:
            # JSON, not pickle: the index lies in a folder that others may write to.
            content = _CONTENT.validate_json(gzip.decompress(path.read_bytes()))
        except (OSError, EOFError, ValueError, ValidationError):
            return
        # Another version of radiogen may read headers otherwise; its facts are not taken over.
        if content.schema == SCHEMA:
            self._entries = content.entries

    def __len__(self) -> int:
        return len(self._entries)

    def lookup(self, paths: Sequence[Path]) -> dict[Path, FileFacts]:
        """Return the facts of those files that are still as they were."""
        same = {}
        for path in paths:
            entry = self._entries.get(_key(path))
            if entry is not None and _stamp(path) == (entry.size, entry.mtime_ns):
                same[path] = entry.facts
        patients = _patients(same)
        return {
            path: _with_identity(facts, path, patients[_patient_of(facts)])
            for path, facts in same.items()
            if _patient_of(facts) in patients
        }

    def replace(self, facts: Mapping[Path, FileFacts]) -> None:
        """Keep these facts and no others; a tree of few files needs no index."""
        self._entries = {
            _key(path): _Entry(*stamp, _with_identity(one, _NO_PATH, _hashed(_patient_of(one))))
            for path, one in facts.items()
            if (stamp := _stamp(path)) is not None
        }
        if len(facts) < INDEX_FROM:
            return
        # Without a time stamp, so that the same tree gives the same index.
        content = _CONTENT.dump_json(_Content(SCHEMA, self._entries))
        with whole_file(self._path) as draft:
            draft.write_bytes(gzip.compress(content, compresslevel=1, mtime=0))


def _key(path: Path) -> str:
    return blake2b(os.fsencode(path.absolute()), digest_size=12).hexdigest()


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


def _patient_of(facts: FileFacts) -> str:
    if facts.slices:
        return facts.slices[0].patient
    return facts.outline.patient if facts.outline else ""


def _hashed(patient: str) -> str:
    return short_hash(patient) if patient else ""


def _patients(same: Mapping[Path, FileFacts]) -> dict[str, str]:
    """Return PatientIDs by their hash: one file a patient is read again, and a hash must fit it."""
    witnesses = {_patient_of(facts): path for path, facts in same.items()}
    named = {hashed: _patient_of(read_facts(path)) if hashed else "" for hashed, path in witnesses.items()}
    return {hashed: patient for hashed, patient in named.items() if _hashed(patient) == hashed}


def _with_identity(facts: FileFacts, path: Path, patient: str) -> FileFacts:
    slices = tuple(replace(one, path=path, patient=patient) for one in facts.slices)
    outline = replace(facts.outline, path=path, patient=patient) if facts.outline else None
    return replace(facts, slices=slices, outline=outline)


def find_dicom(
    folder: Path,
    leave_out: Path | None = None,
    index: HeaderIndex | None = None,
    progress: Crawled | None = None,
) -> DicomTree:
    """Read the header of every file below a folder; links to folders and hidden files are not followed.

    Args:
        folder: Searched at any depth.
        leave_out: A folder below it that is not searched.
        index: What an earlier crawl of this folder found; files of the same size and time are not read again.
            Is brought up to date.
        progress: Called with the headers read and the files in all.

    Raises:
        SeriesError: A folder cannot be opened.
    """
    paths = list(walk_files(folder, leave_out))
    known = index.lookup(paths) if index is not None else {}
    unread = [path for path in paths if path not in known]
    facts: dict[Path, FileFacts] = dict(known)
    for path, found in _read_all(unread):
        facts[path] = found
        if progress is not None:
            progress(len(facts), len(paths))
    # In the order of the walk, not of the processes, so that ties between series fall alike in every run.
    tree = DicomTree()
    for path in paths:
        tree.add(path, facts[path])
    if index is not None and (unread or len(index) != len(paths)):
        index.replace(facts)
    return tree


def _read_all(paths: Sequence[Path]) -> Iterator[tuple[Path, FileFacts]]:
    """Read headers, in several processes where that pays; a file that kills its reader loses itself alone."""
    jobs = cpu_count()
    if len(paths) < PARALLEL_FROM or jobs == 1:
        yield from ((path, read_facts(path)) for path in paths)
        return
    # A chunk whose process died is read again file by file, which finds the one that kills it.
    chunks = [paths[start : start + CHUNK] for start in range(0, len(paths), CHUNK)]
    read: set[Path] = set()
    for found in run_in_processes(_read_chunk, chunks, jobs, _not_read):
        read.update(path for path, _ in found)
        yield from found
    alone = [[path] for path in paths if path not in read]
    for found in run_in_processes(_read_chunk, alone, jobs, _killed):
        yield from found


def _read_chunk(paths: Sequence[Path]) -> list[tuple[Path, FileFacts]]:
    return [(path, read_facts(path)) for path in paths]


def _not_read(_paths: Sequence[Path]) -> list[tuple[Path, FileFacts]]:
    return []


def _killed(paths: Sequence[Path]) -> list[tuple[Path, FileFacts]]:
    return [(path, FileFacts(damage="kills the process that reads its header")) for path in paths]


def walk_files(folder: Path, leave_out: Path | None = None) -> Iterator[Path]:
    """Yield the files below a folder in a stable order, without hidden ones.

    Raises:
        SeriesError: A folder cannot be opened.
    """
    for here, folders, names in os.walk(folder, onerror=_refuse_folder):
        # Sorted, since the order of the file system would decide between equal series.
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".") and (leave_out is None or Path(here, name).resolve() != leave_out)
        )
        paths = (Path(here, name) for name in sorted(names) if not name.startswith("."))
        yield from (path for path in paths if path.is_file())  # no pipe or device, which would not end


def _refuse_folder(error: OSError) -> None:
    raise SeriesError(error.filename, f"cannot be opened: {error.strerror}", "ask for access") from error
