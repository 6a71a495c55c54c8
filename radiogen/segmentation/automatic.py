"""Segment without a prompt: candidates from a first pass over the lungs, then a box round each of them.

A network that was trained with boxes draws a lesion better when it is given its box. What is dropped on
the way is counted by its reason.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from radiogen.measures.lesions import split_lesions
from radiogen.model.network_input import NetworkInput
from radiogen.segmentation.inference import CaseRegion, HalfArray
from radiogen.segmentation.lesion_map import LUNG_MARGIN_MM, box_of, crop_grid
from radiogen.segmentation.sliding import NO_LESION, ArrayBox, logit
from radiogen.volume import Box, array_of, bounding_box, crop, resample_to, volume_like, voxel_ml, widened

JOIN_SHARE = 0.5  # of the smaller of two boxes that lies in the other: then they are one candidate


@dataclass(frozen=True)
class LesionCandidate:
    """A part of the first pass that may be a lesion: its box on the network's grid, its mean probability."""

    box: ArrayBox
    score: float


def find_candidates(
    first: CaseRegion, sample: NetworkInput, threshold: float, smallest_ml: float
) -> list[LesionCandidate]:
    """List the connected parts of a first pass above the low threshold, the most probable first.

    Args:
        first: Logits over the whole of the network's grid.
        sample: That grid.
        threshold: Of the probability, above 0 and below 1.
        smallest_ml: Smaller parts are no candidates.
    """
    above = volume_like((first.logits >= logit(threshold)).astype(np.uint8), sample.ct)
    box = bounding_box(above)
    if box is None:
        return []
    parts = sitk.ConnectedComponent(crop(above, box), True)
    shapes = sitk.LabelShapeStatisticsImageFilter()
    shapes.Execute(parts)
    labels, logits = sitk.GetArrayViewFromImage(parts), first.logits[box.array_slices()]
    candidates = []
    for label in shapes.GetLabels():
        if shapes.GetNumberOfPixels(label) * voxel_ml(above) < smallest_ml:
            continue
        bounds = shapes.GetBoundingBox(label)  # start, then size, in (x, y, z)
        own = tuple(slice(bounds[axis], bounds[axis] + bounds[axis + 3]) for axis in (2, 1, 0))
        inside = logits[own][labels[own] == label]
        z, y, x = (
            slice(edge.start + start, edge.stop + start)
            for edge, start in zip(own, box.start[::-1], strict=True)
        )
        candidates.append(LesionCandidate((z, y, x), mean_of(inside)))
    return sorted(candidates, key=lambda candidate: -candidate.score)


def loosen(candidate: LesionCandidate, shape: Sequence[int], share: float) -> LesionCandidate:
    """Widen the box of a candidate on all sides by a share of its width, and by a voxel at least.

    Training draws boxes as loose as that.
    """
    edges = []
    for edge, length in zip(candidate.box, shape, strict=True):
        out = max(1, round(share * (edge.stop - edge.start)))
        edges.append(slice(max(0, edge.start - out), min(length, edge.stop + out)))
    return replace(candidate, box=(edges[0], edges[1], edges[2]))


def join_overlapping(candidates: Sequence[LesionCandidate]) -> list[LesionCandidate]:
    """Join candidates of which at least half of one box lies in another box; the better probability counts.

    What comes first stays first.
    """
    left = list(candidates)
    while True:
        pair = _overlapping(left)
        if pair is None:
            return left
        one, other = pair
        z, y, x = (
            slice(min(a.start, b.start), max(a.stop, b.stop))
            for a, b in zip(left[one].box, left[other].box, strict=True)
        )
        left[one] = LesionCandidate((z, y, x), max(left[one].score, left[other].score))
        del left[other]


def _overlapping(candidates: Sequence[LesionCandidate]) -> tuple[int, int] | None:
    """Find the first two candidates that are to be joined."""
    for one, a in enumerate(candidates):
        for other in range(one + 1, len(candidates)):
            b = candidates[other]
            shared = [min(p.stop, q.stop) - max(p.start, q.start) for p, q in zip(a.box, b.box, strict=True)]
            smaller = min(_voxels(a.box), _voxels(b.box))
            if min(shared) > 0 and np.prod(shared) >= JOIN_SHARE * smaller:
                return one, other
    return None


def _voxels(box: ArrayBox) -> int:
    return int(np.prod([edge.stop - edge.start for edge in box]))


