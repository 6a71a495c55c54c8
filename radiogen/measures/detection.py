"""How many lesions were found, missed and invented: sensitivity, F1, panoptic quality, FROC."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from radiogen.measures.matching import Match

FROC_RATES = (1 / 8, 1 / 4, 1 / 2, 1.0, 2.0, 4.0, 8.0)  # false lesions a scan, as in LUNA16


@dataclass(frozen=True)
class Detection:
    """Lesions of one scan or of several, by how they were matched; see `measures/matching.py`."""

    found: int = 0
    merged: int = 0
    missed: int = 0
    fragments: int = 0
    false: int = 0
    iou_sum: float = 0.0  # over the found

    def __add__(self, other: "Detection") -> "Detection":
        return Detection(
            self.found + other.found,
            self.merged + other.merged,
            self.missed + other.missed,
            self.fragments + other.fragments,
            self.false + other.false,
            self.iou_sum + other.iou_sum,
        )

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
