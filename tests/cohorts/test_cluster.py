"""A Dask cluster gives the bytes that processes give, whatever happens to its workers."""

import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest
from cohorts.cohort_workers import FATAL, MOST, counted, dies_in_the_middle_of_one, loses_the_scheduler
from cohorts.conftest import BROKEN, results

from radiogen.cohorts.run import run_cohort
from radiogen.cohorts.workers import WorkerOptions
from radiogen.errors import ConfigError

distributed = pytest.importorskip("distributed")


def in_this_process(**options):
    return distributed.LocalCluster(n_workers=1, processes=False, dashboard_address=None, **options)


def test_workers_that_are_killed_cost_at_most_their_own_case(plain_run, settings, tmp_path):
    """Two worker processes; the one that has a certain case is killed in its middle, each time."""
    run = tmp_path / "run"
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        assert cluster.scheduler_address.startswith("tcp://127.0.0.1:")
        spread = WorkerOptions(scheduler=cluster.scheduler_address)
        report = run_cohort(settings, run, spread, work=dies_in_the_middle_of_one)
        reasons = {row["case_id"]: row["reason"] for row in report.failures}
        assert report.done == 3 and reasons.keys() == {FATAL, BROKEN}
        assert "died 3 times" in reasons[FATAL]
        assert len((run / ".deaths").read_text().split()) == 3
        mended = run_cohort(settings, run, spread, retry=True)
    assert mended.done == 1 and [row["case_id"] for row in mended.failures] == [BROKEN]
    assert results(run) == results(plain_run)


@contextmanager
def started_by_hand(home):
    """A scheduler and a worker in processes of their own; its address. scheduler.pid says whom to kill."""
    common = ("--scheduler-file", home / "scheduler.json", "--no-dashboard")
    kinds = [("dask_scheduler", *common, "--host", "127.0.0.1", "--port", "0")]
    kinds += [("dask_worker", *common, "--nthreads", "1", "--no-nanny", "--memory-limit", "0")]
    started = [
        subprocess.Popen(
            [sys.executable, "-m", f"distributed.cli.{kind}", *map(str, words)],
            cwd=home,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        for kind, *words in kinds
    ]
    (home / "scheduler.pid").write_text(str(started[0].pid))
    try:
        while not (home / "scheduler.json").is_file():
            time.sleep(0.1)
        address = json.loads((home / "scheduler.json").read_text())["address"]
        with distributed.Client(address, set_as_default=False) as client:
            client.wait_for_workers(1, timeout=60)
        yield address
    finally:
        for process in started:
            process.kill()
            process.wait(20)


def test_a_scheduler_that_is_lost_in_the_middle_ends_the_run_in_one_line(plain_run, settings, tmp_path):
    run = tmp_path / "run"
    with started_by_hand(tmp_path) as address, pytest.raises(ConfigError, match="was lost"):
        run_cohort(settings, run, WorkerOptions(scheduler=address), work=loses_the_scheduler)
    assert run_cohort(settings, run).done >= 2  # those that were never handed out
    assert results(run) == results(plain_run)


def test_on_devices_each_case_has_one_for_itself(settings, tmp_path):
    on_gpu = settings.model_copy(update={"device": "cuda", "steps": ("segment",)})
    with in_this_process(threads_per_worker=4) as cluster:
        spread = WorkerOptions(scheduler=cluster.scheduler_address)
        with pytest.raises(ConfigError, match="has no worker with --resources GPU=1"):
            run_cohort(on_gpu, tmp_path / "run", spread)
    with in_this_process(threads_per_worker=4, resources={"GPU": 1}) as cluster:
        spread = WorkerOptions(scheduler=cluster.scheduler_address)
        report = run_cohort(on_gpu, tmp_path / "run", spread, work=counted)
    assert report.done == 4 and MOST == [1, 1, 1, 1, 1]


def test_a_scheduler_that_is_not_there_is_one_line(settings, tmp_path, monkeypatch):
    monkeypatch.setattr("radiogen.cohorts.workers.CONNECT_S", 1)
    with pytest.raises(ConfigError, match="does not answer"):
        run_cohort(settings, tmp_path / "run", WorkerOptions(scheduler="tcp://127.0.0.1:1"))


def test_a_worker_that_cannot_begin_is_one_line(settings, tmp_path):
    def broken(_task):
        raise ModuleNotFoundError("No module named 'radiogen'")

    with in_this_process(threads_per_worker=1) as cluster:
        spread = WorkerOptions(scheduler=cluster.scheduler_address)
        with pytest.raises(ConfigError, match="cannot take a case: ModuleNotFoundError"):
            run_cohort(settings, tmp_path / "run", spread, work=broken)
