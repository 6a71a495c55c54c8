"""Lesions and probabilities on the scanner's grid, and what is known of each lesion: its score and origin."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
import torch

from radiogen.measures.lesions import LESION_COLUMNS, Lesion, lesion_rows, split_lesions
from radiogen.model.network_input import NetworkInput
from radiogen.model.priors import BoxMm, box_voxels
from radiogen.provenance import write_csv
from radiogen.segmentation.inference import CaseRegion, HalfArray, grid_region
from radiogen.segmentation.sliding import NO_LESION, ArrayBox
from radiogen.volume import Box, FloatArray, array_of, crop, resample_to, voxel_ml, widened, writable_volume

SLAB_VOXELS = 8_000_000  # of the scanner's grid that are held as float32 at once
PARTS = 255  # a probability is kept as a whole number of these: one byte a voxel, right to 0.002
LUNG_MARGIN_MM = 10.0  # a lesion may lie this far from the lungs (a tumour in the wall or the hilum)
LEAST_NEAR = 0.2  # share of a part within that margin; a ball of 9 cm with one half in the lungs has 0.26
SCORE_COLUMNS = ("score", "entropy_bits", "disagreement", "candidate_score", "origin")


@dataclass(frozen=True)
class SegmentedLesion:
    """How sure the networks are of one lesion of the mask, and where it came from.

    `entropy_bits` and `disagreement` are two kinds of doubt: the first needs one network only and says how
    far its probabilities lie from 0 and 1, the second how far several passes lie apart. Neither is
    calibrated.
    """

    label: int
    score: float  # mean probability over its voxels
    entropy_bits: float  # mean over its voxels of the entropy of the probability: 0 sure, 1 undecided
    disagreement: float | None  # mean standard deviation between members and mirror images; None for one pass
    candidate_score: float | None  # best mean probability of its candidates in the first pass; auto only
    origin: str  # `lungs`, `box 1`, `candidate 3`, or several of them


class LesionMap:
    """Labels of lesions and probabilities on the scanner's grid; starts empty.

    `lesion` is the volume and `labels` its voxels (z, y, x); `parts` are probabilities in 255ths where a
    region was added, and 0 elsewhere. One byte a voxel each: a whole CT is never held as float32.
    """

    def __init__(self, ct: sitk.Image, sample: NetworkInput, threshold: float) -> None:
        self.ct, self.sample, self.threshold = ct, sample, threshold
        self.lesion, self.labels = writable_volume(ct.GetSize(), sitk.sitkUInt8)
        self.lesion.CopyInformation(ct)
        self.parts = np.zeros(self.labels.shape, np.uint8)
        self.sources: dict[int, tuple[CaseRegion, str, float | None]] = {}

    def add(
        self,
        region: CaseRegion,
        label: int,
        room: Box,
        origin: str,
        candidate_score: float | None = None,
        within: BoxMm | None = None,
    ) -> int:
        """Add the networks' output to a part of the scanner's grid, where it is above what is there.

        Args:
            region: Logits on the network's grid. They are interpolated, then turned into probabilities.
            label: For voxels whose probability reaches the threshold.
            room: Where, on the scanner's grid.
            origin: What the region was computed for: `lungs`, `box 1`, `candidate 3`.
            candidate_score: Mean probability of the candidate in the first pass.
            within: A box that the room may reach out of, but not the lesion.

        Returns:
            How many voxels got the label.
        """
        self.sources[label] = (region, origin, candidate_score)
        count = 0
        x, y, z = room.start
        width, height, depth = room.size
        step = max(1, SLAB_VOXELS // (width * height))
        for first in range(0, depth, step):
            slab = Box((x, y, z + first), (width, height, min(step, depth - first)))
            grid = crop_grid(self.ct, slab)
            probability = torch.sigmoid(torch.from_numpy(logits_on(grid, region, self.sample))).numpy()
            parts = np.rint(probability * PARTS).astype(np.uint8)
            wins = parts > self.parts[slab.array_slices()]
            if within is not None:
                wins &= box_voxels(within, grid)
            self.parts[slab.array_slices()][wins] = parts[wins]
            wins &= probability >= self.threshold
            self.labels[slab.array_slices()][wins] = label
            count += int(np.count_nonzero(wins))
        return count

    def probability(self) -> sitk.Image:
        """Return a volume of the probabilities in 255ths."""
        volume, voxels = writable_volume(self.ct.GetSize(), sitk.sitkUInt8)
        voxels[:] = self.parts
        volume.CopyInformation(self.ct)
        return volume

    def describe(self, lesion: sitk.Image) -> tuple[SegmentedLesion, ...]:
        """Describe every label of the final mask, 1..n, which was cut from this map."""
        shapes = sitk.LabelShapeStatisticsImageFilter()
        shapes.Execute(lesion)
        voxels = sitk.GetArrayViewFromImage(lesion)
        lesions = []
        for label in shapes.GetLabels():
            bounds = shapes.GetBoundingBox(label)
            box = Box(bounds[:3], bounds[3:])
            inside = voxels[box.array_slices()] == label
            sources = self.labels[box.array_slices()][inside]  # labels of this map under the lesion
            probability = self.parts[box.array_slices()][inside] / PARTS
            p = np.clip(probability, 1e-6, 1 - 1e-6)
            entropy = -(p * np.log2(p) + (1 - p) * np.log2(1 - p))
            origins = [self.sources[int(key)] for key in np.unique(sources)]
            scores = [score for _, _, score in origins if score is not None]
            lesions.append(
                SegmentedLesion(
                    label=int(label),
                    score=float(probability.mean()),
                    entropy_bits=float(entropy.mean()),
                    disagreement=self._disagreement(box, inside, sources),
                    candidate_score=max(scores, default=None),
                    origin=" + ".join(origin for _, origin, _ in origins),
                )
            )
        return tuple(lesions)

    def _disagreement(
        self, box: Box, inside: npt.NDArray[np.bool_], sources: npt.NDArray[np.uint8]
    ) -> float | None:
        total = 0.0
        for key in np.unique(sources):
            region = self.sources[int(key)][0]
            if region.spread is None:
                return None
            grid = crop_grid(self.ct, box)
            spread = interpolated(region.spread, region.box, self.sample, grid, outside=0.0)
            total += float(spread[inside][sources == key].sum())
        return total / len(sources)


def logits_on(grid: sitk.Image, region: CaseRegion, sample: NetworkInput) -> FloatArray:
    """Interpolate the logits of a region on another grid, linearly; shape (z, y, x) of that grid."""
    if region.detail is None:
        return interpolated(region.logits, region.box, sample, grid, NO_LESION)
    logits: FloatArray = sitk.GetArrayFromImage(resample_to(region.detail, grid, NO_LESION))
    return logits


def interpolated(
    values: HalfArray, region: ArrayBox, sample: NetworkInput, grid: sitk.Image, outside: float
) -> FloatArray:
    """Interpolate values of a box of the network's grid on another grid, linearly; shape (z, y, x)."""
    box = grid_region(grid, sample.ct, 2 * max(sample.ct.GetSpacing()))
    cut = [
        slice(max(want.start, edge.start), min(want.stop, edge.stop))
        for want, edge in zip(box.array_slices(), region, strict=True)
    ]
    if any(edge.stop <= edge.start for edge in cut):
        return np.full(grid.GetSize()[::-1], outside, np.float32)
    own = tuple(slice(c.start - n.start, c.stop - n.start) for c, n in zip(cut, region, strict=True))
    part = sitk.GetImageFromArray(values[own].astype(np.float32))
    part.SetOrigin(sample.ct.TransformIndexToPhysicalPoint([edge.start for edge in cut[::-1]]))
    part.SetSpacing(sample.ct.GetSpacing())
    part.SetDirection(sample.ct.GetDirection())
    moved: FloatArray = sitk.GetArrayFromImage(resample_to(part, grid, outside))
    return moved


