"""Download the series of a cohort from the buckets of the Imaging Data Commons, checked and restartable.

An unfinished series lies in a hidden folder: one that misses its upper slices is still evenly spaced, and
`ingest` would take it for a shorter scan.
"""

import hashlib
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from radiogen.cohorts.index import SeriesRow
from radiogen.errors import OutputError, RadiogenError, SeriesError
from radiogen.optional import require
from radiogen.provenance import DRAFT, whole_file
from radiogen.runtime import Progress, no_progress

CHUNK = 1 << 20
FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
MD5 = re.compile(r"[0-9a-f]{32}")  # the ETag of a file that was uploaded whole
TIMEOUT_S = 60  # without a byte
T = TypeVar("T")


@dataclass(frozen=True)
class RemoteFile:
    """One file of a bucket."""

    key: str
    bytes: int
    md5: str  # empty where the bucket does not know it

    @property
    def name(self) -> str:
        return self.key.rsplit("/", 1)[-1]


class Bucket:
    """A bucket that anyone may read.

    Args:
        name: Of the bucket.
        endpoint: Address of the S3 server; else that of AWS.
        connections: Files at the same time.
    """

    def __init__(self, name: str, endpoint: str | None = None, connections: int = 16) -> None:
        boto3, botocore = require("boto3", extra="download"), require("botocore", extra="download")
        config = require("botocore.config", extra="download").Config(
            signature_version=botocore.UNSIGNED,
            max_pool_connections=connections,
            retries={"mode": "standard", "max_attempts": 5},
            connect_timeout=TIMEOUT_S,
            read_timeout=TIMEOUT_S,
        )
        self.name = name
        self._errors = require("botocore.exceptions", extra="download")
        session = boto3.session.Session(region_name="us-east-1")
        self._client: Any = session.client("s3", endpoint_url=endpoint, config=config)

    def files(self, folder: str) -> list[RemoteFile]:
        """List the files right below a folder of the bucket.

        Raises:
            SeriesError: The bucket cannot be reached, or a file's name is none.
        """
        return self._try(folder, lambda: self._list(folder))

    def _list(self, folder: str) -> list[RemoteFile]:
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=f"{folder}/")
        found = []
        for item in (item for page in pages for item in page.get("Contents", ())):
            etag = str(item["ETag"]).strip('"')
            file = RemoteFile(item["Key"], int(item["Size"]), etag if MD5.fullmatch(etag) else "")
            if file.key != f"{folder}/{file.name}" or not FILE_NAME.fullmatch(file.name):
                raise SeriesError(
                    f"s3://{self.name}/{folder}",
                    f"holds {file.key[:120]!r}",
                    "take the series from elsewhere",
                )
            found.append(file)
        return found

    def fetch(self, file: RemoteFile, target: Path) -> None:
        """Write one file whole, or not at all.

        Raises:
            SeriesError: What arrived is not what the bucket lists, or it cannot be reached.
            OutputError: The target cannot be written.
        """
        with whole_file(target) as draft:
            size, digest = self._try(file.key, lambda: self._write(file.key, draft))
            if size != file.bytes or (file.md5 and digest != file.md5):
                wrong = "has another MD5"
                if size != file.bytes:
                    wrong = f"arrived with {size} of {file.bytes} bytes"
                raise SeriesError(f"s3://{self.name}/{file.key}", wrong, "the same command tries again")

    def _write(self, key: str, draft: Path) -> tuple[int, str]:
        body = self._client.get_object(Bucket=self.name, Key=key)["Body"]
        size, digest = 0, hashlib.md5(usedforsecurity=False)
        with draft.open("wb") as out:
            for chunk in body.iter_chunks(CHUNK):
                try:
                    out.write(chunk)
                except OSError as error:
                    raise OutputError(
                        draft.parent, f"cannot be written: {error.strerror or error}", "free some space"
                    ) from error
                size += len(chunk)
                digest.update(chunk)
        return size, digest.hexdigest()

    def _try(self, key: str, call: Callable[[], T]) -> T:
        try:
            return call()
        except (self._errors.BotoCoreError, self._errors.ClientError) as error:
            reason = str(error).split("\n")[0]
            raise SeriesError(
                f"s3://{self.name}/{key}", f"cannot be downloaded: {reason}", "the same command goes on later"
            ) from error


