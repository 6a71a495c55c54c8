"""Segment one volume: a prompt goes in, a lesion mask on the scanner's grid comes out."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
from pydantic import Field, PositiveInt

from radiogen.config import Settings
from radiogen.errors import ConfigError
from radiogen.model.folder import AnyModel
from radiogen.model.network_input import to_network_grid
from radiogen.model.priors import (
    POINT_HINT,
    BoxMm,
    PointMm,
    PriorChoice,
    box_region,
    box_voxels,
    grown,
    voxels_within,
)
from radiogen.segmentation.inference import (
    CaseRegion,
    Inference,
    InferenceSettings,
    Voxels,
    grid_region,
    infer_zoomed,
)
from radiogen.segmentation.lesion_map import (
    LUNG_MARGIN_MM,
    LesionMap,
    SegmentedLesion,
    box_of,
    crop_grid,
    holds_lung,
    keep_lesions,
)
from radiogen.segmentation.points import box_at, box_of_answer, objection
from radiogen.segmentation.sliding import ArrayBox, window_about, zoom_for, zoomed
from radiogen.volume import Box, crop, resample_to

if TYPE_CHECKING:  # boxes and points need none of it
    from radiogen.segmentation.automatic import Judgement

FARTHEST_BOX_MM = 40.0  # from the lungs that were found: a lobe may have collapsed, a mass may lie centrally
BOX_MARGIN_MM = 5.0  # a lesion may reach this far out of its box,
BOX_MARGIN_SHARE = 0.15  # but no more than this share of the shortest side of a box that somebody gave
BOX_HINT = "give x0,y0,z0,x1,y1,z1 in LPS mm"
MAP_BYTES = 3  # a voxel of the scanner's grid: labels twice, and the probability


class AutoSettings(Settings):
    """What counts as a candidate, and which of them is kept.

    A model that was calibrated (`radiogen model calibrate`) says how probable a candidate is a lesion. For
    any other, the mean probability in the first pass tells false from true best; how probable is probable
    enough depends on the model, so the default of `least_candidate` is in its config.json.
    """

    candidate_threshold: float = Field(0.3, gt=0, lt=1, description="of the first pass; low, to miss little")
    least_candidate: float | None = Field(
        None,
        ge=0,
        le=1,
        description="mean probability in the first pass, below: dropped; None is the model's",
    )
    least_score: float = Field(0.5, ge=0, le=1, description="mean probability in its box, below: dropped")
    box_loosen: float = Field(
        0.075, ge=0, le=1, description="share of its width by which each face moves out; as training draws it"
    )
    least_probability: float = Field(
        0.5, ge=0, le=1, description="probability of a lesion, below: dropped; of models that can tell it"
    )
    most_candidates: PositiveInt = Field(
        24, description="the best are looked at in their boxes, the rest is dropped and counted"
    )


class SegmentationSettings(InferenceSettings):
    """How a CT is segmented."""

    smallest_ml: float = Field(0.03, ge=0, description="smaller parts are left out, but not those of boxes")
    auto: AutoSettings = AutoSettings()


@dataclass(frozen=True)
class Prompt:
    """Where the lesions are: boxes, points, a mask, or a prior that needs none of them."""

    prior: PriorChoice
    boxes: tuple[BoxMm, ...] = ()
    points: tuple[PointMm, ...] = ()
    mask: sitk.Image | None = None


@dataclass(frozen=True)
class Segmentation:
    """Lesions 1..n on the scanner's grid, what is known of each, and the decisions on the way."""

    lesion: sitk.Image
    decisions: tuple[str, ...]
    scores: tuple[SegmentedLesion, ...]
    probability: sitk.Image | None  # uint8, in 255ths of a probability; None unless requested


