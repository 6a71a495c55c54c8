"""List and fetch the files of a public S3 bucket, each checked by its size and MD5 before it is there."""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from radiogen.errors import OutputError, SeriesError
from radiogen.optional import require
from radiogen.provenance import whole_file

CHUNK = 1 << 20
FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
MD5 = re.compile(r"[0-9a-f]{32}")  # the ETag of a file that was uploaded whole
PATIENCE_S = 60  # without a byte
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
            connect_timeout=PATIENCE_S,
            read_timeout=PATIENCE_S,
        )
        self.name = name
        self._trouble = require("botocore.exceptions", extra="download")
        session = boto3.session.Session(region_name="us-east-1")
        self._client: Any = session.client("s3", endpoint_url=endpoint, config=config)

    def files(self, folder: str) -> list[RemoteFile]:
        """The files right below a folder of the bucket.

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
                wrong = (
                    f"arrived with {size} of {file.bytes} bytes" if size != file.bytes else "has another MD5"
                )
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

    def _try(self, what: str, call: Callable[[], T]) -> T:
        try:
            return call()
        except (self._trouble.BotoCoreError, self._trouble.ClientError) as error:
            reason = str(error).split("\n")[0]
            raise SeriesError(
                f"s3://{self.name}/{what}", f"cannot be had: {reason}", "the same command goes on later"
            ) from error


def file_md5(path: Path) -> str:
    """MD5 of a file, as hexadecimal digits; what S3 tells of files that were uploaded whole."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
