"""A task whose process dies is tried again, and takes no other with it."""

import pytest
from pool_tasks import die_on, die_once, double, name_of_worker, refuse

from radiogen.pool import run_in_processes, worker_number


def test_every_task_is_done_once():
    assert sorted(run_in_processes(double, range(5), 2, died=str)) == [0, 2, 4, 6, 8]
    assert list(run_in_processes(double, [], 2, died=str)) == []


def test_a_task_that_kills_its_process_is_lost_alone():
    done = list(run_in_processes(die_on, [1, 2, 3, 4], 2, died=lambda task: -task))
    assert sorted(done) == [-3, 1, 2, 4]


def test_a_task_whose_process_dies_once_is_tried_again(tmp_path):
    tasks = [str(tmp_path / name) for name in "ab"]
    assert list(run_in_processes(die_once, tasks, 2, died=str, tries=2)) == ["done", "done"]


def test_workers_are_numbered_from_zero():
    assert set(run_in_processes(name_of_worker, range(6), 2, died=str)) == {0, 1}
    assert worker_number() == 0


def test_what_a_task_raises_comes_up():
    with pytest.raises(ValueError, match="no 1"):
        list(run_in_processes(refuse, [1], 1, died=str))
