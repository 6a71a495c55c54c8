"""Locks end with who holds them; looking at one disturbs nobody."""

import fcntl
import threading
import time

import pytest

from radiogen.cohorts.ledger import Ledger
from radiogen.errors import OutputError
from radiogen.locks import held, is_held


def test_a_run_starts_while_somebody_looks_at_its_lock(tmp_path):
    lock = tmp_path / ".cohort" / "lock"
    with held(lock):
        assert is_held(lock)
    assert not is_held(lock)
    with lock.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        assert not is_held(lock)  # another one who looks
        threading.Timer(0.2, fcntl.flock, (file, fcntl.LOCK_UN)).start()
        with held(lock):
            assert is_held(lock)


def test_who_holds_it_longer_is_named_after_a_moment(tmp_path):
    lock = tmp_path / ".cohort" / "lock"
    began = time.monotonic()
    with held(lock), pytest.raises(OutputError, match="is held by process"), held(lock):
        pass
    assert time.monotonic() - began < 5


def test_a_part_of_a_job_array_counts_as_running(tmp_path):
    ledger = Ledger(tmp_path)
    with held(ledger.home / "lock", shared=True), held(ledger.home / "lock.1-of-2"):
        assert ledger.is_running()
    assert not ledger.is_running()