def keep_confirmed(
    region: CaseRegion, first: CaseRegion, sample: NetworkInput, threshold: float, candidate_threshold: float
) -> CaseRegion:
    """Drop the parts of a second pass that hold no voxel of the first pass.

    A box that a person draws says that there is a lesion; a box round a candidate does not, and networks find
    something in most boxes.

    Args:
        region: The second pass, over a box.
        first: The first pass, over the whole grid.
        sample: That grid.
        threshold: Of the probability, for the parts of the box.
        candidate_threshold: For the first pass.
    """
    parts, _ = ndimage.label(region.logits >= logit(threshold), structure=np.ones((3, 3, 3)))
    confirmed = np.unique(parts[first.logits[region.box] >= logit(candidate_threshold)])
    new = (parts > 0) & ~np.isin(parts, confirmed)
    detail = region.detail
    if detail is not None:
        grid = crop_grid(sample.ct, box_of(region.box))
        dropped = resample_to(volume_like(new.astype(np.uint8), grid), detail, outside=0, nearest=True)
        detail = sitk.Mask(detail, dropped, float(NO_LESION), 1)
    return replace(region, logits=np.where(new, np.float16(NO_LESION), region.logits), detail=detail)


def mean_probability(region: CaseRegion, box: ArrayBox, threshold: float) -> float | None:
    """Return the mean probability of the voxels of a box that reach the threshold; None where none does."""
    own = tuple(
        slice(max(0, b.start - n.start), b.stop - n.start) for b, n in zip(box, region.box, strict=True)
    )
    logits = region.logits[own]
    inside = logits[logits >= logit(threshold)]
    return mean_of(inside) if inside.size else None


def mean_of(logits: HalfArray) -> float:
    """Return the mean of the probabilities of logits."""
    return float(np.mean(1 / (1 + np.exp(-logits.astype(np.float32)))))


LEAST_NEAR = 0.2  # share of a part within that margin; a ball of 9 cm with one half in the lungs has 0.26


def keep_lesions(
    found: sitk.Image, lungs: sitk.Image, smallest_ml: float
) -> tuple[sitk.Image, tuple[str, ...]]:
    """Give each part that is kept a label of its own, the largest first; report what was left out.

    Args:
        found: Mask, everything that is not 0 counts.
        lungs: Lung mask on the same grid.
        smallest_ml: Parts below this volume are left out.
    """
    lesion = split_lesions(found, smallest_ml)
    decisions = []
    voxels = [int(np.count_nonzero(sitk.GetArrayViewFromImage(mask))) for mask in (found, lesion)]
    small_ml = (voxels[0] - voxels[1]) * voxel_ml(found)
    if small_ml > 0:
        decisions.append(f"{small_ml:.2f} ml in parts below {smallest_ml:g} ml left out")
    shapes = sitk.LabelShapeStatisticsImageFilter()
    shapes.Execute(lesion)
    away = []
    for label in shapes.GetLabels():
        bounds = shapes.GetBoundingBox(label)
        if share_near_lungs(lesion, label, lungs, Box(bounds[:3], bounds[3:])) < LEAST_NEAR:
            away.append(label)
    if away:
        away_ml = sum(shapes.GetNumberOfPixels(label) for label in away) * voxel_ml(lesion)
        decisions.append(f"{len(away)} parts of {away_ml:.2f} ml away from the lungs left out")
        kept = [label for label in shapes.GetLabels() if label not in away]
        renamed = {label: kept.index(label) + 1 if label in kept else 0 for label in shapes.GetLabels()}
        lesion = sitk.ChangeLabel(lesion, renamed)
    return lesion, tuple(decisions)


def share_near_lungs(lesion: sitk.Image, label: int, lungs: sitk.Image, box: Box) -> float:
    """Return the share of one part that lies in the lungs or within `LUNG_MARGIN_MM` of them.

    Args:
        lesion: Labels of the parts.
        label: Of the part, which has voxels.
        lungs: Lung mask on the same grid.
        box: That holds the part.
    """
    room = widened(box, lungs, LUNG_MARGIN_MM)
    inside = crop(lungs, room) != 0
    if not sitk.GetArrayViewFromImage(inside).any():
        return 0.0
    distance = sitk.SignedMaurerDistanceMap(inside, squaredDistance=False, useImageSpacing=True)
    voxels = array_of(crop(lesion, room)) == label
    return float(np.mean(array_of(distance)[voxels] <= LUNG_MARGIN_MM))
