"""Pack and unpack gzip with ISA-L: standard gzip, many times faster than zlib, the same bytes every time."""

from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import numpy.typing as npt
from isal import igzip
from isal.igzip_lib import IsalError

LEVEL = 2  # of 0 to 3; docs/decisions/0014 has the measurement
BLOCK = 1 << 20
GZIP_MAGIC = b"\x1f\x8b"
# What reading a damaged file raises; a damaged header can ask for more memory than there is.
UNREADABLE: tuple[type[Exception], ...] = (EOFError, OSError, MemoryError, cast(type[Exception], IsalError))


def open_unpacked(path: Path) -> IO[bytes]:
    """Open a file for reading, through gzip if it is packed, whatever it is called."""
    with path.open("rb") as file:
        is_packed = file.read(2) == GZIP_MAGIC
    opened: IO[bytes] = igzip.open(path, "rb") if is_packed else path.open("rb")
    return opened


def read_exactly(file: IO[bytes], count: int) -> npt.NDArray[np.uint8]:
    """The next bytes of a file; memory is used only as far as there are bytes.

    Raises:
        EOFError: There are fewer than `count`.
    """
    buffer = np.empty(count, np.uint8)
    view, filled = buffer.data, 0
    while filled < count:
        read = file.readinto(view[filled : filled + BLOCK])  # type: ignore[attr-defined]
        if not read:
            raise EOFError(f"{filled} bytes where {count} are needed")
        filled += read
    return buffer


def write_gzip(path: Path, parts: Iterable[Any]) -> None:
    """Write buffers one after the other as one gzip member without name and date.

    The packed bytes depend on the content, on `LEVEL`, and on the release of ISA-L.
    """
    with path.open("wb") as file, closing(_packer(file)) as packed:
        for part in parts:
            view = memoryview(part).cast("B")
            for start in range(0, len(view), BLOCK):
                packed.write(view[start : start + BLOCK])


def _packer(file: IO[bytes]) -> Any:
    return igzip.IGzipFile(filename="", mode="wb", compresslevel=LEVEL, fileobj=file, mtime=0)
