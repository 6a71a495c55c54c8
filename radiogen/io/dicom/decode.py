"""Decode compressed slices in a process of their own, whose death is the error of one file only.

Decoders are C code that reads files of any origin: a damaged file can kill one, keep it busy or ask it for
all memory. Starting a process costs about a second a series, which uncompressed CT does not pay.
"""

import json
import os
import resource
import subprocess
import sys
import warnings
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Event, Timer
from types import TracebackType
from typing import IO, Any, Self, cast

import numpy as np
import numpy.typing as npt
from pydicom import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from radiogen.errors import SeriesError
from radiogen.io.dicom.slice_header import DEFLATED, SliceFile
from radiogen.runtime import cpu_count

# A slice of 512 x 512 takes a decoder a fraction of a second: after a minute it hangs.
SECONDS = 60.0  # for one slice; a decoder that needs longer is stopped
MOST_MEMORY = 8 << 30  # bytes of address space of a decoder
_PACKAGES = {  # by a word in the name of the transfer syntax; the first that fits
    "JPEG 2000": "pylibjpeg-openjpeg",
    "High-Throughput": "pylibjpeg-openjpeg",
    "RLE": "pylibjpeg-rle",
    "JPEG": "python-gdcm",
}


class Decoders:
    """A few decoding processes, started when the first slice comes, ended with the `with` block."""

    def __init__(self, count: int | None = None) -> None:
        # Four at most: each is a Python process with memory of its own.
        self._workers = [_Worker() for _ in range(count or min(4, cpu_count()))]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self._workers:
            worker.stop()

    def decode(self, slices: Sequence[SliceFile]) -> Iterator[npt.NDArray[Any]]:
        """Return the stored numbers of each slice in turn, shape (rows, columns).

        Raises:
            SeriesError: A slice cannot be decoded, or its decoder died or took too long.
        """
        waiting: deque[tuple[_Worker, SliceFile]] = deque()
        for n, item in enumerate(slices):
            if len(waiting) == len(self._workers):
                yield _answer(*waiting.popleft())
            # In turn, and answers are taken in the same order, so that slices come out as they went in.
            worker = self._workers[n % len(self._workers)]
            worker.request(item.path, item.frame, item.pixels.syntax == DEFLATED)
            waiting.append((worker, item))
        while waiting:
            yield _answer(*waiting.popleft())


def decode_frames(path: Path, frames: Iterable[int]) -> Iterator[npt.NDArray[Any]]:
    """Return the stored numbers of some frames of one file in turn, shape (rows, columns).

    Raises:
        ValueError: A frame cannot be decoded, or its decoder died or took too long.
    """
    worker = _Worker()
    try:
        for frame in frames:
            worker.request(path, frame)
            yield worker.answer()
    except _DecodingError as error:
        raise ValueError(f"its pixel data cannot be decoded: {str(error)[:200]}") from error
    finally:
        worker.stop()


def is_compressed(dataset: Dataset) -> bool:
    """Return whether its pixels need a decoder."""
    meta = getattr(dataset, "file_meta", None)
    return bool(meta is not None and "TransferSyntaxUID" in meta and meta.TransferSyntaxUID.is_compressed)


def decompress(dataset: Dataset, path: Path) -> None:
    """Replace compressed pixels by plain ones; the decoder runs in a process of its own.

    Raises:
        ValueError: A frame cannot be decoded, or its decoder died or took too long.
    """
    frames = range(int(dataset.get("NumberOfFrames") or 1))
    decoded = np.stack(list(decode_frames(path, frames)))
    if int(dataset.BitsAllocated) == 1:
        plain = np.packbits(decoded.astype(bool).ravel(), bitorder="little").tobytes()
    else:
        plain = decoded.astype(f"<u{int(dataset.BitsAllocated) // 8}").tobytes()
    set_pixels(dataset, plain)


def set_pixels(dataset: Dataset, plain: bytes) -> None:
    """Give a data set uncompressed pixels."""
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.PixelData = plain + b"\0" * (len(plain) % 2)
    dataset["PixelData"].is_undefined_length = False


