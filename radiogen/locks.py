"""Lock a run folder, or one case of it, with locks of the kernel.

They end with the process that holds them, however it ends, so that no stale lock has to be judged.
"""

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from radiogen.errors import OutputError

# `is_held` takes a lock for an instant, so one try is not enough; who holds it longer than this is at work.
TIMEOUT_S, PAUSE_S = 1.0, 0.05


@contextmanager
def held(lock: Path, shared: bool = False) -> Iterator[None]:
    """Hold a lock for as long as the block; several may share it, or one has it alone.

    The file stays and says who held it last. What a dead process held is free at once.

    Raises:
        OutputError: Somebody else holds it; the message says who. Or the file system has no locks.
    """
    with _opened(lock) as file:
        try:
            _take(file, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        except BlockingIOError as error:
            raise OutputError(
                lock.parent.parent, f"is held by {_holder(file)}", "wait for it, or end it"
            ) from error
        except OSError as error:
            hint = "mount it with locks (flock), or take another place"
            raise OutputError(lock, f"cannot be locked: {error.strerror}", hint) from error
        file.seek(0)
        file.truncate()
        json.dump({"process": os.getpid(), "machine": socket.gethostname(), "since": _now()}, file)
        file.flush()
        yield


@contextmanager
def waited_for(lock: Path) -> Iterator[None]:
    """Wait for a lock, then hold it alone for as long as the block."""
    with _opened(lock) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def is_held(lock: Path) -> bool:
    """Return whether somebody holds a lock alone now; disturbs neither the holder nor others who look."""
    if not lock.is_file():
        return False
    with lock.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
        fcntl.flock(file, fcntl.LOCK_UN)
    return False


def _take(file: IO[str], mode: int) -> None:
    """Take a lock, or give up after a moment."""
    end = time.monotonic() + TIMEOUT_S
    while True:
        try:
            fcntl.flock(file, mode | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > end:
                raise
            time.sleep(PAUSE_S)


@contextmanager
def _opened(lock: Path) -> Iterator[IO[str]]:
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        file = lock.open("a+", encoding="utf-8")
    except OSError as error:
        raise OutputError(
            lock.parent, f"cannot be written: {error.strerror}", "choose another place"
        ) from error
    with file:
        yield file


def _holder(file: IO[str]) -> str:
    try:
        file.seek(0)
        holder = json.load(file)
        return f"process {holder['process']} on {holder['machine']}, since {holder['since']}"
    except (ValueError, KeyError, TypeError):
        return "another run"


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
