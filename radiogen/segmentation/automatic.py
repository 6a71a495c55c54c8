"""Segment without a prompt: candidates from a first pass over the lungs, then a box round each of them.

A network that was trained with boxes draws a lesion better when it is given its box. A mass that touches the
spleen is one part with it at a low threshold and two at a higher one, so candidates are taken at several;
where two of them turn out to be one lesion, the better one stays. A candidate is judged by what both passes
say and by what it is: how much aerated lung lies round it, its place, its form (`CandidateModel`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
from scipy import ndimage

from radiogen.model.network_input import NetworkInput
from radiogen.model.priors import voxels_within
from radiogen.segmentation.inference import CaseRegion, HalfArray
from radiogen.segmentation.lesion_map import box_of, crop_grid
from radiogen.segmentation.sliding import NO_LESION, ArrayBox, logit
from radiogen.volume import resample_to, volume_like, voxel_ml, widened

BoolArray = npt.NDArray[np.bool_]
STEPS = (0.3, 0.6, 0.85)  # share of the way from the candidate threshold to 1: of the higher thresholds
SAME_SHARE = 0.7  # a part that keeps this share of its voxels at a higher threshold is no other candidate
JOIN_SHARE = 0.5  # of the smaller of two boxes that lies in the other: then they are one candidate
SAME_LESION = 0.3  # share of the smaller of two lesions that lies in the other: then they are one
BOX_MARGIN_MM = 5.0  # how far a lesion may reach out of the box of its candidate, without calibration
AERATED_HU = -500.0
SHELL_VOXELS = 2  # how far the tissue round a candidate is looked at
NEIGHBOURS = np.ones((3, 3, 3))


@dataclass(frozen=True)
class LesionCandidate:
    """A part of the first pass that may be a lesion.

    Attributes:
        box: On the network's grid.
        voxels: Of the part, in that box.
        score: Their mean probability.
    """

    box: ArrayBox
    voxels: BoolArray
    score: float


@dataclass(frozen=True)
class JudgedCandidate:
    """A candidate after its second pass: the region, its voxels there, and how probable it is a lesion."""

    number: int
    candidate: LesionCandidate
    region: CaseRegion
    voxels: BoolArray  # in the box of the region
    score: float  # mean probability of these in the second pass
    features: dict[str, float]  # for a candidate model; else empty


@dataclass(frozen=True)
class Judgement:
    """The candidates of a case of which a second pass found something, and what became of the others."""

    found: int  # candidates of the first pass
    judged: list[JudgedCandidate]
    counts: dict[str, int]  # of the others, by reason


def judge(
    first: CaseRegion,
    sample: NetworkInput,
    infer_box: Callable[[ArrayBox], CaseRegion],
    *,
    threshold: float,
    candidate_threshold: float,
    smallest_ml: float,
    least: float,
    loosen_by: float,
    most: int,
    is_calibrated: bool,
) -> Judgement:
    """Take the candidates of a first pass and look at each in its box.

    For a calibrated model candidates are taken at several thresholds, and where what is found reaches out of
    the box, the box of that is looked at. Without calibration a mean probability cannot tell such candidates
    apart (above 0.86 it is above 0.86), and boxes that follow what they hold run along vessels: there those
    whose boxes overlap are joined, and a lesion stays close to its box.

    Args:
        first: Logits over the whole of the network's grid, with the lungs as the prior.
        sample: That grid.
        infer_box: Runs the networks over a box of it.
        threshold: Of the probability of a lesion's voxel.
        candidate_threshold: The lowest for the first pass.
        smallest_ml: Smaller parts are no candidates.
        least: Mean probability in the first pass, below which a candidate is not looked at.
        loosen_by: Share of its width by which each face of a box moves out.
        most: How many are looked at, the most probable first.
        is_calibrated: Whether a candidate model will choose among them.
    """
    found = find_candidates(first, sample, candidate_threshold, smallest_ml, STEPS if is_calibrated else ())
    probable = [each for each in found if each.score >= least]
    hu: npt.NDArray[np.int16] = sitk.GetArrayViewFromImage(sample.ct)
    boxes = [loosen(each.box, hu.shape, loosen_by) for each in probable]
    candidates = probable
    if not is_calibrated:
        candidates = join_overlapping(probable, boxes)
        boxes = [each.box for each in candidates]
    lungs: BoolArray = sitk.GetArrayViewFromImage(sample.lungs) != 0
    judged = []
    looked_at = list(zip(candidates, boxes, strict=True))[:most]
    for number, (each, box) in enumerate(looked_at, start=1):
        region = infer_box(box)
        voxels = confirmed_voxels(region, each, threshold)
        if is_calibrated and voxels.any():
            wider = box_round_voxels(region, voxels)
            if any(a.start < b.start or a.stop > b.stop for a, b in zip(wider, box, strict=True)):
                region = infer_box(loosen(wider, hu.shape, loosen_by))
                voxels = confirmed_voxels(region, each, threshold)
        if not is_calibrated:
            near = crop_grid(sample.ct, widened(box_of(box), sample.ct, BOX_MARGIN_MM))
            voxels &= voxels_within(near, crop_grid(sample.ct, box_of(region.box)))
        if voxels.any():
            features = (
                candidate_features(each, region, voxels, hu, lungs, sample.ct.GetSpacing())
                if is_calibrated
                else {}
            )
            score = mean_of(region.logits[voxels])
            judged.append(JudgedCandidate(number, each, region, voxels, score, features))
    counts = {
        f"dropped, mean probability below {least:g} in the first pass": len(found) - len(probable),
        "joined with another, whose box they lie in": len(probable) - len(candidates),
        f"dropped, beyond the best {most}": len(candidates) - len(looked_at),
        "dropped, nothing found in their box": len(looked_at) - len(judged),
    }
    return Judgement(len(found), judged, counts)


def find_candidates(
    first: CaseRegion,
    sample: NetworkInput,
    threshold: float,
    smallest_ml: float,
    steps: Sequence[float] = STEPS,
) -> list[LesionCandidate]:
    """List the connected parts of a first pass above a low and above higher thresholds, best first.

    Args:
        first: Logits over the whole of the network's grid.
        sample: That grid.
        threshold: The lowest, of the probability, above 0 and below 1.
        smallest_ml: Smaller parts are no candidates.
        steps: Share of the way from there to 1, of each higher threshold.
    """
    smallest = smallest_ml / voxel_ml(sample.ct)
    levels = [logit(threshold), *(logit(threshold + step * (1 - threshold)) for step in steps)]
    candidates: list[LesionCandidate] = []

    def add_parts(box: ArrayBox, within: BoolArray, level: int) -> None:
        logits = first.logits[box]
        parts, _ = ndimage.label(within & (logits >= levels[level]), structure=NEIGHBOURS)
        for label, own in enumerate(ndimage.find_objects(parts), start=1):
            voxels = parts[own] == label
            size = int(np.count_nonzero(voxels))
            if size < smallest:
                continue
            z, y, x = (
                slice(edge.start + start.start, edge.start + start.stop)
                for edge, start in zip(box, own, strict=True)
            )
            if size < SAME_SHARE * np.count_nonzero(within) or level == 0:
                candidates.append(LesionCandidate((z, y, x), voxels, mean_of(logits[own][voxels])))
            if level + 1 < len(levels):
                add_parts((z, y, x), voxels, level + 1)

    z, y, x = (slice(0, length) for length in first.logits.shape)
    add_parts((z, y, x), np.ones(first.logits.shape, bool), 0)
    return sorted(candidates, key=lambda candidate: -candidate.score)


def loosen(box: ArrayBox, shape: Sequence[int], share: float) -> ArrayBox:
    """Widen a box on all sides by a share of its width, and by a voxel at least, as training draws boxes."""
    edges = []
    for edge, length in zip(box, shape, strict=True):
        out = max(1, round(share * (edge.stop - edge.start)))
        edges.append(slice(max(0, edge.start - out), min(length, edge.stop + out)))
    return edges[0], edges[1], edges[2]


def join_overlapping(
    candidates: Sequence[LesionCandidate], boxes: Sequence[ArrayBox]
) -> list[LesionCandidate]:
    """Join candidates of which at least half of one box lies in another; the better probability counts.

    Args:
        candidates: Parts above one threshold.
        boxes: Their loosened boxes.

    Returns:
        Candidates in their joined loosened boxes; what comes first stays first.
    """
    left = [in_box(each, box) for each, box in zip(candidates, boxes, strict=True)]
    pair: tuple[int, int] | None = (0, 0)
    while pair is not None:
        pair = next(
            (
                (one, other)
                for one in range(len(left))
                for other in range(one + 1, len(left))
                if _shared_share(left[one].box, left[other].box) >= JOIN_SHARE
            ),
            None,
        )
        if pair is not None:
            a, b = left[pair[0]], left.pop(pair[1])
            z, y, x = (
                slice(min(p.start, q.start), max(p.stop, q.stop)) for p, q in zip(a.box, b.box, strict=True)
            )
            one, other = in_box(a, (z, y, x)), in_box(b, (z, y, x))
            left[pair[0]] = LesionCandidate((z, y, x), one.voxels | other.voxels, max(a.score, b.score))
    return left


def in_box(candidate: LesionCandidate, box: ArrayBox) -> LesionCandidate:
    """Return a candidate with its voxels in a box that holds its own."""
    voxels = np.zeros([edge.stop - edge.start for edge in box], bool)
    z, y, x = (
        slice(own.start - edge.start, own.stop - edge.start)
        for own, edge in zip(candidate.box, box, strict=True)
    )
    voxels[z, y, x] = candidate.voxels
    return replace(candidate, box=box, voxels=voxels)


def _shared_share(a: ArrayBox, b: ArrayBox) -> float:
    """Return the share of the smaller of two boxes that lies in the other."""
    shared = [max(0, min(p.stop, q.stop) - max(p.start, q.start)) for p, q in zip(a, b, strict=True)]
    sizes = [np.prod([edge.stop - edge.start for edge in box]) for box in (a, b)]
    return float(np.prod(shared) / min(sizes))


def confirmed_voxels(region: CaseRegion, candidate: LesionCandidate, threshold: float) -> BoolArray:
    """Return the voxels of the parts of a second pass that hold a voxel of the candidate.

    A box that a person draws says that there is a lesion; a box round a candidate does not, and networks find
    something in most boxes.

    Args:
        region: The second pass, over a box that holds the candidate's.
        candidate: What the first pass saw.
        threshold: Of the probability.
    """
    parts, _ = ndimage.label(region.logits >= logit(threshold), structure=NEIGHBOURS)
    own = np.zeros(parts.shape, bool)
    shifted, inside = [], []
    for edge, limit in zip(candidate.box, region.box, strict=True):
        low, high = max(edge.start, limit.start), min(edge.stop, limit.stop)
        shifted.append(slice(low - limit.start, max(low, high) - limit.start))
        inside.append(slice(low - edge.start, max(low, high) - edge.start))
    own[tuple(shifted)] = candidate.voxels[tuple(inside)]
    touched = np.unique(parts[own])
    return np.isin(parts, touched[touched > 0])


def keep_only(region: CaseRegion, voxels: BoolArray, sample: NetworkInput, threshold: float) -> CaseRegion:
    """Drop the parts of a second pass above the threshold that are not among these voxels of its box."""
    dropped = (region.logits >= logit(threshold)) & ~voxels
    detail = region.detail
    if detail is not None:
        grid = crop_grid(sample.ct, box_of(region.box))
        outside = resample_to(volume_like(dropped.astype(np.uint8), grid), detail, outside=0, nearest=True)
        detail = sitk.Mask(detail, outside, float(NO_LESION), 1)
    return replace(region, logits=np.where(dropped, np.float16(NO_LESION), region.logits), detail=detail)


def box_round_voxels(region: CaseRegion, voxels: BoolArray) -> ArrayBox:
    """Return the box round voxels of a region, of which there is one at least, on the whole grid."""
    z, y, x = (
        slice(limit.start + edge.start, limit.start + edge.stop)
        for limit, edge in zip(region.box, ndimage.find_objects(voxels.astype(np.uint8))[0], strict=True)
    )
    return z, y, x


def candidate_features(
    candidate: LesionCandidate,
    region: CaseRegion,
    voxels: BoolArray,
    hu: npt.NDArray[np.int16],
    lungs: BoolArray,
    spacing_mm: Sequence[float],
) -> dict[str, float]:
    """Measure what tells a lesion from a vessel, a heart or a liver; the names are those of `CandidateModel`.

    Args:
        candidate: What the first pass saw.
        region: The second pass.
        voxels: Of the lesion, in the box of the region.
        hu: The case on the network's grid, (D, H, W).
        lungs: Its lungs.
        spacing_mm: (x, y, z).
    """
    near = loosen(box_round_voxels(region, voxels), hu.shape, 0)
    wide = tuple(
        slice(max(0, edge.start - SHELL_VOXELS), min(n, edge.stop + SHELL_VOXELS))
        for edge, n in zip(near, hu.shape, strict=True)
    )
    lesion = np.zeros(hu.shape, bool)
    lesion[region.box] = voxels
    lesion = lesion[wide]
    shell = ndimage.binary_dilation(lesion, NEIGHBOURS, iterations=SHELL_VOXELS) & ~lesion
    seen = np.zeros(hu.shape, bool)
    seen[candidate.box] = candidate.voxels
    overlap = np.count_nonzero(seen[wide] & lesion)
    count = np.count_nonzero(lesion)
    edges = [(edge.stop - edge.start - 2) * mm for edge, mm in zip(near, spacing_mm[::-1], strict=True)]
    of_lungs = np.flatnonzero(lungs.any(axis=(1, 2)))
    height = (near[0].start + near[0].stop) / 2
    ml = count * float(np.prod(spacing_mm)) / 1000
    return {
        "first_pass": float(np.clip(logit(min(candidate.score, 1 - 1e-6)), -6, 6)),
        "second_pass": float(np.clip(region.logits[voxels].astype(np.float32), -6, 6).mean()),
        "log_ml": float(np.log(ml)),
        "aerated_shell": float(np.mean(hu[wide][shell] < AERATED_HU)) if shell.any() else 0.0,
        "in_lungs": float(np.mean(lungs[wide][lesion])),
        "agreement": 2 * overlap / (count + int(np.count_nonzero(candidate.voxels))),
        "fill": ml * 1000 / float(np.prod(np.maximum(edges, 1e-3))),
        "elongation": float(np.log(max(edges) / max(min(edges), 1e-3))),
        "mean_hu": float(np.clip(hu[wide][lesion], -1000, 300).mean() / 100),
        "height": float((height - of_lungs[0]) / max(1, of_lungs[-1] - of_lungs[0]))
        if len(of_lungs)
        else 0.5,
    }


FEATURES = (
    "first_pass", "second_pass", "log_ml", "aerated_shell", "in_lungs", "agreement", "fill", "elongation",
    "mean_hu", "height",
)  # fmt: skip


def best_of_overlapping(judged: Sequence[JudgedCandidate], shape: Sequence[int]) -> list[JudgedCandidate]:
    """Return the candidates, given best first, that are not one lesion with a better one."""
    taken = np.zeros(shape, np.uint16)  # by number of the candidate that is kept, from 1
    kept: list[JudgedCandidate] = []
    sizes: list[int] = []
    for each in judged:
        size = int(np.count_nonzero(each.voxels))
        others = np.bincount(taken[each.region.box][each.voxels], minlength=len(kept) + 1)[1:]
        smaller = [min(size, other) for other in sizes]
        if any(share >= SAME_LESION * least for share, least in zip(others, smaller, strict=True)):
            continue
        kept.append(each)
        sizes.append(size)
        taken[each.region.box][each.voxels & (taken[each.region.box] == 0)] = len(kept)
    return kept


def mean_of(logits: HalfArray) -> float:
    """Return the mean of the probabilities of logits."""
    return float(np.mean(1 / (1 + np.exp(-logits.astype(np.float32)))))
