"""How many workers fit into memory: estimated before they start."""

from collections.abc import Iterable
from math import prod
from pathlib import Path

from radiogen.cohorts.one_case import CaseTask
from radiogen.segmentation.effort import generous_memory_mb
from radiogen.model.ensemble import all_members
from radiogen.model.folder import WEIGHTS, read_model_config
from radiogen.errors import RadiogenError
from radiogen.io.nifti import read_grid
from radiogen.runtime import free_memory_mb

IMPORTS_MB = 550.0  # a worker with torch, MONAI and ITK, and what it keeps between cases
# Peaks of a worker in MiB, shipped model: 930 at 0.4 million voxels, 1234 at 26 million (99 slices),
# 2534 at 78 million, all in ingest; segment alone 2700 at 262 million (docs/segmentation.md).
INGEST_BYTES, CASE_BYTES = 30, 15  # a voxel of the scanner's grid: with ingest, and of cases that are there


def worker_memory_mb(tasks: Iterable[CaseTask]) -> float:
    """MiB that one worker needs for the largest of these cases; steps use the same memory in turn."""
    tasks = list(tasks)
    if not tasks:
        return IMPORTS_MB
    settings = tasks[0].settings
    bytes_a_voxel = INGEST_BYTES if "ingest" in settings.steps else CASE_BYTES
    volumes = max(_voxels(task) for task in tasks) * bytes_a_voxel / 2**20
    members = all_members(settings.model)
    if not members:
        return IMPORTS_MB + volumes
    weights = sum((member / WEIGHTS).stat().st_size for member in members) / 2**20
    window = generous_memory_mb(read_model_config(members[0]).preprocessing.size, 1)
    return IMPORTS_MB + 2 * weights + max(volumes, window)


def fitting_jobs(tasks: Iterable[CaseTask], jobs: int) -> tuple[int, str]:
    """As many workers as were asked for, or fewer if memory is short, and then a line that says so."""
    if jobs == 1:
        return 1, ""
    one_mb, free_mb = worker_memory_mb(tasks), free_memory_mb()
    fit = max(1, min(jobs, int(free_mb // one_mb)))
    if fit == jobs:
        return jobs, ""
    lowered = f"{fit} {'job' if fit == 1 else 'jobs'} instead of {jobs}"
    return fit, f"{lowered}: each may need {one_mb:.0f} MB, {free_mb:.0f} MB are free"


def _voxels(task: CaseTask) -> int:
    ct = task.case.ct_path if task.case else task.plan.source.ct if task.plan else None
    if isinstance(ct, Path):
        try:
            return prod(read_grid(ct).GetSize())
        except RadiogenError:
            return 0
    return sum(prod(one.size) for one in ct.slices) if ct else 0
