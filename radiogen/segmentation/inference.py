"""Logits from the networks of a model: one window, or a window that slides, over a case in HU."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from radiogen.config import Settings
from radiogen.errors import DeviceError
from radiogen.model.backends import Engine, make_backend
from radiogen.model.folder import AnyModel
from radiogen.model.network_input import OVERLAP, scale_windows
from radiogen.networks.kernels import fast_cpu, volumes_channels_last
from radiogen.runtime import Progress, free_memory_mb, no_progress, peak_memory_mb
from radiogen.segmentation.effort import (
    Effort,
    Pace,
    fitting,
    generous_memory_mb,
    is_out_of_memory,
    smaller,
    window_memory_mb,
)
from radiogen.segmentation.sliding import (
    NO_LESION,
    ArrayBox,
    Call,
    cut,
    inside,
    slide,
    windows_over,
)
from radiogen.volume import AIR_HU, FloatArray

SURE = 1e-6  # probabilities nearer to 0 and 1 than this are taken as that near
FLIPS: tuple[tuple[int, ...], ...] = tuple(
    tuple(axis for axis, flipped in zip((-3, -2, -1), which, strict=True) if flipped)
    for which in product((False, True), repeat=3)
)


def network_call(network: nn.Module, device: torch.device, engine: Engine = "torch") -> Call:
    """The one place where a network is called; half precision and channels last on CUDA."""
    if device.type == "cuda":
        volumes_channels_last(network)
    elif device.type == "cpu" and engine == "torch":
        fast_cpu(network)
    run = make_backend(engine, network, device)

    def call(image: Tensor, prior: Tensor) -> Tensor:
        with torch.inference_mode(), torch.autocast(device.type, enabled=device.type == "cuda"):
            logits = run(image, prior)
        return logits.float()

    return call


def averaged(calls: Sequence[Call], flips: bool) -> Call:
    """Several networks, or one network and mirror images, as one call.

    Returns:
        A call with two channels: the logit of the mean probability, and the standard deviation of the
        probability between the looks. With one look only, that call itself, with one channel.
    """
    if len(calls) == 1 and not flips:
        return calls[0]
    looks = [(call, axes) for call in calls for axes in (FLIPS if flips else FLIPS[:1])]

    def call(image: Tensor, prior: Tensor) -> Tensor:
        with torch.inference_mode():
            total = squares = torch.zeros((), device=image.device)
            for look, axes in looks:
                probability = torch.sigmoid(look(image.flip(axes), prior.flip(axes)).flip(axes))
                total, squares = total + probability, squares + probability.square()
            mean = total / len(looks)
            spread = (squares / len(looks) - mean.square()).clamp(min=0).sqrt()
            return torch.cat([torch.logit(mean, eps=SURE), spread], dim=1)

    return call


TOGETHER_ON_CPU = 2  # windows; torch keeps oneDNN's kernels from a lone volume with few channels
Voxels = npt.NDArray[np.bool_]
HalfArray = npt.NDArray[np.float16]


class InferenceSettings(Settings):
    """How the networks look at a case."""

    overlap: float = Field(OVERLAP, ge=0, lt=1, description="share of a window that the next one covers too")
    batch: PositiveInt | None = Field(
        None, description="windows in one call; null is 2 for torch on a CPU, else 1; more pays on a GPU"
    )
    engine: Engine = Field("torch", description="what computes the network on a CPU")
    tta: bool = Field(False, description="also look at the seven mirror images, and average")


@dataclass(frozen=True)
class Piece:
    """What the networks say of a box of the network's grid: logits, and how far they disagree."""

    near: ArrayBox
    logits: HalfArray  # (d, h, w); of the mean probability, where several looked
    spread: HalfArray | None  # (d, h, w), standard deviation of the probability; None where only one looked
    detail: sitk.Image | None = (
        None  # logits on a finer grid of their own, where the box was looked at in one
    )


