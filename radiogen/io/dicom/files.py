"""Find CT slices and outlines in any folder by what the files hold, never by what they are called."""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

from radiogen.errors import SeriesError
from radiogen.io.dicom.dicom_facts import FileFacts, OutlineFile, SliceFile
from radiogen.io.dicom.headers import read_facts
from radiogen.io.dicom.dicom_index import HeaderIndex
from radiogen.runtime import cpu_count

PARALLEL_FROM = 2000  # files: below that a second process costs more than it saves
CHUNK = 250  # files a task

Crawled = Callable[[int, int], None]  # files read, files in all


@dataclass
class DicomTree:
    """What a folder holds: all its files, CT slices, outlines, what cannot be read, how many of what else."""

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


def find_dicom(
    folder: Path,
    leave_out: Path | None = None,
    index: HeaderIndex | None = None,
    progress: Crawled | None = None,
) -> DicomTree:
    """Read the header of every file below a folder; links to folders and hidden files are not followed.

    Args:
        folder: Where to look, at any depth.
        leave_out: A folder below it that is not looked into.
        index: What an earlier crawl of this folder found; files of the same size and time are not read again.
            Is brought up to date.
        progress: Is told how many headers were read, and of how many.

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
    tree = DicomTree()
    for path in paths:
        tree.add(path, facts[path])
    if index is not None and (unread or len(index) != len(paths)):
        index.replace(facts)
    return tree


def _read_all(paths: Sequence[Path]) -> Iterator[tuple[Path, FileFacts]]:
    if len(paths) < PARALLEL_FROM or cpu_count() == 1:
        yield from ((path, read_facts(path)) for path in paths)
        return
    chunks = [paths[i : i + CHUNK] for i in range(0, len(paths), CHUNK)]
    lost: list[Path] = []
    with ProcessPoolExecutor(cpu_count(), get_context("spawn")) as pool:
        futures = [pool.submit(_read_chunk, chunk) for chunk in chunks]
        for chunk, future in zip(chunks, futures, strict=True):
            try:
                yield from zip(chunk, future.result(), strict=True)
            except BrokenProcessPool:
                lost.extend(chunk)
    for path in lost:  # some file killed its reader: each alone, so that only that one is lost
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            try:
                yield path, pool.submit(read_facts, path).result()
            except BrokenProcessPool:
                yield path, FileFacts(damage="kills the process that reads its header")


def _read_chunk(paths: Iterable[Path]) -> list[FileFacts]:
    return [read_facts(path) for path in paths]


def walk_files(folder: Path, leave_out: Path | None = None) -> Iterator[Path]:
    """Files below a folder in a stable order, without hidden ones.

    Raises:
        SeriesError: A folder cannot be opened.
    """
    for here, folders, names in os.walk(folder, onerror=_refuse_folder):
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".") and (leave_out is None or Path(here, name).resolve() != leave_out)
        )
        paths = (Path(here, name) for name in sorted(names) if not name.startswith("."))
        yield from (path for path in paths if path.is_file())  # no pipe or device, which would not end


def _refuse_folder(error: OSError) -> None:
    raise SeriesError(error.filename, f"cannot be opened: {error.strerror}", "ask for access") from error
