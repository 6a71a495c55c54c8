"""Run the networks of a model over a box of a case in HU, in windows of a size that memory allows."""

import copy
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from radiogen.config import Settings
from radiogen.errors import DeviceError
from radiogen.model.backends import Engine
from radiogen.model.folder import AnyModel
from radiogen.model.network_input import OVERLAP, resample_ct, scale_windows
from radiogen.networks.raseg import SIZE_STEP
from radiogen.runtime import Progress, free_memory_mb, is_out_of_memory, no_progress, peak_memory_mb
from radiogen.segmentation.sliding import (
    FLIPS,
    NO_LESION,
    ArrayBox,
    averaged,
    cut,
    inside,
    network_call,
    slide,
    windows_over,
)
from radiogen.volume import (
    AIR_HU,
    Box,
    FloatArray,
    array_of,
    crop,
    grid_with_spacing,
    resample_to,
    volume_like,
    widened,
)

# Torch keeps oneDNN's fast kernels from a lone volume with few channels, so two windows pay on a CPU.
BATCH_ON_CPU = 2
SMALLEST = 32  # voxels a side of the smallest window of RA-Seg
COUNTED_TO_TAKEN = 2.0  # memory taken by a forward pass / bytes counted from shapes, as measured
GENEROUS_BYTES = 2048  # a voxel of the window; the presets take 400 to 900
LONG_S = 60.0  # from here on a user is told how long a case takes
Voxels = npt.NDArray[np.bool_]
HalfArray = npt.NDArray[np.float16]


class InferenceSettings(Settings):
    """How the networks are run over a case."""

    overlap: float = Field(OVERLAP, ge=0, lt=1, description="share of a window that the next one covers too")
    batch: PositiveInt | None = Field(
        None, description="windows in one call; null is 2 for torch on a CPU, else 1; more pays on a GPU"
    )
    engine: Engine = Field("torch", description="what computes the network on a CPU")
    tta: bool = Field(False, description="also run over the seven mirror images, and average")


@dataclass(frozen=True)
class CaseRegion:
    """The networks' output in a box of the network's grid: logits, and how far the passes disagree.

    Logits are kept in half precision, since a whole case of them is in memory at once.
    """

    box: ArrayBox
    logits: HalfArray  # (d, h, w); of the mean probability, where there were several passes
    spread: HalfArray | None  # (d, h, w), standard deviation of the probability; None for one pass
    detail: sitk.Image | None = None  # logits on a finer grid, where the box was run in finer voxels


@dataclass(frozen=True)
class Effort:
    """What one case will take, estimated from its first windows."""

    windows: int
    size: tuple[int, ...]
    passes: int  # over each window: networks times flips
    seconds: float
    memory_mb: float

    @property
    def is_long(self) -> bool:
        """Whether a user who waits wants to know."""
        return self.seconds > LONG_S

    def __str__(self) -> str:
        """
        >>> print(Effort(210, (48, 64, 64), 8, 251.0, 1600.0))
        about 4 min and 1.6 GB: 210 windows of 48 x 64 x 64, each computed 8 times
        """
        long = f"{self.seconds / 60:.0f} min" if self.is_long else f"{self.seconds:.0f} s"
        passes = f", each computed {self.passes} times" if self.passes > 1 else ""
        size = " x ".join(map(str, self.size))
        return f"about {long} and {self.memory_mb / 1000:.1f} GB: {self.windows} windows of {size}{passes}"


