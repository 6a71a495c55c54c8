"""Match the lesions of two masks one to one, and count them: sensitivity, F1, panoptic quality, FROC.

What is a lesion? Where a label is known to be one (masks of `radiogen segment`, with their table), each
label. Elsewhere each connected part (26 neighbours) of each label: many tools write all lesions with one
label, and two lesions that touch are told apart by their labels only.

What is a match? Pairs whose IoU is at least 0.1, chosen so that the sum of the IoUs is the largest (Hungarian
method); each lesion has one partner at most. Metrics Reloaded (Maier-Hein et al. 2024) asks for a criterion
that fits the size of the structures. The usual 0.5 is too much for a nodule of a few voxels, where a shift by
one voxel halves the IoU; the centre inside is too little, since painting the lung finds every nodule. 0.1 is
what nnDetection (Baumgartner et al. 2021) takes for lesions in 3D, and no prediction more than ten times as
large as the lesion reaches it.

A prediction over a tumour and its satellite is the partner of one, the other is `merged`; a tumour predicted
in two parts is the partner of one, the other is a `fragment`. Neither counts as found, nor as a false lesion.

A single voxel beside the outlines of a reference is a slip of a pen or of a conversion: such stray parts are
no lesions, and are counted by themselves.
"""

from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.optimize import linear_sum_assignment

# See above; `radiogen evaluate --least-iou` sets another.
LEAST_IOU = 0.1
INSIDE_SHARE = 0.5  # of a lesion that lies in another, from which on it is merged or a fragment
# A ball of 3 mm, from which on LIDC-IDRI outlines nodules. The smallest of 779 of them has 0.0185 ml; the 17
# parts that lie beside a larger one have 0.0115 ml at most, and 9 of them are single voxels.
STRAY_ML = 0.014
# Parts that touch by a corner are one lesion, as in `measures.lesions.split_lesions`.
NEIGHBOURS = np.ones((3, 3, 3), np.bool_)
FROC_RATES = (1 / 8, 1 / 4, 1 / 2, 1.0, 2.0, 4.0, 8.0)  # false lesions a scan, as in LUNA16

Outcome = Literal["found", "merged", "missed", "fragment", "false"]
Labels = npt.NDArray[np.integer]
Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class NumberedLesions:
    """The lesions of a mask, numbered from 1 in the order of their first voxels."""

    numbers: npt.NDArray[np.int32]  # (z, y, x), 0 background
    labels: tuple[int, ...]  # of the mask, by number

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, number: int) -> int:
        """Return the name of a lesion in tables: its label where no other has the same, else its number."""
        return self.labels[number - 1] if len(set(self.labels)) == len(self) else number

    def boxes(self) -> list[tuple[slice, slice, slice]]:
        """Return the box round each lesion, by number."""
        return list(ndimage.find_objects(self.numbers))


@dataclass(frozen=True)
class Match:
    """One lesion of either mask, or two that belong together.

    `found`: both. `merged`: a reference lesion without partner, half of which or more lies in the partner of
    another. `missed`: any other reference lesion without partner. `fragment`: a predicted lesion without
    partner, half of which or more lies in lesions of the reference. `false`: any other.
    """

    outcome: Outcome
    reference: int | None  # the number, None where there is none
    predicted: int | None
    iou: float = 0.0


