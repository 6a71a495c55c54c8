"""What workers do in the tests of cohort runs; in a module of its own, since processes import it."""

import errno
import os
import signal
from dataclasses import replace

from radiogen import provenance
from radiogen.cohorts import one_case
from radiogen.cohorts.ledger import Ledger, LedgerEntry
from radiogen.cohorts.one_case import CaseTask, run_case

FATAL = "phantom-002"
SEGMENT = one_case.STEP["segment"]


def dies_on_one(task: CaseTask) -> LedgerEntry:
    """The process is killed whenever it gets one certain case."""
    if task.case_id == FATAL:
        os.kill(os.getpid(), signal.SIGKILL)
    return run_case(task)


def dies_once_on_each(task: CaseTask) -> LedgerEntry:
    """The process is killed in the middle of every case, the first time that it is tried."""
    mark = task.run / f".once-{task.case_id}"
    if not mark.exists():
        mark.touch()
        provenance.os.fsync = lambda _file: os.kill(os.getpid(), signal.SIGKILL)
    return run_case(task)


def dies_in_the_middle_of_one(task: CaseTask) -> LedgerEntry:
    """The process is killed in a step of one certain case, and leaves a line each time."""

    def killed(task: CaseTask, _ledger: Ledger) -> None:
        with (task.run / ".deaths").open("a") as file:
            file.write(f"{os.getpid()}\n")
        os.kill(os.getpid(), signal.SIGKILL)

    one_case.STEP["segment"] = killed if task.case_id == FATAL else SEGMENT
    return run_case(task)


def loses_the_scheduler(task: CaseTask) -> LedgerEntry:
    """The scheduler is killed in the middle of one certain case."""
    if task.case_id == FATAL:
        os.kill(int((task.run.parent / "scheduler.pid").read_text()), signal.SIGKILL)
    return run_case(task)


AT_WORK: list[str] = []
MOST: list[int] = []


def counted(task: CaseTask) -> LedgerEntry:
    """On threads of one process: how many are at work whenever a case begins. The device is not asked."""
    AT_WORK.append(task.case_id)
    MOST.append(len(AT_WORK))
    try:
        return run_case(replace(task, settings=task.settings.model_copy(update={"device": "cpu"})))
    finally:
        AT_WORK.remove(task.case_id)


def finds_the_disk_full(task: CaseTask) -> LedgerEntry:
    """Nothing can be flushed any more after the first case."""
    if task.case_id != "phantom-001":

        def full(_file: int) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        provenance.os.fsync = full
    return run_case(task)