def segment_volume(
    model: AnyModel,
    ct: sitk.Image,
    lungs: sitk.Image,
    prompt: Prompt,
    settings: SegmentationSettings | None = None,
    inference: Inference | None = None,
    keep_probability: bool = False,
) -> Segmentation:
    """Segment the lesions of one CT.

    Args:
        model: A loaded model, or several as one.
        ct: HU.
        lungs: Lung mask on the same grid.
        prompt: Each box and each point gives one lesion; else every connected part is one.
        settings: Overlap of windows, smallest part, limits of candidates.
        inference: The same model, prepared; for many CTs made once, so that what was learned of memory
            and time is kept.
        keep_probability: Also return the probabilities.

    Raises:
        ConfigError: A mask that does not reach the lungs, boxes of which none does, or points none of which
            lies in tissue.
        CaseError: The lung mask is empty.
        DeviceError: There is too little memory.
    """
    settings = settings or SegmentationSettings()
    inference = inference or Inference(model, settings)
    inference.begin(later_mb=MAP_BYTES * ct.GetNumberOfPixels() / 2**20)
    work = VolumeSegmenter(inference, ct, lungs, prompt, settings)
    if prompt.prior in ("box", "points"):
        decisions = work.segment_boxes() if prompt.prior == "box" else work.segment_points()
        lesion = work.map.lesion
    else:
        decisions = work.segment_candidates() if prompt.prior == "auto" else work.segment_whole()
        lesion, left_out = keep_lesions(work.map.lesion, lungs, settings.smallest_ml)
        decisions += left_out
    return Segmentation(
        lesion,
        decisions=(*inference.decisions, *decisions),
        scores=work.map.describe(lesion),
        probability=work.map.probability() if keep_probability else None,
    )


def segment_crop(
    model: AnyModel,
    ct: sitk.Image,
    lungs: sitk.Image,
    prompt: Prompt,
    settings: SegmentationSettings | None = None,
    inference: Inference | None = None,
    keep_probability: bool = False,
) -> Segmentation:
    """Segment the lesions of a crop, a small piece of CT round a lesion; see `segment_volume`.

    Beyond its faces the outermost voxels are repeated, as in training: air there would be an edge.
    """
    preprocessing = model.config.preprocessing
    window_mm = np.array(preprocessing.size[::-1]) * preprocessing.spacing_mm
    margin = [int(np.ceil(mm / 2 / step)) for mm, step in zip(window_mm, ct.GetSpacing(), strict=True)]
    wide = [sitk.ZeroFluxNeumannPad(volume, margin, margin) for volume in (ct, lungs)]
    found = segment_volume(model, wide[0], wide[1], prompt, settings, inference, keep_probability)
    own = Box((margin[0], margin[1], margin[2]), ct.GetSize())
    probability = None if found.probability is None else crop(found.probability, own)
    return replace(found, lesion=crop(found.lesion, own), probability=probability)


def margin_of(box: BoxMm) -> float:
    """Return how far a lesion may reach out of a box, in mm; boxes of small nodules are trusted more closely.

    >>> margin_of(BoxMm((0, 0, 0), (10, 12, 20)))
    1.5
    """
    shortest_mm = min(high - low for low, high in zip(box.low, box.high, strict=True))
    return min(BOX_MARGIN_MM, BOX_MARGIN_SHARE * shortest_mm)


