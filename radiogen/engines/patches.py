"""Patches for training: what a sample looks like depends on seed, epoch and draw alone."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.ndimage import binary_dilation
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from radiogen.engines.prepared import ArrayBox, PreparedCase
from radiogen.engines.training_settings import TrainingSettings
from radiogen.preprocess.network_input import Preprocessing, scale_windows
from radiogen.preprocess.priors import PriorName
from radiogen.volume import AIR_HU, FloatArray

Patch = tuple[Tensor, Tensor, Tensor]  # image (C, D, H, W), prior (1, D, H, W), target (1, D, H, W)
Draw = tuple[int, int]  # epoch, number within the epoch


class PatchDataset(Dataset[Patch]):
    """Patches of prepared cases, addressed by (epoch, draw); each case is drawn equally often."""

    def __init__(
        self,
        cases: Sequence[PreparedCase],
        preprocessing: Preprocessing,
        training: TrainingSettings,
        seed: int,
    ) -> None:
        self.cases = list(cases)
        self.preprocessing = preprocessing
        self.training = training
        self.seed = seed

    def __len__(self) -> int:
        return len(self.cases) * self.training.patches_per_case

    def __getitem__(self, draw: Draw) -> Patch:
        epoch, number = draw
        chance = np.random.default_rng([self.seed, epoch, number])
        case = self.cases[number % len(self.cases)]
        prior_name = self.training.priors[chance.integers(len(self.training.priors))]
        labels = sorted(case.lesion_boxes)
        wants_lesion = prior_name == "box" or chance.random() < self.training.lesion_share
        label = int(chance.choice(labels)) if labels and wants_lesion else None
        start = self._place(case, label, chance)
        image = scale_windows(
            self._disturb(self._read(case, "hu", start, AIR_HU), chance), self.preprocessing.windows
        )
        prior, target = self._prior_and_target(case, prior_name, label, start, chance)
        arrays = [image, prior[None].astype(np.float32), target[None].astype(np.float32)]
        for axis in (1, 2, 3):
            if self.training.flip and chance.random() < 0.5:
                arrays = [np.flip(array, axis) for array in arrays]
        image_t, prior_t, target_t = (torch.from_numpy(np.ascontiguousarray(array)) for array in arrays)
        return image_t, prior_t, target_t

    def _prior_and_target(
        self,
        case: PreparedCase,
        prior_name: PriorName,
        label: int | None,
        start: list[int],
        chance: np.random.Generator,
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        """A box asks for the one lesion it was drawn round, every other prior for all of them."""
        lesion = self._read(case, "lesion", start, 0)
        if prior_name == "box" and label is not None:
            return self._box_prior(case.lesion_boxes[label], start, chance), lesion == label
        if prior_name == "mask":
            rounds = int(chance.integers(0, 4))
            rough = binary_dilation(lesion > 0, iterations=rounds) if rounds else lesion > 0
            return rough, lesion > 0
        if prior_name == "none":
            return np.ones(lesion.shape, np.float32), lesion > 0
        return self._read(case, "lungs", start, 0) > 0, lesion > 0

    def _place(self, case: PreparedCase, label: int | None, chance: np.random.Generator) -> list[int]:
        """The first voxel of a patch: anywhere, or so that it holds the middle of a lesion."""
        start = []
        for axis, (length, size) in enumerate(zip(case.shape, self.preprocessing.size, strict=True)):
            if label is None:
                low, high = 0, max(0, length - size)
            else:
                box = case.lesion_boxes[label][axis]
                middle = (box.start + box.stop) // 2
                slack = max(0, (size - (box.stop - box.start)) // 2)
                low, high = middle - size // 2 - slack // 2, middle - size // 2 + slack // 2
            first = int(chance.integers(low, high + 1))
            start.append(min(max(first, 0), length - size) if length > size else (length - size) // 2)
        return start

    def _read(self, case: PreparedCase, name: str, start: list[int], outside: float) -> npt.NDArray[np.int16]:
        """A patch of `size` voxels; what lies outside the case is filled."""
        size = self.preprocessing.size
        inside = [slice(max(0, s), min(n, s + p)) for s, n, p in zip(start, case.shape, size, strict=True)]
        piece = case.read(name, (inside[0], inside[1], inside[2]))
        before = [i.start - s for i, s in zip(inside, start, strict=True)]
        pad = [(b, p - b - n) for b, p, n in zip(before, size, piece.shape, strict=True)]
        filled: npt.NDArray[np.int16] = np.pad(piece, pad, constant_values=int(outside))
        return filled

    def _box_prior(self, box: ArrayBox, start: list[int], chance: np.random.Generator) -> FloatArray:
        """The box of a lesion with its faces shifted and moved out, as a person would draw it."""
        prior = np.zeros(self.preprocessing.size, np.float32)
        jitter, loosen = self.training.box_jitter, self.training.box_loosen
        slices = []
        for edge, first, size in zip(box, start, self.preprocessing.size, strict=True):
            width = edge.stop - edge.start
            out_low, out_high = chance.uniform(-jitter, jitter + loosen, size=2) * width
            low = int(np.clip(round(edge.start - first - out_low), 0, size - 1))
            high = int(np.clip(round(edge.stop - first + out_high), low + 1, size))
            slices.append(slice(low, high))
        prior[tuple(slices)] = 1.0
        return prior

    def _disturb(self, hu: npt.NDArray[np.int16], chance: np.random.Generator) -> FloatArray:
        """A small shift of the whole patch and noise of another dose, in HU."""
        shift = chance.normal(0.0, self.training.shift_hu)
        noise = chance.uniform(0.0, self.training.noise_hu)
        return (hu + shift + noise * chance.standard_normal(hu.shape, dtype=np.float32)).astype(np.float32)


class EpochSampler(Sampler[Draw]):
    """The draws of one epoch in an order that depends on seed and epoch alone."""

    def __init__(self, count: int, seed: int) -> None:
        self.count = count
        self.seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Draw]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.count)
        return iter([(self.epoch, int(number)) for number in order])
