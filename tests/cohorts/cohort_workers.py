"""What workers do in the tests of cohort runs; in a module of its own, since processes import it."""

import errno
import os
import signal

from radiogen import provenance
from radiogen.cohorts.ledger import Entry
from radiogen.cohorts.one_case import CaseTask, run_case

FATAL = "phantom-002"


def dies_on_one(task: CaseTask) -> Entry:
    """The process is killed whenever it gets one certain case."""
    if task.case_id == FATAL:
        os.kill(os.getpid(), signal.SIGKILL)
    return run_case(task)


def dies_once_on_each(task: CaseTask) -> Entry:
    """The process is killed in the middle of every case, the first time that it is tried."""
    mark = task.run / f".once-{task.case_id}"
    if not mark.exists():
        mark.touch()
        provenance.os.fsync = lambda _file: os.kill(os.getpid(), signal.SIGKILL)
    return run_case(task)


def dies_in_the_middle_of_one(task: CaseTask) -> Entry:
    """The process is killed whenever it writes a result of one certain case; leaves a line for each try."""
    if task.case_id == FATAL:
        with (task.run / ".deaths").open("a") as file:
            file.write(f"{os.getpid()}\n")
        provenance.os.fsync = lambda _file: os.kill(os.getpid(), signal.SIGKILL)
    return run_case(task)


def finds_the_disk_full(task: CaseTask) -> Entry:
    """Nothing can be flushed any more after the first case."""
    if task.case_id != "phantom-001":

        def full(_file: int) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        provenance.os.fsync = full
    return run_case(task)