def number_lesions(mask: Labels, by_label: bool = False) -> NumberedLesions:
    """Number the lesions of a mask in the order of their first voxels, whatever labels they have.

    Two parts that touch with different labels stay two lesions: ingest keeps structures that touch apart.

    Args:
        mask: (z, y, x), 0 background.
        by_label: Every label is one lesion, in however many parts; else every connected part of a label is.
    """
    parts = np.zeros(mask.shape, np.int32)
    first: list[int] = []  # flat index of the first voxel
    labels: list[int] = []
    for label, box in enumerate(ndimage.find_objects(mask), start=1):
        if box is None:
            continue
        inside = mask[box] == label
        numbered, count = (inside.astype(np.int32), 1) if by_label else ndimage.label(inside, NEIGHBOURS)
        parts[box][inside] = numbered[inside] + len(labels)
        labels += [label] * count
    if labels:
        flat = parts.ravel()
        voxels = np.flatnonzero(flat)
        # `np.unique` returns the first place of each part, since the flat voxels are searched in order.
        first = voxels[np.unique(flat[voxels], return_index=True)[1]].tolist()
    # By place, not by label: two tools that label the same lesions differently get the same numbers.
    order = np.argsort(first) if first else np.empty(0, np.intp)
    number_of = np.zeros(len(labels) + 1, np.int32)
    number_of[order + 1] = np.arange(1, len(labels) + 1)
    return NumberedLesions(number_of[parts], tuple(labels[place] for place in order))


def match_lesions(
    predicted: NumberedLesions, reference: NumberedLesions, least_iou: float = LEAST_IOU
) -> list[Match]:
    """Match the lesions of two masks: those of the reference by number, then predicted ones without partner.

    Args:
        predicted: Lesions of the prediction.
        reference: Lesions of the reference, on the same voxels.
        least_iou: Intersection over union from which two lesions may be a match.
    """
    shared = _shared(predicted, reference)
    # [1:]: count 0 is the background, which is no lesion.
    sizes_p = np.bincount(predicted.numbers[predicted.numbers > 0], minlength=len(predicted) + 1)[1:]
    sizes_r = np.bincount(reference.numbers[reference.numbers > 0], minlength=len(reference) + 1)[1:]
    iou = shared / np.maximum(sizes_r[:, None] + sizes_p[None, :] - shared, 1)
    allowed = (iou >= least_iou) & (iou > 0)
    # The largest sum of IoUs over all pairings depends neither on the order of labels nor on who comes first.
    rows, columns = linear_sum_assignment(np.where(allowed, iou, 0.0), maximize=True)
    partner = {int(r): int(p) for r, p in zip(rows, columns, strict=True) if allowed[r, p]}
    taken = sorted(partner.values())
    matches = []
    for r in range(len(reference)):
        if r in partner:
            matches.append(Match("found", r + 1, partner[r] + 1, float(iou[r, partner[r]])))
        else:
            # Strict matching would call the satellite under a prediction over both lesions "missed".
            is_merged = bool(np.any(shared[r, taken] >= INSIDE_SHARE * sizes_r[r]))
            matches.append(Match("merged" if is_merged else "missed", r + 1, None))
    for p in sorted(set(range(len(predicted))) - set(taken)):
        # Strict matching would call the second part of a torn tumour "false"; LUNA16 leaves these out too.
        is_fragment = bool(shared[:, p].sum() >= INSIDE_SHARE * sizes_p[p])
        matches.append(Match("fragment" if is_fragment else "false", None, p + 1))
    return matches


def stray_parts(reference: NumberedLesions, voxel_ml: float) -> set[int]:
    """Return the numbers of the stray parts: those of one voxel, or smaller than a ball of 3 mm.

    A reference with nothing larger has none, for there they are what was outlined.
    """
    sizes = np.bincount(reference.numbers.ravel(), minlength=len(reference) + 1)[1:]
    # A single voxel of thick slices may have more than the limit.
    is_stray = (sizes == 1) | (sizes * voxel_ml < STRAY_ML)
    return set() if is_stray.all() else {int(place) + 1 for place in np.flatnonzero(is_stray)}


def _shared(predicted: NumberedLesions, reference: NumberedLesions) -> Counts:
    """Count the voxels that each reference lesion (row) shares with each predicted one (column)."""
    both = (predicted.numbers > 0) & (reference.numbers > 0)
    pairs = reference.numbers[both].astype(np.int64) - 1, predicted.numbers[both] - 1
    shared = np.zeros((len(reference), len(predicted)), np.int64)
    # `shared[pairs] += 1` would count a pair once, however many voxels it shares.
    np.add.at(shared, pairs, 1)
    return shared


