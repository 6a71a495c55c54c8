"""Patches for training: what a sample looks like depends on seed, epoch and draw alone."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from scipy.ndimage import find_objects
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from radiogen.errors import CaseError, ConfigError
from radiogen.model.network_input import Preprocessing, scale_windows
from radiogen.model.priors import PriorName
from radiogen.segmentation.sliding import zoom_for, zoom_to_fill
from radiogen.training.augmentation import Rng, Shape, Warp, disturb, draw_warp, no_warp
from radiogen.training.places import drawn_box, empty_box, lung_places, move_on, rough_mask
from radiogen.training.prepared import PreparedCase
from radiogen.training.settings import TrainingSettings
from radiogen.training.synthetic_lesions import implant_lesion
from radiogen.volume import AIR_HU, FloatArray

Labels = npt.NDArray[np.int16]


@dataclass(frozen=True)
class Piece:
    """A piece of a case after the warp: HU, lesions 0..n, lungs, and the lesion that it was drawn for."""

    hu: FloatArray
    lesion: Labels
    lungs: Labels
    asked: int | None
    spacing_mm: tuple[float, float, float]  # (x, y, z)

    def cut(self, box: tuple[slice, slice, slice]) -> "Piece":
        """A part of it."""
        return replace(self, hu=self.hu[box], lesion=self.lesion[box], lungs=self.lungs[box])


def place_round(case: PreparedCase, label: int, warp: Warp, central: bool, rng: Rng) -> Shape:
    """The first voxel of a patch that holds the middle of a lesion, near its own middle or anywhere."""
    start = []
    shapes = zip(case.shape, warp.covered, warp.inset, case.lesion_boxes[label], strict=True)
    for length, size, inset, edge in shapes:
        middle = (edge.start + edge.stop) // 2
        slack = max(0, (size - (edge.stop - edge.start)) // 4) if central else 2 * size // 5
        first = middle - size // 2 + int(rng.integers(-slack, slack + 1))
        first = min(max(first, 0), length - size) if length > size else (length - size) // 2
        start.append(first - inset)
    z, y, x = start
    return z, y, x


def read_padded(
    case: PreparedCase, name: str, first: Sequence[int], shape: Shape, size: Shape, outside: int
) -> Labels:
    """A piece of an array of a case, from the voxel `first` on.

    What a warp asks for beyond the case is mirrored, so that no edge is seen where there is none; on an
    axis on which the case is no longer than a patch it is `outside`, as the network sees it in use.
    """
    short = [n <= s for n, s in zip(case.shape, size, strict=True)]
    ends = [  # the last voxel of a case may jut out of the scan and be air
        n - 1 if f + s > n and not is_short else n
        for f, s, n, is_short in zip(first, shape, case.shape, short, strict=True)
    ]
    inside = [slice(max(0, f), min(n, f + s)) for f, n, s in zip(first, ends, shape, strict=True)]
    piece = case.read(name, (inside[0], inside[1], inside[2]))
    pad = [(i.start - f, f + s - i.stop) for i, f, s in zip(inside, first, shape, strict=True)]
    if not any(before or behind for before, behind in pad):
        return piece
    mirrored = [(0, 0) if is_short else both for both, is_short in zip(pad, short, strict=True)]
    filled = [both if is_short else (0, 0) for both, is_short in zip(pad, short, strict=True)]
    return np.pad(np.pad(piece, mirrored, mode="reflect"), filled, constant_values=outside)


Patch = tuple[Tensor, Tensor, Tensor]  # image (C, D, H, W), prior (1, D, H, W), target (1, D, H, W)
Draw = tuple[int, int]  # epoch, number within the epoch

ROOM = 16  # voxels by which a patch is read larger, so that a made lesion may reach out of it


class PatchDataset(Dataset[Patch]):
    """Patches of prepared cases, addressed by (epoch, draw); each case is drawn equally often.

    Cases of the cohorts in `cohort_draws` are drawn that many times as often.

    Raises:
        CaseError: A case of `lungs_only_cohorts` has no place for a patch clear of its lesions.
        ConfigError: `cohort_draws` or `lungs_only_cohorts` names a cohort of which there is no case.
    """

    def __init__(
        self,
        cases: Sequence[PreparedCase],
        preprocessing: Preprocessing,
        training: TrainingSettings,
        seed: int,
    ) -> None:
        check_cohorts(training, {case.cohort for case in cases})
        self.cases = [case for case in cases for _ in range(training.cohort_draws.get(case.cohort, 1))]
        self.preprocessing = preprocessing
        self.training = training
        self.seed = seed
        for case in self.cases:
            if self._lungs_only(case) and not len(self._places(case, no_warp(self._size))):
                raise CaseError(
                    case.case_id,
                    "has no place for a patch that holds lung and none of its lesions",
                    "lower training.lung_share or preprocessing.size, or leave the case out",
                )

    def __len__(self) -> int:
        return len(self.cases) * self.training.patches_per_case

    def __getitem__(self, draw: Draw) -> Patch:
        epoch, number = draw
        rng = np.random.default_rng([self.seed, epoch, number])
        planning, placing, making, asking, changing, turning = rng.spawn(6)
        case = self.cases[number % len(self.cases)]
        settings = self.training.augmentation
        prior_name = self.training.priors[planning.integers(len(self.training.priors))]
        makes = planning.random() < self.training.synthetic_lesions
        unasked = prior_name in ("lungs", "none")
        empty = None
        if unasked and self.training.lungs_empty and planning.random() < self.training.lungs_empty:
            piece = self._piece(case, self._size, None, False, placing)
        elif prior_name == "box" and self.training.box_empty and planning.random() < self.training.box_empty:
            piece, empty = self._with_empty_box(case, placing, making)
        elif makes:
            piece = self._with_made_lesion(case, prior_name == "box", placing, making)
        else:
            label = self._true_lesion(case, prior_name, planning)
            zoom = self._zoom_round(case, label) if prior_name == "box" else None
            piece = self._piece(case, self._size, label, prior_name == "box", placing, zoom)
        prior, target = self._prior_and_target(piece, prior_name, asking)
        if empty is not None:
            prior, target = empty, np.zeros_like(target)
        image = scale_windows(
            disturb(piece.hu, piece.spacing_mm, settings, changing), self.preprocessing.windows
        )
        arrays = [image, prior[None].astype(np.float32), target[None].astype(np.float32)]
        turned = tuple(axis for axis in (1, 2, 3) if settings.flip and turning.random() < 0.5)
        arrays = [np.flip(array, turned) for array in arrays]
        image_t, prior_t, target_t = (torch.from_numpy(np.ascontiguousarray(array)) for array in arrays)
        return image_t, prior_t, target_t

    @property
    def _size(self) -> Shape:
        return self.preprocessing.size

    def _lungs_only(self, case: PreparedCase) -> bool:
        return case.cohort in self.training.lungs_only_cohorts

    def _true_lesion(self, case: PreparedCase, prior_name: PriorName, rng: Rng) -> int | None:
        """The lesion to draw a patch round, or None for a patch of lung."""
        wanted = rng.random() < self.training.lesion_share or prior_name == "box"
        labels = [] if self._lungs_only(case) else sorted(case.lesion_boxes)
        return int(rng.choice(labels)) if labels and wanted else None

    def _prior_and_target(
        self, piece: Piece, prior_name: PriorName, rng: Rng
    ) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
        """A box asks for the one lesion it was drawn round, every other prior for all of them.

        A box or a mask cannot be drawn where there is no lesion: lungs or nothing take its place.
        """
        seen = piece.lesion > 0
        asked = piece.lesion == piece.asked if piece.asked else np.zeros_like(seen)
        if prior_name == "box" and asked.any():
            return drawn_box(asked, self.training, rng), asked
        if prior_name == "mask" and seen.any():
            return rough_mask(seen, rng), seen
        if prior_name in ("box", "mask"):
            without = [name for name in self.training.priors if name in ("lungs", "none")] or ["lungs"]
            prior_name = without[rng.integers(len(without))]
        if prior_name == "none":
            return np.ones(seen.shape, np.float32), seen
        return (piece.lungs > 0).astype(np.float32), seen

    def _with_made_lesion(self, case: PreparedCase, central: bool, placing: Rng, making: Rng) -> Piece:
        """A patch with lung into which a lesion was laid; without, if no lesion found room.

        The lesion is laid into a somewhat larger piece, so that it may reach out of the patch.
        """
        size, sizes_mm, zoom = self._size, self.training.synthetic_mm, None
        if central:
            sizes_mm, zoom = self._size_and_zoom(case, making)
        lengths = [n / min(zoom or 1.0, 1.0) for n in case.shape]
        d, h, w = (max(s, min(s + ROOM, int(n))) for n, s in zip(lengths, size, strict=True))
        piece = self._piece(case, (d, h, w), None, False, placing, zoom)
        middle = [n // 2 for n in piece.hu.shape]
        outside = {"always": True, "box": central, "never": False}[self.training.synthetic_outside]
        inside, taken = piece.lungs > 0, piece.lesion > 0
        made = implant_lesion(piece.hu, inside, piece.spacing_mm, making, sizes_mm, taken, central, outside)
        if made is not None:
            label = np.int16(piece.lesion.max() + 1)
            hidden = making.random() < 0.5  # lung masks by threshold often leave a lesion out
            lungs = np.where(made.lesion & hidden, np.int16(0), piece.lungs)
            lesion = np.where(made.lesion, label, piece.lesion)
            piece = replace(piece, hu=made.hu, lesion=lesion, lungs=lungs, asked=int(label))
            middle = [(s.start + s.stop) // 2 for s in find_objects(made.lesion.astype(np.uint8))[0]]
        firsts = []
        for at, s, n in zip(middle, size, piece.hu.shape, strict=True):
            anywhere = int(placing.integers(max(0, at - s + 1), min(n - s, at) + 1))
            firsts.append(min(max(at - s // 2, 0), n - s) if central else anywhere)
        z, y, x = (slice(first, first + s) for first, s in zip(firsts, size, strict=True))
        return piece.cut((z, y, x))

    def _with_empty_box(
        self, case: PreparedCase, placing: Rng, making: Rng
    ) -> tuple[Piece, FloatArray | None]:
        """A patch over lung, and a box in it that holds no lesion; None where no such box was found."""
        sizes_mm, zoom = self._size_and_zoom(case, making)
        piece = self._piece(case, self._size, None, False, placing, zoom)
        sides = sizes_mm[0] / np.array(piece.spacing_mm[::-1])
        box = empty_box(piece.hu, piece.lungs > 0, piece.lesion > 0, sides, making)
        if box is None:
            return piece, None
        prior = np.zeros(piece.hu.shape, np.float32)
        prior[box] = 1.0
        return piece, prior

    def _size_and_zoom(self, case: PreparedCase, rng: Rng) -> tuple[tuple[float, float], float]:
        """The diameter of a lesion in mm, as a range of one value, and the zoom that its box would get."""
        size_mm = float(np.exp(rng.uniform(*np.log(self.training.synthetic_mm))))
        voxels = [size_mm / step for step in case.spacing_mm[::-1]]
        share = max(n / length for n, length in zip(voxels, self._size, strict=True))
        return (size_mm, size_mm), zoom_to_fill(share, self.preprocessing.box_fills)

    def _zoom_round(self, case: PreparedCase, label: int | None) -> float | None:
        if label is None:
            return None
        return zoom_for(case.lesion_boxes[label], self._size, self.preprocessing.box_fills)

    def _piece(
        self,
        case: PreparedCase,
        shape: Shape,
        label: int | None,
        central: bool,
        rng: Rng,
        zoom: float | None = None,
    ) -> Piece:
        """A warped piece of a case: round a lesion, or over lung."""
        warping, placing = rng.spawn(2)
        warp = draw_warp(shape, case.spacing_mm, self.training.augmentation, warping, zoom)
        if label is not None:
            start = place_round(case, label, warp, central, placing)
            return self._read(case, warp, start, label)
        places = self._places(case, warp)
        if not len(places):  # of a case whose lesions must not be seen: the plain patch has a place
            warp = no_warp(self._size)
            places = self._places(case, warp)
        first = move_on(places[placing.integers(len(places))], case.shape, warp.covered, placing)
        z, y, x = (at - inset for at, inset in zip(first, warp.inset, strict=True))
        return self._read(case, warp, (z, y, x), None)

    def _places(self, case: PreparedCase, warp: Warp) -> npt.NDArray[np.int64]:
        """The first voxels that a patch may cover."""
        forbidden = case.blocks("near_lesion_blocks") if self._lungs_only(case) else None
        lungs, share = case.blocks("lung_blocks"), self.training.lung_share
        reading = warp.reading.moved(warp.inset)
        return lung_places(lungs, forbidden, case.shape, warp.covered, reading, share)

    def _read(self, case: PreparedCase, warp: Warp, start: Shape, label: int | None) -> Piece:
        first = [s + low for s, low in zip(start, warp.reading.low, strict=True)]
        hu, lesion, lungs = (
            read_padded(case, name, first, warp.reading.shape, self._size, outside)
            for name, outside in (("hu", int(AIR_HU)), ("lesion", 0), ("lungs", 0))
        )
        lesion, lungs = warp.labels([lesion, lungs])
        x_mm, y_mm, z_mm = (step * warp.zoom for step in case.spacing_mm)
        return Piece(warp.hu(hu.astype(np.float32)), lesion, lungs, label, (x_mm, y_mm, z_mm))


def check_cohorts(training: TrainingSettings, cohorts: set[str]) -> None:
    """Refuse the name of a cohort that is not there: misspelt, it would show lesions that must not be seen.

    Raises:
        ConfigError: `cohort_draws` or `lungs_only_cohorts` names a cohort of which there is no case.
    """
    for key in ("cohort_draws", "lungs_only_cohorts"):
        absent = set(getattr(training, key)) - cohorts
        if absent:
            hint = f"the cohorts are {', '.join(sorted(name or '(none)' for name in cohorts))}"
            raise ConfigError(f"training.{key}", f"names {min(absent)!r}, which has no case", hint)


class EpochSampler(Sampler[Draw]):
    """The draws of one epoch in an order that depends on seed and epoch alone.

    Of several processes the `rank`-th of `world` takes every `world`-th draw of that order; what is left
    over is drawn by none, so that all take equally many.
    """

    def __init__(self, count: int, seed: int, rank: int = 0, world: int = 1) -> None:
        self.count = count
        self.seed = seed
        self.rank, self.world = rank, world
        self.epoch = 0

    def __len__(self) -> int:
        return self.count // self.world

    def __iter__(self) -> Iterator[Draw]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.count)
        mine = order[: len(self) * self.world][self.rank :: self.world]
        return iter([(self.epoch, int(number)) for number in mine])