def box_of(region: ArrayBox) -> Box:
    """Turn slices of an array (z, y, x) into a box of its volume."""
    z, y, x = region
    return Box((x.start, y.start, z.start), (x.stop - x.start, y.stop - y.start, z.stop - z.start))


def crop_grid(volume: sitk.Image, box: Box) -> sitk.Image:
    """Make the grid of a box of a volume, without its voxels."""
    grid = sitk.Image(box.size, sitk.sitkUInt8)
    grid.SetOrigin(volume.TransformIndexToPhysicalPoint(box.start))
    grid.SetSpacing(volume.GetSpacing())
    grid.SetDirection(volume.GetDirection())
    return grid


def holds_lung(lungs: sitk.Image, box: Box | None) -> bool:
    """Tell whether a box of the lung mask holds lung; None, a box outside the CT, holds none."""
    return box is not None and bool(sitk.GetArrayViewFromImage(lungs)[box.array_slices()].any())


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


def score_rows(
    case_id: str, lesions: Sequence[Lesion], scores: Sequence[SegmentedLesion]
) -> list[dict[str, Any]]:
    """List the lesions of one case as rows of lesions.csv; probabilities and the like to 0.001."""
    by_label = {score.label: score for score in scores}
    rows = lesion_rows(case_id, lesions)
    for row in rows:
        for name in SCORE_COLUMNS:
            value = getattr(by_label[row["lesion"]], name)
            row[name] = "" if value is None else round(value, 3) if isinstance(value, float) else value
    return rows


def write_lesions_csv(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write the lesions of one or many cases as one table; a case without any has no row."""
    write_csv(path, (*LESION_COLUMNS, *SCORE_COLUMNS), rows)
