"""Keep what the headers of a large tree said, so that it is crawled once and later only refreshed.

The index lies with the cases. It names no patient and no path: ids and paths stand in it as hashes.
"""

import gzip
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from radiogen import __version__
from radiogen.io.dicom.dicom_facts import FileFacts
from radiogen.io.dicom.headers import read_facts
from radiogen.provenance import short_hash, whole_file

INDEX_FROM = 2000  # files: a smaller tree is read anew in a second or two
SCHEMA = f"1 {__version__}"
_NOWHERE = Path()


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
            content = _CONTENT.validate_json(gzip.decompress(path.read_bytes()))
        except (OSError, EOFError, ValueError, ValidationError):
            return
        if content.schema == SCHEMA:
            self._entries = content.entries

    def __len__(self) -> int:
        return len(self._entries)

    def lookup(self, paths: Sequence[Path]) -> dict[Path, FileFacts]:
        """The facts of those files that are still as they were."""
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
            _key(path): _Entry(*stamp, _with_identity(one, _NOWHERE, _hashed(_patient_of(one))))
            for path, one in facts.items()
            if (stamp := _stamp(path)) is not None
        }
        if len(facts) < INDEX_FROM:
            return
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
    """PatientID by its hash: one file of each patient is read again, and none that does not fit is kept."""
    witnesses = {_patient_of(facts): path for path, facts in same.items()}
    named = {hashed: _patient_of(read_facts(path)) if hashed else "" for hashed, path in witnesses.items()}
    return {hashed: patient for hashed, patient in named.items() if _hashed(patient) == hashed}


def _with_identity(facts: FileFacts, path: Path, patient: str) -> FileFacts:
    slices = tuple(replace(one, path=path, patient=patient) for one in facts.slices)
    outline = replace(facts.outline, path=path, patient=patient) if facts.outline else None
    return replace(facts, slices=slices, outline=outline)