@dataclass(frozen=True)
class Detection:
    """Lesions of one scan or of several, by how they were matched."""

    found: int = 0
    merged: int = 0
    missed: int = 0
    fragments: int = 0
    false: int = 0
    iou_sum: float = 0.0  # over the found

    def __add__(self, other: "Detection") -> "Detection":
        return Detection(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    @property
    def lesions(self) -> int:
        """Lesions of the reference."""
        return self.found + self.merged + self.missed

    @property
    def predicted(self) -> int:
        """Lesions of the prediction."""
        return self.found + self.fragments + self.false

    @property
    def sensitivity(self) -> float | None:
        """The share of the reference's lesions that has a partner; None without lesions."""
        return self.found / self.lesions if self.lesions else None

    @property
    def f1(self) -> float | None:
        """2 found / (lesions of both masks), the recognition quality; None where both masks are empty.

        Strict: merged lesions and fragments count as wrong.
        """
        both = self.lesions + self.predicted
        return 2 * self.found / both if both else None

    @property
    def panoptic_quality(self) -> float | None:
        """The sum of the IoUs of the found over the mean number of lesions (Kirillov et al. 2019)."""
        both = self.lesions + self.predicted
        return 2 * self.iou_sum / both if both else None


def count_matches(matches: Iterable[Match]) -> Detection:
    """Count the matches of one scan.

    >>> count_matches([Match("found", 1, 1, 0.5), Match("missed", 2, None), Match("false", None, 2)]).f1
    0.5
    """
    listed = list(matches)
    outcomes = [match.outcome for match in listed]
    return Detection(
        found=outcomes.count("found"),
        merged=outcomes.count("merged"),
        missed=outcomes.count("missed"),
        fragments=outcomes.count("fragment"),
        false=outcomes.count("false"),
        iou_sum=sum(match.iou for match in listed),
    )


@dataclass(frozen=True)
class Froc:
    """Sensitivity at some numbers of false lesions a scan, and the mean over them (the score of LUNA16)."""

    rates: tuple[float, ...]
    sensitivities: tuple[float, ...]
    score: float


def froc(
    found: Sequence[float],
    false: Sequence[float],
    lesions: int,
    scans: int,
    rates: Sequence[float] = FROC_RATES,
) -> Froc | None:
    """Compute the FROC: sensitivity when only lesions of some score or higher are kept, at each false rate.

    Nothing is interpolated: at each rate stands the highest sensitivity with no more false lesions a scan.
    Lesions are matched once, with all of them there, so a fragment does not become a match when its better
    half is left out.

    Args:
        found: Scores of the predicted lesions that have a partner.
        false: Scores of the false ones; fragments are no false lesions.
        lesions: Lesions of the reference over all scans.
        scans: Scans, those without a lesion too.
        rates: False lesions a scan.

    Returns:
        None where no lesion could be found.

    >>> froc(found=[0.9, 0.4], false=[0.6], lesions=4, scans=2, rates=[0.25, 0.5]).sensitivities
    (0.25, 0.5)
    """
    if lesions == 0 or scans == 0:
        return None
    true_scores, false_scores = np.array(found, float), np.array(false, float)
    # The infinite threshold keeps no lesion: no rate is without a threshold that it allows.
    thresholds = np.unique(np.concatenate([true_scores, false_scores, [np.inf]]))
    sensitivity = np.array([np.count_nonzero(true_scores >= score) for score in thresholds]) / lesions
    false_rate = np.array([np.count_nonzero(false_scores >= score) for score in thresholds]) / scans
    at_rates = tuple(float(sensitivity[false_rate <= rate].max()) for rate in rates)
    return Froc(tuple(rates), at_rates, float(np.mean(at_rates)))
