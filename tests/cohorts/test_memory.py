"""Workers are as many as fit into memory, and a run says so."""

from dataclasses import replace

import pytest

from radiogen.cohorts import memory
from radiogen.cohorts.memory import fitting_jobs, worker_memory_mb
from radiogen.cohorts.planning import plan_tasks
from radiogen.cohorts.run import Spread, run_cohort
from radiogen.phantoms.cases import tiny_case
from radiogen.phantoms.chest import ChestSize
from radiogen.runtime import no_tick


@pytest.fixture
def tasks(settings, tmp_path):
    plan = plan_tasks(settings, settings.source, tmp_path, "token", no_tick)
    return list(plan.tasks.values())


def test_a_larger_ct_needs_more(tasks, tmp_path):
    large = tiny_case(tmp_path / "large", size=ChestSize((80, 64, 24), (4.2, 4.5, 8.0), variation=0))
    more = worker_memory_mb([*tasks, replace(tasks[0], case=large)])
    assert more > worker_memory_mb(tasks) > 500


@pytest.mark.parametrize(("workers_fit", "asked", "jobs"), [(2.5, 4, 2), (0.3, 4, 1), (9, 4, 4)])
def test_jobs_are_lowered_to_what_fits(tasks, monkeypatch, workers_fit, asked, jobs):
    one = worker_memory_mb(tasks)
    monkeypatch.setattr(memory, "free_memory_mb", lambda: workers_fit * one)
    found, said = fitting_jobs(tasks, asked)
    assert found == jobs
    assert (said == "") == (jobs == asked)
    if said:
        words = "1 job" if jobs == 1 else f"{jobs} jobs"
        assert said.startswith(f"{words} instead of {asked}: each may need {one:.0f} MB")


def test_a_run_says_that_it_takes_fewer(settings, tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "free_memory_mb", lambda: 1.0)
    said = []
    only = settings.model_copy(update={"steps": ("segment",)})
    assert run_cohort(only, tmp_path / "run", Spread(jobs=2), say=said.append).done == 4
    assert len(said) == 1 and said[0].startswith("1 job instead of 2")