def file_md5(path: Path) -> str:
    """Return the MD5 of a file, as hexadecimal digits: what S3 gives for files that were uploaded whole."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


CONNECTIONS = 16
STOP_AFTER = 5  # failed series one after the other: then the fault is the connection, not the series
DISK_FACTOR = 1.02  # a file system rounds files up to blocks


@dataclass(frozen=True)
class DownloadPlan:
    """What would be downloaded: series that are there already, and those that are not."""

    present: tuple[SeriesRow, ...]
    missing: tuple[SeriesRow, ...]

    @property
    def bytes(self) -> int:
        """Bytes that would be downloaded."""
        return sum(row.bytes for row in self.missing)


@dataclass(frozen=True)
class FailedSeries:
    """A series that could not be downloaded whole, and why."""

    row: SeriesRow
    error: RadiogenError


def plan_download(rows: Sequence[SeriesRow], out: Path) -> DownloadPlan:
    """Find which series lie whole in the folder, by number of files and by bytes, which the index knows."""
    whole = {row for row in rows if _is_whole(row, out / row.folder)}
    present = tuple(row for row in rows if row in whole)
    return DownloadPlan(present, tuple(row for row in rows if row not in whole))


def _is_whole(row: SeriesRow, folder: Path) -> bool:
    # Bytes are enough: nothing gets its final name before its MD5 was compared.
    sizes = [path.stat().st_size for path in _files(folder)]
    return len(sizes) == row.files and sum(sizes) == row.bytes


def _files(folder: Path) -> Iterator[Path]:
    if folder.is_dir():
        yield from (path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))


def download(
    plan: DownloadPlan, out: Path, endpoint: str | None = None, progress: Progress = no_progress
) -> tuple[FailedSeries, ...]:
    """Download the missing series of a plan, a patient after the other.

    What a killed download (or `idc download`) left is kept where size and MD5 agree.

    Args:
        plan: Of `plan_download`.
        out: Folder; below it come collection, patient, study and series, as `idc download` lays them.
        endpoint: Address of another S3 server than that of AWS.
        progress: Told of the megabytes downloaded.

    Returns:
        The series that could not be downloaded; the others are there.

    Raises:
        OutputError: The folder cannot be written to, or has no room.
    """
    _check_space(out, plan.bytes)
    failed: list[FailedSeries] = []
    in_a_row = 0
    buckets = {name: Bucket(name, endpoint, CONNECTIONS) for name in {row.bucket for row in plan.missing}}
    total, done = max(1, plan.bytes // 1_000_000), 0
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        for row in plan.missing:
            try:
                if in_a_row == STOP_AFTER:
                    raise SeriesError(row.uid, "not tried after so many failures", "see the first of them")
                _download_series(row, buckets[row.bucket], out / row.folder, pool)
                in_a_row = 0
            except OutputError:
                raise
            except RadiogenError as error:
                failed.append(FailedSeries(row, error))
                in_a_row = min(in_a_row + 1, STOP_AFTER)
            done += row.bytes
            progress("download", min(total, done // 1_000_000), total)
    return tuple(failed)


def _check_space(out: Path, needed: int) -> None:
    existing = next(path for path in (out, *out.resolve().parents) if path.exists())
    if not existing.is_dir():
        raise OutputError(out, "is not a folder", "choose another place")
    free = shutil.disk_usage(existing).free
    if free < needed * DISK_FACTOR:
        wrong = f"has {free / 1e9:.1f} GB free, the series need {needed / 1e9:.1f} GB"
        raise OutputError(out, wrong, "free some space, or take fewer with --limit or --patients")


def _download_series(row: SeriesRow, bucket: Bucket, target: Path, pool: ThreadPoolExecutor) -> None:
    listed = bucket.files(row.uuid)
    size = sum(file.bytes for file in listed)
    if len(listed) != row.files or size != row.bytes:
        wrong = f"has {len(listed)} files of {size} bytes; the index says {row.files} of {row.bytes}"
        raise SeriesError(
            f"s3://{row.bucket}/{row.uuid}", wrong, "take a newer index: pip install -U idc-index"
        )
    draft = target.with_name(f"{DRAFT}{target.name}")
    _open_draft(target, draft)
    for other in {path.name for path in draft.iterdir()} - {file.name for file in listed}:
        if not other.startswith(DRAFT):
            raise SeriesError(draft, f"holds {other}, which is no file of the series", "move it elsewhere")
        (draft / other).unlink()
    _fetch_all([file for file in listed if not _is_complete(file, draft / file.name)], draft, bucket, pool)
    draft.rename(target)


def _open_draft(target: Path, draft: Path) -> None:
    """Make the hidden folder, or hide a series that is there in part while the rest comes."""
    try:
        draft.parent.mkdir(parents=True, exist_ok=True)
        if target.is_dir() and not draft.exists():
            target.rename(draft)
        elif target.exists():
            raise OutputError(target, "is there beside an unfinished download of it", "remove one of them")
        draft.mkdir(exist_ok=True)
    except OSError as error:
        raise OutputError(target, f"cannot be written: {error.strerror}", "choose another place") from error


def _is_complete(file: RemoteFile, path: Path) -> bool:
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
