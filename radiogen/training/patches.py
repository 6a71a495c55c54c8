"""Patches for training: what a patch shows depends on seed, epoch and draw alone."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from scipy.ndimage import find_objects
from torch import Tensor
from torch.utils.data import Dataset

from radiogen.errors import CaseError
from radiogen.model.network_input import Preprocessing, scale_windows
from radiogen.model.priors import PriorName
from radiogen.segmentation.sliding import zoom_for, zoom_to_fill
from radiogen.training.augmentation import (
    Mask,
    Rng,
    Shape,
    Warp,
    augment_intensity,
    draw_box,
    draw_empty_box,
    draw_point,
    draw_warp,
    identity_warp,
    loosen_mask,
)
from radiogen.training.positions import lung_positions, shift_start
from radiogen.training.prepared import (
    Labels,
    PreparedCase,
    known_voxels,
    read_close_up,
    read_padded,
)
from radiogen.training.settings import TrainingSettings
from radiogen.volume import AIR_HU, FloatArray

# Image (C, D, H, W), prior (1, D, H, W), target (1, D, H, W): 1 lesion, 0 none, UNKNOWN where a crop ends.
Patch = tuple[Tensor, Tensor, Tensor]
if TYPE_CHECKING:  # only trainings with added lesions need these
    from radiogen.training.synthetic_lesions import AddedLesion

Draw = tuple[int, int]  # epoch, number within the epoch
UNKNOWN = -1.0
# A box that somebody draws is longer than its lesion, of thick slices by a slice at either end, and sets the
# voxels: a network that saw nodules in voxels of their own size alone drew them 1.2 times too large in use.
BOX_LONGER = (1.0, 1.6)
EXTRA_VOXELS = 16  # by which a patch is sampled larger, so that a synthetic lesion may reach out of it
POINT_FILLS = (0.0, 0.75)  # a click does not say how large a lesion is: voxels get coarser for a mass only
HIDDEN_SHARE = 0.5  # of synthetic lesions are no lung: lung masks by threshold leave out dense tissue


@dataclass(frozen=True)
class PatchSource:
    """A part of a case after the warp, before its intensities are augmented."""

    hu: FloatArray
    lesion: Labels  # 0 background, 1..n lesions
    lungs: Labels
    target_label: int | None  # the lesion that the patch was drawn for
    spacing_mm: tuple[float, float, float]  # (x, y, z)
    known: Mask | None = None  # voxels that the scan or crop holds; None: all

    def crop(self, box: tuple[slice, slice, slice]) -> "PatchSource":
        """Return a part of it."""
        known = None if self.known is None else self.known[box]
        return replace(self, hu=self.hu[box], lesion=self.lesion[box], lungs=self.lungs[box], known=known)


class PatchDataset(Dataset[Patch]):
    """Patches of prepared cases, addressed by (epoch, draw); each case is drawn equally often.

    `cohort_draws` gives the cases of a cohort a larger sampling weight.

    Raises:
        CaseError: A case of `lungs_only_cohorts` has no position for a patch clear of its lesions.
        ConfigError: `cohort_draws` or `lungs_only_cohorts` names a cohort without a case.
    """

    def __init__(
        self,
        cases: Sequence[PreparedCase],
        preprocessing: Preprocessing,
        training: TrainingSettings,
        seed: int,
    ) -> None:
        training.check_cohorts({case.cohort for case in cases})
        self.cases = [case for case in cases for _ in range(training.cohort_draws.get(case.cohort, 1))]
        self.hosts = [case for case in self.cases if not case.is_crop]  # crops are laid into their lungs
        self.preprocessing = preprocessing
        self.training = training
        self.seed = seed
        for case in self.cases:
            if self._is_lungs_only(case) and not len(self._positions(case, identity_warp(self._size))):
                raise CaseError(
                    case.case_id,
                    "has no place for a patch that holds lung and none of its lesions",
                    "lower training.lung_share or preprocessing.size, or leave the case out",
                )

    def __len__(self) -> int:
        return len(self.cases) * self.training.patches_per_case

    def __getitem__(self, draw: Draw) -> Patch:
        epoch, number = draw
        # One stream a stage, so that a stage that is switched off leaves what the others draw as it was.
        streams = np.random.default_rng([self.seed, epoch, number]).spawn(6)
        plan_rng, place_rng, lesion_rng, prior_rng, intensity_rng, flip_rng = streams
        augmentation = self.training.augmentation
        case = self.cases[number % len(self.cases)]
        prior_name = self.training.priors[plan_rng.integers(len(self.training.priors))]
        source, empty_prior = self._draw_source(case, prior_name, plan_rng, place_rng, lesion_rng)
        prior, target = self._prior_and_target(source, prior_name, prior_rng)
        if empty_prior is not None:
            prior, target = empty_prior, np.zeros_like(target)
        targets = target.astype(np.float32)
        if source.known is not None:
            targets[~source.known] = UNKNOWN
        hu = augment_intensity(source.hu, source.spacing_mm, augmentation, intensity_rng)
        image = scale_windows(hu, self.preprocessing.windows)
        arrays = [image, prior[None].astype(np.float32), targets[None]]
        axes = tuple(axis for axis in (1, 2, 3) if augmentation.flip and flip_rng.random() < 0.5)
        image_t, prior_t, target_t = (
            torch.from_numpy(np.ascontiguousarray(np.flip(array, axes))) for array in arrays
        )
        return image_t, prior_t, target_t

    def _draw_source(
        self, case: PreparedCase, prior_name: PriorName, plan_rng: Rng, place_rng: Rng, lesion_rng: Rng
    ) -> tuple[PatchSource, FloatArray | None]:
        """Draw what a patch shows: lung alone, an empty box, a synthetic lesion, a true lesion.

        Returns:
            The part of the case, and the prior of an empty box.
        """
        training, is_box = self.training, prior_name == "box"
        if case.is_crop:
            return self._draw_crop(case, prior_name, plan_rng, place_rng, lesion_rng), None
        is_synthetic = plan_rng.random() < training.synthetic_lesions
        is_free = prior_name in ("lungs", "none")  # in use, most windows of such a prior hold no lesion
        if is_free and training.lungs_empty and plan_rng.random() < training.lungs_empty:
            return self._sample_patch(case, self._size, None, False, place_rng), None
        if is_box and training.box_empty and plan_rng.random() < training.box_empty:
            return self._with_empty_box(case, place_rng, lesion_rng)
        if is_synthetic:
            return self._with_synthetic_lesion(case, is_box, place_rng, lesion_rng), None
        label = self._draw_true_lesion(case, prior_name, plan_rng)
        if label is None:
            return self._sample_patch(case, self._size, None, False, place_rng), None
        return self._sample_lesion(case, label, prior_name, place_rng), None

    def _sample_lesion(
        self, case: PreparedCase, label: int, prior_name: PriorName, place_rng: Rng
    ) -> PatchSource:
        """Sample a patch with a lesion, in voxels of the size that its prompt gives them in use."""
        zoom = None
        if prior_name == "box":
            zoom = zoom_for(case.lesion_boxes[label], self._size, self.preprocessing.box_fills)
            close_up = case.close_ups.get(label)
            if close_up is not None:
                zoom *= float(np.exp(place_rng.uniform(*np.log(BOX_LONGER))))
                return self._sample_patch(close_up, self._size, label, True, place_rng, zoom / close_up.zoom)
        if prior_name == "points":
            zoom = zoom_for(case.lesion_boxes[label], self._size, POINT_FILLS)
        return self._sample_patch(case, self._size, label, prior_name == "box", place_rng, zoom)

    def _draw_crop(
        self, case: PreparedCase, prior_name: PriorName, plan_rng: Rng, place_rng: Rng, lesion_rng: Rng
    ) -> PatchSource:
        """Draw a patch of a crop: as it lies, or where a prompt needs more of its surroundings, in a scan."""
        label = int(plan_rng.choice(sorted(case.lesion_boxes)))
        is_laid = prior_name in ("lungs", "none") or (
            prior_name == "points" and plan_rng.random() < self.training.crops_in_scans
        )
        if not is_laid or not self.hosts:
            return self._sample_lesion(case, label, prior_name, place_rng)
        # Only trainings with crops need these.
        from radiogen.training.laid_crops import draw_crop, lay_crop

        host = self.hosts[lesion_rng.integers(len(self.hosts))]
        crop = draw_crop(case, label, lesion_rng)
        source = self._sample_patch(host, self._larger_size(host), None, False, place_rng)
        added = lay_crop(source.hu, source.lungs > 0, source.lesion > 0, source.spacing_mm, crop, lesion_rng)
        return self._cut_round(source, added, False, place_rng, lesion_rng)

    @property
    def _size(self) -> Shape:
        return self.preprocessing.size

    def _is_lungs_only(self, case: PreparedCase) -> bool:
        return case.cohort in self.training.lungs_only_cohorts

    def _draw_true_lesion(self, case: PreparedCase, prior_name: PriorName, rng: Rng) -> int | None:
        """Draw the lesion to take a patch around, or None for a patch of lung."""
        is_wanted = rng.random() < self.training.lesion_share or prior_name in ("box", "points")
        labels = [] if self._is_lungs_only(case) else sorted(case.lesion_boxes)
        return int(rng.choice(labels)) if labels and is_wanted else None

    def _prior_and_target(
        self, source: PatchSource, prior_name: PriorName, rng: Rng
    ) -> tuple[FloatArray, Mask]:
        """Draw the prior; a box or a point stands for one lesion, any other for all of them.

        Where there is no lesion for a box or a mask, lungs or nothing take their place.
        """
        lesions = source.lesion > 0
        target = source.lesion == source.target_label if source.target_label else np.zeros_like(lesions)
        if prior_name == "box" and target.any():
            return draw_box(target, self.training, rng), target
        if prior_name == "points" and target.any():
            return draw_point(target, rng), target
        if prior_name == "mask" and lesions.any():
            return loosen_mask(lesions, rng), lesions
        if prior_name in ("box", "mask", "points"):
            free = [name for name in self.training.priors if name in ("lungs", "none")] or ["lungs"]
            prior_name = free[rng.integers(len(free))]
        if prior_name == "none":
            return np.ones(lesions.shape, np.float32), lesions
        return (source.lungs > 0).astype(np.float32), lesions

    def _with_synthetic_lesion(
        self, case: PreparedCase, central: bool, place_rng: Rng, lesion_rng: Rng
    ) -> PatchSource:
        """Draw a patch with lung and add a synthetic lesion; none is added where none finds room.

        The lesion is added to a patch that is `EXTRA_VOXELS` larger and then cropped, so that it may reach
        out of the patch as true lesions do; before kernel, dose and noise, so that it looks like what is
        around it.
        """
        # Only trainings with synthetic lesions need these shapes.
        from radiogen.training.synthetic_lesions import add_synthetic_lesion

        sizes_mm, zoom = self.training.synthetic_mm, None
        if central:
            sizes_mm, zoom = self._draw_size_and_zoom(case, lesion_rng)
        source = self._sample_patch(case, self._larger_size(case, zoom), None, False, place_rng, zoom)
        # Without a box a network that met tumours centred in the mediastinum took all of it for a candidate.
        outside = self.training.synthetic_outside == "always" or (
            self.training.synthetic_outside == "box" and central
        )
        lungs, taken = source.lungs > 0, source.lesion > 0
        added = add_synthetic_lesion(
            source.hu, lungs, source.spacing_mm, lesion_rng, sizes_mm, taken, central, outside
        )
        return self._cut_round(source, added, central, place_rng, lesion_rng)

    def _larger_size(self, case: PreparedCase, zoom: float | None = None) -> Shape:
        """Return the size of a patch to which a lesion is added before it is cut to the network's size."""
        lengths = [n / min(zoom or 1.0, 1.0) for n in case.shape]
        d, h, w = (max(s, min(s + EXTRA_VOXELS, int(n))) for n, s in zip(lengths, self._size, strict=True))
        return d, h, w

    def _cut_round(
        self, source: PatchSource, added: "AddedLesion | None", central: bool, place_rng: Rng, lesion_rng: Rng
    ) -> PatchSource:
        """Cut a patch of the network's size out of a larger one, round the lesion that was added to it."""
        size = self._size
        center = [n // 2 for n in source.hu.shape]
        if added is not None:
            label = np.int16(source.lesion.max() + 1)
            hidden = lesion_rng.random() < HIDDEN_SHARE
            source = replace(
                source,
                hu=added.hu,
                lesion=np.where(added.lesion, label, source.lesion),
                lungs=np.where(added.lesion & hidden, np.int16(0), source.lungs),
                target_label=int(label),
            )
            center = [(s.start + s.stop) // 2 for s in find_objects(added.lesion.astype(np.uint8))[0]]
        starts = []
        for at, s, n in zip(center, size, source.hu.shape, strict=True):
            anywhere = int(place_rng.integers(max(0, at - s + 1), min(n - s, at) + 1))
            starts.append(min(max(at - s // 2, 0), n - s) if central else anywhere)
        z, y, x = (slice(start, start + s) for start, s in zip(starts, size, strict=True))
        return source.crop((z, y, x))

    def _with_empty_box(
        self, case: PreparedCase, place_rng: Rng, lesion_rng: Rng
    ) -> tuple[PatchSource, FloatArray | None]:
        """Draw a patch over lung and a box in it that holds no lesion; None where no such box was found."""
        sizes_mm, zoom = self._draw_size_and_zoom(case, lesion_rng)
        source = self._sample_patch(case, self._size, None, False, place_rng, zoom)
        sides = sizes_mm[0] / np.array(source.spacing_mm[::-1])
        box = draw_empty_box(source.hu, source.lungs > 0, source.lesion > 0, sides, lesion_rng)
        if box is None:
            return source, None
        prior = np.zeros(source.hu.shape, np.float32)
        prior[box] = 1.0
        return source, prior

    def _draw_size_and_zoom(self, case: PreparedCase, rng: Rng) -> tuple[tuple[float, float], float]:
        """Draw the diameter of a lesion in mm, as a range of one value, and the zoom of its box."""
        size_mm = float(np.exp(rng.uniform(*np.log(self.training.synthetic_mm))))
        voxels = [size_mm / step for step in case.spacing_mm[::-1]]
        share = max(n / length for n, length in zip(voxels, self._size, strict=True))
        return (size_mm, size_mm), zoom_to_fill(share, self.preprocessing.box_fills)

    def _sample_patch(
        self,
        case: PreparedCase,
        shape: Shape,
        label: int | None,
        central: bool,
        rng: Rng,
        zoom: float | None = None,
    ) -> PatchSource:
        """Draw a warp and a position, around a lesion or over lung, and sample the case there once."""
        # Two streams: the position does not depend on how much the warp has drawn.
        warp_rng, start_rng = rng.spawn(2)
        warp = draw_warp(shape, case.spacing_mm, self.training.augmentation, warp_rng, zoom)
        if label is not None:
            return self._sample(case, warp, start_around(case, label, warp, central, start_rng), label)
        positions = self._positions(case, warp)
        if not len(positions):  # a large warp would show true lesions of a lungs-only case: take none
            warp = identity_warp(self._size)
            positions = self._positions(case, warp)
        start = positions[start_rng.integers(len(positions))]
        first = shift_start(start, case.shape, warp.covered, start_rng)
        z, y, x = (at - inset for at, inset in zip(first, warp.inset, strict=True))
        return self._sample(case, warp, (z, y, x), None)

    def _positions(self, case: PreparedCase, warp: Warp) -> npt.NDArray[np.int64]:
        """Return the first voxels that a patch over lung may cover."""
        forbidden = case.blocks("near_lesion_blocks") if self._is_lungs_only(case) else None
        lungs, share = case.blocks("lung_blocks"), self.training.lung_share
        region = warp.region.counted_from(warp.inset)
        return lung_positions(lungs, forbidden, case.shape, warp.covered, region, share)

    def _sample(self, case: PreparedCase, warp: Warp, start: Shape, label: int | None) -> PatchSource:
        first = [s + low for s, low in zip(start, warp.region.low, strict=True)]
        if case.is_part:
            hu, lesion, lungs = (
                read_close_up(case, name, first, warp.region.shape) for name in ("hu", "lesion", "lungs")
            )
        else:
            hu, lesion, lungs = (
                read_padded(case, name, first, warp.region.shape, self._size, outside)
                for name, outside in (("hu", int(AIR_HU)), ("lesion", 0), ("lungs", 0))
            )
        known = known_voxels(case, first, warp.region.shape)
        lesion, lungs, known = warp.sample(np.stack([lesion, lungs, known]), "nearest").astype(np.int16)
        lesion = np.where(known > 0, lesion, np.int16(0))
        hu = warp.sample(hu[None].astype(np.float32), "bilinear")[0]
        x_mm, y_mm, z_mm = (step * warp.zoom for step in case.spacing_mm)
        # Beyond a close-up of a scan lies another part of the patient, and not this lesion.
        return PatchSource(hu, lesion, lungs, label, (x_mm, y_mm, z_mm), known > 0 if case.is_crop else None)


def start_around(case: PreparedCase, label: int, warp: Warp, central: bool, rng: Rng) -> Shape:
    """Draw the first voxel of a patch that holds the centre of a lesion, in its own middle or anywhere."""
    start = []
    shapes = zip(case.shape, warp.covered, warp.inset, case.lesion_boxes[label], strict=True)
    for length, size, inset, edge in shapes:
        center = (edge.start + edge.stop) // 2
        slack = max(0, (size - (edge.stop - edge.start)) // 4) if central else 2 * size // 5
        first = center - size // 2 + int(rng.integers(-slack, slack + 1))
        if not case.is_part:
            first = min(max(first, 0), length - size) if length > size else (length - size) // 2
        start.append(first - inset)
    z, y, x = start
    return z, y, x
