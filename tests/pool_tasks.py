"""Tasks for processes of a pool, which must be importable in them."""

import os
import time
from pathlib import Path

from radiogen.pool import worker_number


def double(number):
    return 2 * number


def name_of_worker(_task):
    time.sleep(0.2)  # so that one process does not take all tasks
    return worker_number()


def die_on(task):
    """End the process on the number 3; else return the task."""
    if task == 3:
        os._exit(1)
    return task


def die_once(task):
    """End the process the first time that a file is not there."""
    mark = Path(task)
    if not mark.exists():
        mark.touch()
        os._exit(1)
    return "done"


def refuse(task):
    raise ValueError(f"no {task}")