class Inference:
    """The networks of a model on windows of a size that memory allows; made once for any number of cases."""

    def __init__(
        self,
        model: AnyModel,
        settings: InferenceSettings | None = None,
        tell: Callable[[Effort], None] | None = None,
        progress: Progress = no_progress,
    ) -> None:
        self.model, self.settings = model, settings or InferenceSettings()
        self.tell, self.progress = tell, progress
        self.networks = [member.network for member in model.members]
        self.device = next(self.networks[0].parameters()).device
        self.looks = len(self.networks) * (len(FLIPS) if self.settings.tta else 1)
        self.size: tuple[int, ...] = model.config.preprocessing.size
        pays = self.device.type == "cpu" and self.settings.engine == "torch"
        self.batch = self.settings.batch or (TOGETHER_ON_CPU if pays else 1)
        self.decisions: list[str] = []  # about memory, in this case
        self._told, self._later_mb = False, 0.0
        self._pace = Pace(self.device)
        self._memory: dict[tuple[tuple[int, ...], int], float] = {}
        self._make_calls()

    def begin(self, later_mb: float = 0.0) -> None:
        """A new case begins: what was decided of the last one is forgotten, and it is told anew how long.

        Args:
            later_mb: MiB that it will take beside what the networks take.
        """
        self.decisions, self._told, self._later_mb = [], False, later_mb

    def run(self, hu: npt.NDArray[np.int16], prior: Voxels, near: ArrayBox, wanted: Voxels) -> Piece:
        """What the networks say of a box of a case.

        Args:
            hu: (D, H, W), the case on the network's grid.
            prior: (d, h, w), of the box: where to look.
            near: The box.
            wanted: (d, h, w); windows that hold none of these are not computed.

        Raises:
            DeviceError: Memory is not enough for the smallest window.
        """
        self._fit(held_mb=6 * prior.size / 2**20)
        while True:
            try:
                return self._run(hu[near], prior, near, wanted)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
            self._shrink()

    def _run(self, hu: npt.NDArray[np.int16], prior: Voxels, near: ArrayBox, wanted: Voxels) -> Piece:
        channels = 1 if self.looks == 1 else 2
        boxes = [
            box
            for box in windows_over(hu.shape, self.size, self.settings.overlap)
            if wanted[inside(box, hu.shape)].any()
        ]
        seen = self.model.config.preprocessing.windows

        def read(box: ArrayBox) -> tuple[FloatArray, FloatArray]:
            return scale_windows(cut(hu, box, AIR_HU), seen), cut(prior, box, False).astype(np.float32)

        call = self._timed(len(boxes))
        logits = np.full(hu.shape, NO_LESION, np.float16)
        spread = np.zeros(hu.shape, np.float16) if channels == 2 else None
        for slab in slide(hu.shape, boxes, read, call, self.device, self.batch, channels):
            here = slice(slab.start, slab.start + slab.values.shape[1])
            logits[here] = np.clip(slab.values[0], NO_LESION, -NO_LESION)
            if spread is not None:
                spread[here] = slab.values[1]
        return Piece(near, logits, spread)

    def _timed(self, windows: int) -> Call:
        """The call, which says early on how long the windows will take, and how many of them are done."""
        done = 0

        def call(image: Tensor, prior: Tensor) -> Tensor:
            nonlocal done
            if self.tell and not self._told and self._pace.seconds is not None:
                seconds = self._pace.seconds * (windows - done) / self.batch
                memory_mb = peak_memory_mb() + self._later_mb  # the peak of the first windows is in it
                self.tell(Effort(windows, self.size, self.looks, seconds, memory_mb))
                self._told = True
            with self._pace.watch():
                answer = self._call(image, prior)
            done += len(image)
            if windows > self.batch:
                self.progress("windows", done, windows)
            return answer

        return call

    def _make_calls(self) -> None:
        calls = [network_call(network, self.device, self.settings.engine) for network in self.networks]
        self._call = averaged(calls, self.settings.tta)

    def _needed(self, size: tuple[int, ...], batch: int) -> float:
        key = size, batch
        if key not in self._memory:
            channels = len(self.model.config.preprocessing.windows)
            self._memory[key] = window_memory_mb(self.networks[0], channels, size, batch)
        return self._memory[key]

    def _fit(self, held_mb: float) -> None:
        """Make windows smaller if the estimate is above what is free."""
        free = free_memory_mb(self.device) - (0 if self.device.type == "cuda" else held_mb)
        if generous_memory_mb(self.size, self.batch) <= free:
            return
        self._take(*fitting(self.size, self.batch, self._needed, free), f"{max(free, 0):.0f} MB are free")

    def _shrink(self) -> None:
        """Make windows smaller after memory was not enough."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        less = smaller(self.size)
        if self.batch > 1:
            self._take(self.size, self.batch // 2, "memory was not enough")
        elif less:
            self._take(less, 1, "memory was not enough")
        else:
            size = " x ".join(map(str, self.size))
            raise DeviceError(
                f"device {self.device}", f"has too little memory for windows of {size}", "free some memory"
            )

    def _take(self, size: tuple[int, ...], batch: int, why: str) -> None:
        if (size, batch) == (self.size, self.batch):
            return
        if size != self.size:
            old, new = (" x ".join(map(str, each)) for each in (self.size, size))
            self.decisions.append(f"{why}: windows of {new} instead of {old}")
        else:
            count = "1 window" if batch == 1 else f"{batch} windows"
            self.decisions.append(f"{why}: {count} at once instead of {self.batch}")
        self.size, self.batch = size, batch
        self._pace = Pace(self.device)
        self._make_calls()


def predict(
    network: nn.Module,
    image: FloatArray,
    prior: FloatArray,
    window: Sequence[int],
    device: torch.device,
    batch: int = 1,
) -> FloatArray:
    """The probability of lesion at every voxel of arrays that are scaled already.

    Args:
        network: RA-Seg in evaluation mode, on `device`.
        image: (C, D, H, W), scaled to [0, 1].
        prior: (D, H, W), in [0, 1].
        window: Size of the window (D, H, W); an axis shorter than it is padded.
        device: Where the network runs; windows are brought there one batch at a time.
        batch: Windows in one call.

    Returns:
        (D, H, W), float32 in [0, 1].
    """

    def read(box: ArrayBox) -> tuple[FloatArray, FloatArray]:
        return np.stack([cut(channel, box, 0.0) for channel in image]), cut(prior, box, 0.0)

    probability = np.empty(prior.shape, np.float32)
    boxes = windows_over(prior.shape, window)
    for slab in slide(prior.shape, boxes, read, network_call(network, device), device, batch):
        here = slice(slab.start, slab.start + slab.values.shape[1])
        probability[here] = torch.sigmoid(torch.from_numpy(slab.values[0])).numpy()
    return probability


def window_about(box: ArrayBox, shape: Sequence[int], size: Sequence[int]) -> ArrayBox:
    """A box grown about its middle to at least `size`, moved to lie in an array where the array allows it."""
    slices = []
    for edge, length, wanted in zip(box, shape, size, strict=True):
        width = min(length, max(int(wanted), edge.stop - edge.start))
        first = min(max((edge.start + edge.stop) // 2 - width // 2, 0), length - width)
        slices.append(slice(first, first + width))
    return slices[0], slices[1], slices[2]
