"""Bring the series of a cohort from the buckets of the Imaging Data Commons, whole, checked, restartable."""

import logging
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from radiogen.cohorts.buckets import Bucket, RemoteFile, file_md5
from radiogen.cohorts.index import SeriesRow
from radiogen.errors import OutputError, RadiogenError, SeriesError
from radiogen.provenance import DRAFT
from radiogen.runtime import Tick, no_tick

log = logging.getLogger(__name__)
CONNECTIONS = 16
STOP_AFTER = 5  # failed series one after the other: then the fault is the way, not the series
SPARE = 1.02  # of the bytes: a file system rounds up to blocks


@dataclass(frozen=True)
class DownloadPlan:
    """What would be brought: series that are there already, and those that are not."""

    there: tuple[SeriesRow, ...]
    missing: tuple[SeriesRow, ...]

    @property
    def bytes(self) -> int:
        """How much would be brought."""
        return sum(row.bytes for row in self.missing)


@dataclass(frozen=True)
class FailedSeries:
    """A series that could not be brought whole, and why."""

    row: SeriesRow
    error: RadiogenError


def plan_download(rows: Sequence[SeriesRow], out: Path) -> DownloadPlan:
    """See which series lie whole in the folder, by number of files and by bytes."""
    whole = [_is_whole(row, out / row.folder) for row in rows]
    there, missing = (
        tuple(row for row, is_there in zip(rows, whole, strict=True) if is_there == wanted)
        for wanted in (True, False)
    )
    return DownloadPlan(there, missing)


def _is_whole(row: SeriesRow, folder: Path) -> bool:
    sizes = [path.stat().st_size for path in _files(folder)]
    return len(sizes) == row.files and sum(sizes) == row.bytes


def _files(folder: Path) -> Iterator[Path]:
    if folder.is_dir():
        yield from (path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))


def download(
    plan: DownloadPlan, out: Path, endpoint: str | None = None, tick: Tick = no_tick
) -> tuple[FailedSeries, ...]:
    """Bring the missing series of a plan, a patient after the other.

    Files come into a hidden folder beside the series, renamed when the last file is there, so that a part of
    a series is never mistaken for the whole. What a killed download (or `idc download`) left is kept where
    size and MD5 agree.

    Args:
        plan: Of `plan_download`.
        out: Folder; below it come collection, patient, study and series, as `idc download` lays them.
        endpoint: Address of another S3 server than that of AWS.
        tick: Is told of megabytes brought.

    Returns:
        The series that could not be brought; the others are there.

    Raises:
        OutputError: The folder cannot be written to, or has no room.
    """
    _see_room(out, plan.bytes)
    failed: list[FailedSeries] = []
    in_a_row = 0
    buckets = {name: Bucket(name, endpoint, CONNECTIONS) for name in {row.bucket for row in plan.missing}}
    total, done = max(1, plan.bytes // 1_000_000), 0
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        for row in plan.missing:
            try:
                if in_a_row == STOP_AFTER:
                    raise SeriesError(row.uid, "not tried after so many failures", "see the first of them")
                _bring(row, buckets[row.bucket], out / row.folder, pool)
                in_a_row = 0
            except OutputError:
                raise
            except RadiogenError as error:
                failed.append(FailedSeries(row, error))
                in_a_row = min(in_a_row + 1, STOP_AFTER)
            done += row.bytes
            tick("download", min(total, done // 1_000_000), total)
    return tuple(failed)


def _see_room(out: Path, needed: int) -> None:
    here = next(path for path in (out, *out.resolve().parents) if path.exists())
    if not here.is_dir():
        raise OutputError(out, "is not a folder", "choose another place")
    free = shutil.disk_usage(here).free
    if free < needed * SPARE:
        wrong = f"has {free / 1e9:.1f} GB free, the series need {needed / 1e9:.1f} GB"
        raise OutputError(out, wrong, "free some space, or take fewer with --limit or --patients")


def _bring(row: SeriesRow, bucket: Bucket, target: Path, pool: ThreadPoolExecutor) -> None:
    listed = bucket.files(row.uuid)
    size = sum(file.bytes for file in listed)
    if len(listed) != row.files or size != row.bytes:
        wrong = f"has {len(listed)} files of {size} bytes; the index says {row.files} of {row.bytes}"
        raise SeriesError(
            f"s3://{row.bucket}/{row.uuid}", wrong, "take a newer index: pip install -U idc-index"
        )
    draft = target.with_name(f"{DRAFT}{target.name}")
    _take_up(target, draft)
    for other in {path.name for path in draft.iterdir()} - {file.name for file in listed}:
        if not other.startswith(DRAFT):
            raise SeriesError(draft, f"holds {other}, which is no file of the series", "move it elsewhere")
        (draft / other).unlink()
    _fetch_all([file for file in listed if not _is_there(file, draft / file.name)], draft, bucket, pool)
    draft.rename(target)


def _take_up(target: Path, draft: Path) -> None:
    """Hide a series that is there in part, so that nobody reads it while the rest comes."""
    try:
        draft.parent.mkdir(parents=True, exist_ok=True)
        if target.is_dir() and not draft.exists():
            target.rename(draft)
        elif target.exists():
            raise OutputError(target, "is there beside an unfinished download of it", "remove one of them")
        draft.mkdir(exist_ok=True)
    except OSError as error:
        raise OutputError(target, f"cannot be written: {error.strerror}", "choose another place") from error


def _is_there(file: RemoteFile, path: Path) -> bool:
    same_size = path.is_file() and path.stat().st_size == file.bytes
    return same_size and (not file.md5 or file_md5(path) == file.md5)


def _fetch_all(files: Sequence[RemoteFile], folder: Path, bucket: Bucket, pool: ThreadPoolExecutor) -> None:
    waiting: list[Future[None]] = [pool.submit(bucket.fetch, file, folder / file.name) for file in files]
    try:
        for future in as_completed(waiting):
            future.result()
    finally:
        for future in waiting:
            future.cancel()
