"""One volume through a model: prompt in, lesion mask on the scanner's grid out."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
from pydantic import Field

from radiogen.errors import ConfigError
from radiogen.model.folder import AnyModel
from radiogen.model.network_input import to_network_grid
from radiogen.model.priors import BoxMm, Look, box_region, box_voxels, grown
from radiogen.segmentation.automatic import (
    LUNG_MARGIN_MM,
    AutoSettings,
    find_candidates,
    join_overlapping,
    keep_lesions,
    loosened,
    lungs_are_near,
    mean_probability,
    only_seen_before,
)
from radiogen.segmentation.inference import Inference, InferenceSettings, Piece, Voxels, window_about
from radiogen.segmentation.lesions import Finding, Laid, describe
from radiogen.segmentation.scanner_grid import ScannerMap, box_of, crop_grid, region_of
from radiogen.segmentation.sliding import ArrayBox
from radiogen.segmentation.zoom import look_zoomed, zoom_for, zoomed
from radiogen.volume import resample_to, widened

FARTHEST_BOX_MM = 40.0  # from the lungs that were found: a lobe may have collapsed, a mass may lie centrally
BOX_MARGIN_MM = 5.0  # a lesion may reach this far out of its box,
BOX_MARGIN_SHARE = 0.15  # but no more than this share of the shortest side of a box that somebody gave
BOX_WAY_OUT = "give x0,y0,z0,x1,y1,z1 in LPS mm"
MAP_BYTES = 3  # a voxel of the scanner's grid: labels twice, and the probability


class SegmentationSettings(InferenceSettings):
    """How a CT is segmented."""

    smallest_ml: float = Field(0.03, ge=0, description="smaller parts are left out, but not those of boxes")
    auto: AutoSettings = AutoSettings()


@dataclass(frozen=True)
class Prompt:
    """Where the network is told to look."""

    prior: Look
    boxes: tuple[BoxMm, ...] = ()
    mask: sitk.Image | None = None


@dataclass(frozen=True)
class Segmentation:
    """Lesions 1..n on the scanner's grid, what is known of each, and what was decided on the way."""

    lesion: sitk.Image
    decisions: tuple[str, ...]
    findings: tuple[Finding, ...]
    probability: sitk.Image | None  # uint8, in 255ths of a probability; None unless asked for


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
        prompt: With boxes each box gives one lesion; else every connected part is one.
        settings: How.
        inference: The same model, ready to look; for many CTs made once, so that what was learned of memory
            and time is kept.
        keep_probability: Also give the probabilities.

    Raises:
        ConfigError: A mask that does not reach the lungs, or boxes of which none does.
        CaseError: The lung mask is empty.
        DeviceError: There is too little memory.
    """
    settings = settings or SegmentationSettings()
    inference = inference or Inference(model, settings)
    inference.begin(later_mb=MAP_BYTES * ct.GetNumberOfPixels() / 2**20)
    work = _Work(inference, ct, lungs, prompt, settings)
    lesion, decisions = work.segment()
    decisions = [*inference.decisions, *decisions]
    findings = describe(lesion, work.filled, work.laid)
    probability = work.filled.probability() if keep_probability else None
    return Segmentation(lesion, tuple(decisions), tuple(findings), probability)


def margin_of(box: BoxMm) -> float:
    """How far a lesion may reach out of a box, in mm: a nodule's box is a tighter word than a mass's.

    >>> margin_of(BoxMm((0, 0, 0), (10, 12, 20)))
    1.5
    """
    shortest_mm = min(high - low for low, high in zip(box.low, box.high, strict=True))
    return min(BOX_MARGIN_MM, BOX_MARGIN_SHARE * shortest_mm)


class _Work:
    """One CT while it is segmented."""

    def __init__(
        self,
        inference: Inference,
        ct: sitk.Image,
        lungs: sitk.Image,
        prompt: Prompt,
        settings: SegmentationSettings,
    ) -> None:
        config = inference.model.config
        asked = None if prompt.mask is None else resample_to(prompt.mask, ct, outside=0, nearest=True)
        self.near_lungs = [
            lungs_are_near(lungs, box_region(box, ct, FARTHEST_BOX_MM)) for box in prompt.boxes
        ]
        near = [box for box, is_near in zip(prompt.boxes, self.near_lungs, strict=True) if is_near]
        regions = [region for box in near if (region := box_region(box, ct))]
        self.inference, self.ct, self.lungs, self.prompt = inference, ct, lungs, prompt
        self.settings = settings
        self.sample = to_network_grid(ct, lungs, asked, config.preprocessing, regions)
        self.filled = ScannerMap(ct, self.sample, config.threshold)
        self.laid: dict[int, Laid] = {}

    @cached_property
    def hu(self) -> npt.NDArray[np.int16]:
        view: npt.NDArray[np.int16] = sitk.GetArrayViewFromImage(self.sample.ct)
        return view

    @cached_property
    def in_lungs(self) -> Voxels:
        found: Voxels = sitk.GetArrayViewFromImage(self.sample.lungs) != 0
        return found

    def segment(self) -> tuple[sitk.Image, list[str]]:
        """The final mask, and what was decided."""
        if self.prompt.prior == "box":
            if not self.prompt.boxes:
                raise ConfigError("--prior box", "comes without a box", "give --box or --box-from")
            return self.filled.lesion, self._boxes()
        said = self._auto() if self.prompt.prior == "auto" else self._whole()
        lesion, left_out = keep_lesions(self.filled.lesion, self.lungs, self.settings.smallest_ml)
        return lesion, [*said, *left_out]

    def _whole(self) -> list[str]:
        piece = self._look_everywhere(self.prompt.prior)
        self.filled.lay(piece, 1, self.sample.roi)
        self.laid[1] = Laid(piece, self.prompt.prior)
        return []

    def _look_everywhere(self, prior: Look) -> Piece:
        where, wanted = self.in_lungs, self.in_lungs
        if prior == "none":
            where = np.ones_like(self.in_lungs)
        if prior == "mask":
            where = wanted = self._mask()
        z, y, x = (slice(0, length) for length in self.hu.shape)
        return self.inference.run(self.hu, where, (z, y, x), wanted)

    def _mask(self) -> Voxels:
        if self.sample.lesion is None:
            raise ConfigError("--prior mask", "comes without its mask", "give --box-from")
        mask: Voxels = sitk.GetArrayViewFromImage(self.sample.lesion) != 0
        if not mask.any():
            raise ConfigError("--mask", "holds no voxel of the CT", "give a mask of this patient")
        return mask

    def _boxes(self) -> list[str]:
        """One window and one lesion a box; where two lesions meet, the more probable one wins.

        A box where nothing can be looked for is left out and said, unless it is the only one.
        """
        said = []
        for label, (box, is_near) in enumerate(zip(self.prompt.boxes, self.near_lungs, strict=True), start=1):
            margin_mm = margin_of(box)
            here, there = box_region(box, self.sample.ct), box_region(box, self.ct, margin_mm)
            if here is None or there is None or not is_near:
                said.append(self._left_out(label, box, is_near))
                continue
            if not lungs_are_near(self.lungs, box_region(box, self.ct, LUNG_MARGIN_MM)):
                alone = f"no lung was found within {LUNG_MARGIN_MM:g} mm of it"
                said.append(f"box {label}: {alone}; the network has learned lesions in and at the lungs")
            zoom = self._zoom(here.array_slices())
            near = window_about(here.array_slices(), self.hu.shape, zoomed(self.inference.size, zoom))
            prior = box_voxels(box, crop_grid(self.sample.ct, box_of(near)))
            piece = look_zoomed(self.inference, self.sample.ct, self.ct, prior, near, zoom)
            self.laid[label] = Laid(piece, f"box {label}")
            if not self.filled.lay(piece, label, there, grown(box, margin_mm)):
                said.append(f"box {label}: nothing above the threshold {self.filled.threshold:g}")
        if not self.laid:
            raise ConfigError("boxes", "lie outside the lungs, all of them", BOX_WAY_OUT)
        return said

    def _left_out(self, label: int, box: BoxMm, is_near: bool) -> str:
        reason = "holds no voxel of the lungs' box" if is_near else "lies outside the lungs"
        if len(self.prompt.boxes) == 1:
            raise ConfigError(f"box {box.low} to {box.high} mm", reason, BOX_WAY_OUT)
        return f"box {label}, {box.low} to {box.high} mm, {reason}: left out"

    def _auto(self) -> list[str]:
        """The lungs first, then a box round each candidate (docs/decisions/0041)."""
        auto = self.settings.auto
        first = self._look_everywhere("lungs")
        found = find_candidates(first, self.sample, auto.candidate_threshold, self.settings.smallest_ml)
        least = auto.least_candidate
        if least is None:
            least = self.inference.model.config.least_candidate
        bright = [each for each in found if each.score >= least]
        joined = join_overlapping([loosened(each, self.hu.shape, auto.box_loosen) for each in bright])
        candidates = joined[: auto.most_candidates]
        empty = faint = 0
        for label, candidate in enumerate(candidates, start=1):
            piece = self._refine(candidate.box)
            piece = only_seen_before(
                piece, first, self.sample, self.filled.threshold, auto.candidate_threshold
            )
            wide = widened(box_of(candidate.box), self.sample.ct, BOX_MARGIN_MM)
            score = mean_probability(piece, wide.array_slices(), self.filled.threshold)
            empty += score is None
            faint += score is not None and score < auto.least_score
            if score is not None and score >= auto.least_score:
                region = region_of(candidate.box, self.sample, self.ct, BOX_MARGIN_MM)
                self.filled.lay(piece, label, region)
                self.laid[label] = Laid(piece, f"candidate {label}", candidate.score)
        counts = {
            f"dropped, mean probability below {least:g} in the first pass": len(found) - len(bright),
            "joined with another, whose box they lie in": len(bright) - len(joined),
            f"dropped, beyond the best {auto.most_candidates}": len(joined) - len(candidates),
            "dropped, nothing found in their box": empty,
            f"dropped, mean probability below {auto.least_score:g} in their box": faint,
        }
        word = "candidate" if len(found) == 1 else "candidates"
        said = [f"{len(found)} {word} above {auto.candidate_threshold:g} in the first pass"]
        return said + [f"{count} of them {what}" for what, count in counts.items() if count]

    def _refine(self, box: ArrayBox) -> Piece:
        zoom = self._zoom(box)
        near = window_about(box, self.hu.shape, zoomed(self.inference.size, zoom))
        prior = np.zeros([edge.stop - edge.start for edge in near], dtype=bool)
        prior[tuple(slice(b.start - n.start, b.stop - n.start) for b, n in zip(box, near, strict=True))] = (
            True
        )
        return look_zoomed(self.inference, self.sample.ct, self.ct, prior, near, zoom)

    def _zoom(self, box: ArrayBox) -> float:
        return zoom_for(box, self.inference.size, self.inference.model.config.preprocessing.box_fills)