class VolumeSegmenter:
    """The state of one CT while it is segmented; its methods return the decisions that were taken.

    `sample` is the case on the network's grid, `hu` its voxels (D, H, W), `map` the answer on the scanner's.
    """

    def __init__(
        self,
        inference: Inference,
        ct: sitk.Image,
        lungs: sitk.Image,
        prompt: Prompt,
        settings: SegmentationSettings,
    ) -> None:
        self.inference, self.ct, self.lungs = inference, ct, lungs
        self.prompt, self.settings = prompt, settings
        self.config = inference.model.config
        mask = None if prompt.mask is None else resample_to(prompt.mask, ct, outside=0, nearest=True)
        self.near_lungs = [holds_lung(lungs, box_region(box, ct, FARTHEST_BOX_MM)) for box in prompt.boxes]
        regions = [
            box_region(box, ct) for box, near in zip(prompt.boxes, self.near_lungs, strict=True) if near
        ]
        regions += [box_region(box_at(point, ct), ct) for point in prompt.points]
        boxes = [region for region in regions if region is not None]
        self.sample = to_network_grid(ct, lungs, mask, self.config.preprocessing, boxes)
        self.hu: npt.NDArray[np.int16] = sitk.GetArrayViewFromImage(self.sample.ct)
        self.map = LesionMap(ct, self.sample, self.config.threshold)

    def segment_boxes(self) -> list[str]:
        """Find one lesion in each box, in one window; where two lesions meet, the more probable one wins.

        A box where nothing can be looked for is left out with a message, unless it is the only one.

        Raises:
            ConfigError: There is no box, or none that reaches the lungs.
        """
        if not self.prompt.boxes:
            raise ConfigError("--prior box", "comes without a box", "give --box or --box-from")
        decisions = []
        for label, (box, is_near) in enumerate(zip(self.prompt.boxes, self.near_lungs, strict=True), start=1):
            margin_mm = margin_of(box)
            here, room = box_region(box, self.sample.ct), box_region(box, self.ct, margin_mm)
            if here is None or room is None or not is_near:
                decisions.append(self._leave_out(label, box, is_near))
                continue
            if not holds_lung(self.lungs, box_region(box, self.ct, LUNG_MARGIN_MM)):
                far = f"no lung was found within {LUNG_MARGIN_MM:g} mm of it"
                decisions.append(f"box {label}: {far}; the network has learned lesions in and at the lungs")
            region = self._infer_box(here.array_slices(), box)
            voxels = self.map.add(region, label, room, f"box {label}", within=grown(box, margin_mm))
            if not voxels:
                decisions.append(f"box {label}: nothing above the threshold {self.map.threshold:g}")
        if not self.map.sources:
            raise ConfigError("boxes", "lie outside the lungs, all of them", BOX_HINT)
        return decisions

    def _leave_out(self, label: int, box: BoxMm, is_near: bool) -> str:
        reason = "holds no voxel of the lungs' box" if is_near else "lies outside the lungs"
        if len(self.prompt.boxes) == 1:
            raise ConfigError(f"box {box.low} to {box.high} mm", reason, BOX_HINT)
        return f"box {label}, {box.low} to {box.high} mm, {reason}: left out"

    def segment_points(self) -> list[str]:
        """Find the lesion at each click: first in a window round it, then in the box of that answer.

        A click where no lesion can be is left out with a message, unless it is the only one.

        Raises:
            ConfigError: There is no point, or none at which a lesion can be.
        """
        if not self.prompt.points:
            raise ConfigError("--prior points", "comes without a point", "give --point or --point-from")
        decisions = []
        for label, point in enumerate(self.prompt.points, start=1):
            name = f"point {', '.join(f'{mm:g}' for mm in point)} mm"
            reason = objection(point, self.ct, self.lungs)
            if reason:
                if len(self.prompt.points) == 1:
                    raise ConfigError(name, reason, POINT_HINT)
                decisions.append(f"{name} {reason}: left out")
                continue
            box = box_of_answer(point, self.inference, self.sample, self.ct, self.settings.auto.box_loosen)
            if box is None:
                decisions.append(f"{name}: nothing above the threshold {self.map.threshold:g}")
                continue
            margin_mm = margin_of(box)
            here, room = box_region(box, self.sample.ct), box_region(box, self.ct, margin_mm)
            if here is None or room is None:
                continue
            region = self._infer_box(here.array_slices(), box)
            self.map.add(region, label, room, f"point {label}", within=grown(box, margin_mm))
        return decisions

    def segment_whole(self) -> list[str]:
        """Find lesions with one prior for the whole case: the lungs, a mask or none."""
        self.map.add(self._infer_whole(self.prompt.prior), 1, self.sample.roi, self.prompt.prior)
        return []

    def segment_candidates(self) -> list[str]:
        """Find lesions without a prompt: a first pass over the lungs, then a box round each candidate.

        Where two candidates claim a voxel, the more probable one wins.
        """
        from radiogen.segmentation.automatic import best_of_overlapping, keep_only

        auto, model = self.settings.auto, self.config.candidates
        judgement = self.judge_candidates(is_calibrated=model is not None)
        judged = judgement.judged
        if model is None:
            kept = probable = [each for each in judged if each.score >= auto.least_score]
            limit = f"mean probability below {auto.least_score:g} in their box"
        else:
            of = {each.number: model.probability(each.features) for each in judged}
            probable = [each for each in judged if of[each.number] >= auto.least_probability]
            probable.sort(key=lambda each: -of[each.number])
            kept = best_of_overlapping(probable, self.hu.shape)
            limit = f"probability of a lesion below {auto.least_probability:g}"
        for label, each in enumerate(kept, start=1):
            region = keep_only(each.region, each.voxels, self.sample, self.map.threshold)
            room = grid_region(crop_grid(self.sample.ct, box_of(region.box)), self.ct, 0)
            score = each.candidate.score if model is None else of[each.number]
            self.map.add(region, label, room, f"candidate {each.number}", score)
        counts = {
            **judgement.counts,
            f"dropped, {limit}": len(judged) - len(probable),
            "one lesion with a better one": len(probable) - len(kept),
        }
        word = "candidate" if judgement.found == 1 else "candidates"
        decisions = [f"{judgement.found} {word} above {auto.candidate_threshold:g} in the first pass"]
        return decisions + [f"{count} of them {reason}" for reason, count in counts.items() if count]

    def judge_candidates(self, is_calibrated: bool) -> "Judgement":
        """Look at the candidates of a first pass in their boxes; see `automatic.judge`."""
        from radiogen.segmentation.automatic import judge

        auto = self.settings.auto
        least = self.config.least_candidate if auto.least_candidate is None else auto.least_candidate
        return judge(
            self._infer_whole("lungs"),
            self.sample,
            self._infer_box,
            threshold=self.map.threshold,
            candidate_threshold=auto.candidate_threshold,
            smallest_ml=self.settings.smallest_ml,
            least=0.0 if is_calibrated else least,
            loosen_by=auto.box_loosen,
            most=auto.most_candidates,
            is_calibrated=is_calibrated,
        )

    def _infer_whole(self, prior: PriorChoice) -> CaseRegion:
        """Run the networks over the whole case, window by window."""
        lungs: Voxels = sitk.GetArrayViewFromImage(self.sample.lungs) != 0
        where = needed = lungs
        if prior == "none":
            where = np.ones_like(lungs)
        if prior == "mask":
            if self.sample.lesion is None:
                raise ConfigError("--prior mask", "comes without its mask", "give --box-from")
            where = needed = sitk.GetArrayViewFromImage(self.sample.lesion) != 0
            if not where.any():
                raise ConfigError("--box-from", "holds no voxel of the CT", "give a mask of this patient")
        z, y, x = (slice(0, length) for length in self.hu.shape)
        return self.inference.run(self.hu, where, (z, y, x), needed)

    def _infer_box(self, box: ArrayBox, prompt: BoxMm | None = None) -> CaseRegion:
        """Run the networks over a box of the network's grid, in voxels of a size that suits it.

        The prior is the box of the prompt, or where there is none, of a candidate, the box itself.
        """
        prior = partial(box_voxels, prompt) if prompt else self._voxels_of(box)
        zoom = zoom_for(box, self.inference.size, self.config.preprocessing.box_fills)
        region = box_of(window_about(box, self.hu.shape, zoomed(self.inference.size, zoom)))
        return infer_zoomed(self.inference, self.sample.ct, self.ct, prior, region, zoom)

    def _voxels_of(self, box: ArrayBox) -> Callable[[sitk.Image], Voxels]:
        return partial(voxels_within, crop_grid(self.sample.ct, box_of(box)))
