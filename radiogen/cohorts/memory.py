"""How many workers fit into memory: estimated before they start."""

from collections.abc import Iterable
from math import prod

from radiogen.cohorts.networks import all_members
from radiogen.cohorts.one_case import CaseTask
from radiogen.engines.effort import generous_memory_mb
from radiogen.engines.model_folder import read_model_config
from radiogen.errors import RadiogenError
from radiogen.io.nifti import read_grid
from radiogen.runtime import free_memory_mb

IMPORTS_MB = 700.0  # a worker with torch, MONAI and ITK, before its first case
BYTES_A_VOXEL = 40  # CT, masks, probabilities and copies of one case on the scanner's grid


def worker_memory_mb(tasks: Iterable[CaseTask]) -> float:
    """MiB that one worker needs for the largest of these cases, generously estimated."""
    tasks = list(tasks)
    voxels = max((_voxels(task) for task in tasks), default=0)
    members = all_members(tasks[0].settings.model) if tasks else []
    network = 0.0
    if members:
        weights = sum((member / "model.safetensors").stat().st_size for member in members) / 2**20
        network = 2 * weights + generous_memory_mb(read_model_config(members[0]).preprocessing.size, 1)
    return IMPORTS_MB + network + voxels * BYTES_A_VOXEL / 2**20


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
    if task.case is not None:
        try:
            return prod(read_grid(task.case.ct_path).GetSize())
        except RadiogenError:
            return 0
    slices = task.plan.source.ct if task.plan else None
    if slices is None or not hasattr(slices, "slices"):
        return 0
    return sum(prod(one.size) for one in slices.slices)