class Inference:
    """The networks of a model on windows of a size that memory allows; made once for any number of cases.

    Where memory is short, windows get smaller rather than the case failing; `decisions` says so, since this
    is the one place where the same input may give another output on another machine.
    """

    def __init__(
        self,
        model: AnyModel,
        settings: InferenceSettings | None = None,
        on_estimate: Callable[[Effort], None] | None = None,
        progress: Progress = no_progress,
    ) -> None:
        self.model = model
        self.settings = settings or InferenceSettings()
        self.on_estimate = on_estimate
        self.progress = progress
        self.networks = [member.network for member in model.members]
        self.device = next(self.networks[0].parameters()).device
        self.passes = len(self.networks) * (len(FLIPS) if self.settings.tta else 1)
        self.size: tuple[int, ...] = model.config.preprocessing.size
        batch_pays = self.device.type == "cpu" and self.settings.engine == "torch"
        self.batch = self.settings.batch or (BATCH_ON_CPU if batch_pays else 1)
        self._memory: dict[tuple[tuple[int, ...], int], float] = {}
        self._seconds: float | None = None  # that one batch takes, once it is known
        self._make_calls()
        self.begin()

    def begin(self, later_mb: float = 0.0) -> None:
        """Begin a new case: forget the decisions on the last one; the effort is estimated anew.

        Args:
            later_mb: MiB that the case will take beside what the networks take.
        """
        self.decisions: list[str] = []  # about memory, in this case
        self._is_estimated = False
        self._later_mb = later_mb

    def run(self, hu: npt.NDArray[np.int16], prior: Voxels, box: ArrayBox, needed: Voxels) -> CaseRegion:
        """Run the networks over a box of a case.

        Args:
            hu: (D, H, W), the case on the network's grid.
            prior: (d, h, w), the attention prior in the box.
            box: Which part of the case.
            needed: (d, h, w); windows that hold none of these voxels are not computed.

        Raises:
            DeviceError: Memory is not enough for the smallest window.
        """
        held_mb = 0 if self.device.type == "cuda" else 6 * prior.size / 2**20
        free_mb = free_memory_mb(self.device) - held_mb
        if generous_memory_mb(self.size, self.batch) > free_mb:
            size, batch = fitting(self.size, self.batch, self._needed_mb, free_mb)
            self._resize(size, batch, f"{max(free_mb, 0):.0f} MB are free")
        while True:
            try:
                return self._run(hu[box], prior, box, needed)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
            self._shrink()

    def _run(self, hu: npt.NDArray[np.int16], prior: Voxels, box: ArrayBox, needed: Voxels) -> CaseRegion:
        channels = 1 if self.passes == 1 else 2
        windows = windows_over(hu.shape, self.size, self.settings.overlap)
        windows = [window for window in windows if needed[inside(window, hu.shape)].any()]
        hu_windows = self.model.config.preprocessing.windows
        self._done, self._count = 0, len(windows)

        def read(window: ArrayBox) -> tuple[FloatArray, FloatArray]:
            image = scale_windows(cut(hu, window, AIR_HU), hu_windows)
            return image, cut(prior, window, False).astype(np.float32)

        logits = np.full(hu.shape, NO_LESION, np.float16)
        spread = np.zeros(hu.shape, np.float16) if channels == 2 else None
        for slab in slide(hu.shape, windows, read, self._compute, self.device, self.batch, channels):
            here = slice(slab.start, slab.start + slab.values.shape[1])
            logits[here] = np.clip(slab.values[0], NO_LESION, -NO_LESION)
            if spread is not None:
                spread[here] = slab.values[1]
        return CaseRegion(box, logits, spread)

    def _compute(self, image: Tensor, prior: Tensor) -> Tensor:
        """Compute one batch of windows; report progress, and early on how long the windows will take."""
        if self.on_estimate and not self._is_estimated and self._seconds is not None:
            seconds = self._seconds * (self._count - self._done) / self.batch
            memory_mb = peak_memory_mb() + self._later_mb  # the peak of the first windows is in it
            self.on_estimate(Effort(self._count, self.size, self.passes, seconds, memory_mb))
            self._is_estimated = True
        began = time.perf_counter()
        values = self._call(image, prior)
        self._calls += 1
        if self._calls <= 2:  # the first call warms up, the second one tells the pace
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            self._seconds = time.perf_counter() - began if self._calls == 2 else None
        self._done += len(image)
        if self._count > self.batch:
            self.progress("windows", self._done, self._count)
        return values

    def _make_calls(self) -> None:
        calls = [network_call(network, self.device, self.settings.engine) for network in self.networks]
        self._call = averaged(calls, self.settings.tta)
        self._calls = 0
        self._seconds = None

    def _needed_mb(self, size: tuple[int, ...], batch: int) -> float:
        key = size, batch
        if key not in self._memory:
            channels = len(self.model.config.preprocessing.windows)
            self._memory[key] = window_memory_mb(self.networks[0], channels, size, batch)
        return self._memory[key]

    def _shrink(self) -> None:
        """Make windows smaller after memory was not enough."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        less = smaller(self.size)
        if self.batch > 1:
            self._resize(self.size, self.batch // 2, "memory was not enough")
        elif less:
            self._resize(less, 1, "memory was not enough")
        else:
            size = " x ".join(map(str, self.size))
            raise DeviceError(
                f"device {self.device}", f"has too little memory for windows of {size}", "free some memory"
            )

    def _resize(self, size: tuple[int, ...], batch: int, why: str) -> None:
        if (size, batch) == (self.size, self.batch):
            return
        if size != self.size:
            old, new = (" x ".join(map(str, each)) for each in (self.size, size))
            self.decisions.append(f"{why}: windows of {new} instead of {old}")
        else:
            count = "1 window" if batch == 1 else f"{batch} windows"
            self.decisions.append(f"{why}: {count} at once instead of {self.batch}")
        self.size, self.batch = size, batch
        self._make_calls()


def infer_zoomed(
    inference: Inference,
    ct: sitk.Image,
    scan: sitk.Image,
    prior: Callable[[sitk.Image], Voxels],
    box: Box,
    zoom: float,
) -> CaseRegion:
    """Run the networks over a box of a case in voxels `zoom` times as large.

    Args:
        inference: The networks.
        ct: The case on the network's grid, HU.
        scan: The case on the scanner's grid, which holds more detail than `ct` where voxels get finer.
        prior: Gives the attention prior (d, h, w) on the grid that is looked at: a box that went over voxels
            of 1.5 mm would miss the faces of a small nodule by a voxel.
        box: On the network's grid.
        zoom: 1 takes the voxels as they are.

    Returns:
        Logits on the voxels of the network's grid, interpolated back; of finer voxels also as they are, since
        a detour over the network's voxels would lose what they gained.
    """
    region = box.array_slices()
    here = crop(ct, box)
    if zoom == 1.0:
        where = prior(here)
        return inference.run(sitk.GetArrayViewFromImage(ct), where, region, where)
    spacing = here.GetSpacing()
    grid = grid_with_spacing(here, (spacing[0] * zoom, spacing[1] * zoom, spacing[2] * zoom))
    source = here if zoom > 1 else crop(scan, grid_region(here, scan, 2 * max(scan.GetSpacing())))
    zoomed_ct = resample_ct(source, grid)
    where = prior(grid)
    if not where.any():  # a box thinner than a coarse voxel
        return CaseRegion(region, np.full(here.GetSize()[::-1], NO_LESION, np.float16), None)
    d, h, w = where.shape
    found = inference.run(array_of(zoomed_ct), where, (slice(0, d), slice(0, h), slice(0, w)), where)

    def back(values: HalfArray, outside: float) -> HalfArray:
        resampled = resample_to(volume_like(values.astype(np.float32), zoomed_ct), here, outside)
        return np.asarray(array_of(resampled), np.float16)

    spread = None if found.spread is None else back(found.spread, 0.0)
    detail = volume_like(found.logits.astype(np.float32), zoomed_ct) if zoom < 1 else None
    return CaseRegion(region, back(found.logits, NO_LESION), spread, detail)


def grid_region(grid: sitk.Image, volume: sitk.Image, margin_mm: float) -> Box:
    """Return the box of a volume that a grid covers, with a margin; at least one voxel each way.

    It holds the voxels whose centres lie between the outer edges of the grid.
    """
    low = grid.TransformContinuousIndexToPhysicalPoint([-0.5] * 3)
    high = grid.TransformContinuousIndexToPhysicalPoint([n - 0.5 for n in grid.GetSize()])
    ends = np.array([volume.TransformPhysicalPointToContinuousIndex(point) for point in (low, high)])
    last = np.array(volume.GetSize()) - 1
    first = np.clip(np.ceil(ends.min(axis=0) - 1e-3), 0, last).astype(int)
    stop = np.clip(np.floor(ends.max(axis=0) + 1e-3), first, last).astype(int) + 1
    x, y, z = (int(n) for n in first)
    width, height, depth = (int(n) for n in stop - first)
    return widened(Box((x, y, z), (width, height, depth)), volume, margin_mm)


def generous_memory_mb(size: Sequence[int], batch: int) -> float:
    """Return more MiB than any preset takes for a window; where that is free, nothing need be counted."""
    return GENEROUS_BYTES * math.prod(size) * batch / 2**20


def window_memory_mb(network: nn.Module, channels: int, size: Sequence[int], batch: int) -> float:
    """Count from shapes how many MiB a forward pass takes beside the weights."""
    from radiogen.pruning.costs import measure_cost  # rarely needed: only where memory is short

    shapes = [(batch, channels, *size), (batch, 1, *size)]
    inputs = [torch.empty(shape, device="meta") for shape in shapes]
    cost = measure_cost(lambda: copy.deepcopy(network).to("meta"), inputs)
    return COUNTED_TO_TAKEN * cost.inference_mb


def smaller(size: Sequence[int]) -> tuple[int, ...] | None:
    """Halve the longest axis of a window; None where it cannot get smaller.

    >>> smaller((64, 96, 96)), smaller((32, 48, 32)), smaller((32, 32, 32))
    ((64, 48, 96), (32, 32, 32), None)
    """
    axis = max(range(len(size)), key=lambda a: size[a])
    half = max(SMALLEST, size[axis] // 2 // SIZE_STEP * SIZE_STEP)
    return None if half >= size[axis] else tuple(half if a == axis else n for a, n in enumerate(size))


def fitting(
    size: tuple[int, ...], batch: int, needed_mb: Callable[[tuple[int, ...], int], float], free_mb: float
) -> tuple[tuple[int, ...], int]:
    """Find the largest window and batch that need no more memory than is free.

    Fewer windows at once come first, then smaller ones. Where nothing fits, it is the smallest window by
    itself: the estimate may be wrong.
    """
    while needed_mb(size, batch) > free_mb:
        less = smaller(size)
        if batch > 1:
            batch = batch // 2
        elif less:
            size = less
        else:
            break
    return size, batch