def _answer(worker: "_Worker", item: SliceFile) -> npt.NDArray[Any]:
    try:
        return worker.answer()
    except _DecodingError as error:
        raise decoding_error(item, str(error)) from error


def decoding_error(item: SliceFile, reason: str) -> SeriesError:
    """Return the error of a slice that was not decoded; it names the package of a missing decoder."""
    where = item.path.with_name(item.name)
    name = UID(item.pixels.syntax).name
    # Only the text of a decoder's error tells a missing package from a damaged file.
    if "missing dependencies" in reason or "no available" in reason:
        package = next((package for word, package in _PACKAGES.items() if word in name), None)
        if package:
            return SeriesError(where, f"needs a decoder for {name}", f"pip install {package}")
    if (
        "no pixel data decoders" in reason.lower()
        or "not supported" in reason
        or "unknown transfer syntax" in reason
    ):
        return SeriesError(
            where, f"is stored as {name}, which nothing here decodes", "export it uncompressed"
        )
    if "less than expected" in reason or "no pixel data" in reason.lower():
        return SeriesError(where, "is truncated: its pixel data ends early or is missing", "copy it again")
    return SeriesError(
        where, f"its pixel data cannot be decoded: {reason[:200]}", "copy it again, or leave it out"
    )


class _DecodingError(Exception):
    """The message of a decoder, or how it ended."""


class _Worker:
    """One decoding process; takes requests as lines of JSON, answers with a line of JSON and the bytes."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def request(self, path: Path, frame: int, is_deflated: bool = False) -> None:
        if self._process is None:
            # A fresh interpreter, not a fork: forking a process whose libraries run threads can deadlock.
            program = [sys.executable, "-c", "from radiogen.io.dicom.decode import serve; serve()"]
            self._process = subprocess.Popen(
                program,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )
        stdin = cast(IO[bytes], self._process.stdin)
        with suppress(BrokenPipeError):  # it died; the answer says so
            stdin.write(json.dumps([os.fsdecode(path.absolute()), frame, is_deflated]).encode() + b"\n")
            stdin.flush()

    def answer(self) -> npt.NDArray[Any]:
        process = cast("subprocess.Popen[bytes]", self._process)
        is_late = Event()

        def end() -> None:
            is_late.set()
            process.kill()

        # Reading from the pipe cannot time out by itself; killing the decoder ends it.
        timer = Timer(SECONDS, end)
        timer.start()
        try:
            stdout = cast(IO[bytes], process.stdout)
            head = stdout.readline()
            about = json.loads(head) if head.endswith(b"\n") else {}
            data = stdout.read(about.get("bytes", 0))
        finally:
            timer.cancel()
        if not about or len(data) < about.get("bytes", 0):
            self.stop()
            raise _DecodingError("it took too long" if is_late.is_set() else "it ended its decoder")
        if "error" in about:
            raise _DecodingError(about["error"])
        return np.frombuffer(data, about["dtype"]).reshape(about["shape"])

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


def serve() -> None:
    """Answer requests on stdin until it ends; what decoders print themselves is discarded."""
    from pydicom import dcmread
    from pydicom.pixels.utils import pixel_array

    answers = os.fdopen(os.dup(1), "wb")
    # Native decoders print to stdout, which would break the answers.
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, 1)
    # A damaged header can ask for any amount of memory.
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    warnings.simplefilter("ignore")
    for line in sys.stdin:
        path, frame, is_deflated = json.loads(line)
        try:
            # Of other files only the frame is read; of a deflated one pydicom would not find it.
            source = dcmread(path) if is_deflated else path
            array = np.ascontiguousarray(pixel_array(source, index=frame, raw=True))
            about = {"shape": array.shape, "dtype": array.dtype.str, "bytes": array.nbytes}
        except BaseException as error:  # decoders raise nearly anything
            about = {"error": f"{' '.join(str(error).split()) or type(error).__name__}"}
        answers.write(json.dumps(about).encode() + b"\n")
        if "bytes" in about:
            answers.write(array.tobytes())
        answers.flush()
