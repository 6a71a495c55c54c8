"""Workers are as many as fit into memory, and a run says so."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from radiogen.cohorts import workers as memory
from radiogen.cohorts.run import plan_tasks, run_cohort
from radiogen.cohorts.settings import STEPS
from radiogen.cohorts.workers import WorkerOptions, fitting_jobs, worker_memory_mb
from radiogen.model.folder import starter_model
from radiogen.runtime import no_progress


@pytest.fixture
def tasks(settings, tmp_path):
    plan = plan_tasks(settings, settings.source, tmp_path, "token", no_progress)
    return list(plan.tasks.values())


def test_a_larger_ct_needs_more(tasks, monkeypatch):
    small = worker_memory_mb(tasks)
    monkeypatch.setattr(memory, "_voxels", lambda _task: 512 * 512 * 300)
    assert worker_memory_mb(tasks) > small + 1000


@pytest.mark.parametrize(("voxels", "peak_mb"), [(0.43e6, 930), (26e6, 1234), (77.9e6, 2534)])
def test_the_estimate_is_above_what_was_measured_but_not_far(settings, tasks, monkeypatch, voxels, peak_mb):
    """Peaks of workers that ingested and segmented with the shipped model, 25 November 2026."""
    road = settings.model_copy(update={"steps": STEPS[:3], "model": (starter_model(),)})
    monkeypatch.setattr(memory, "_voxels", lambda _task: int(voxels))
    assert peak_mb < worker_memory_mb([replace(tasks[0], settings=road)]) < 1.2 * peak_mb


def test_a_volume_file_counts_as_its_voxels(tasks):
    task = tasks[0]
    plan = SimpleNamespace(source=SimpleNamespace(ct=task.case.ct_path))
    assert memory._voxels(replace(task, case=None, plan=plan)) == memory._voxels(task) > 1000


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
    assert run_cohort(only, tmp_path / "run", WorkerOptions(jobs=2), report=said.append).done == 4
    assert len(said) == 1 and said[0].startswith("1 job instead of 2")
