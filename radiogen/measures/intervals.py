"""95 % intervals: a bootstrap over patients, and Student's t for paired differences.

Patients are drawn, not scans or lesions, since those of one patient are not independent.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import mean, stdev
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from scipy.stats import t

LEVEL = 0.95
# Of 2000 draws 50 lie beyond either end of the interval.
DRAWS = 2000


class Statistic(Protocol):
    """np.mean, np.median and their like."""

    def __call__(self, values: npt.NDArray[np.float64], /, *, axis: int | None = None) -> Any: ...


@dataclass(frozen=True)
class Interval:
    """A figure over patients with its interval at 95 %, where there is one."""

    value: float
    low: float | None
    high: float | None


def bootstrap_by_patient(
    values: Sequence[float],
    patients: Sequence[str],
    rng: np.random.Generator,
    statistic: Statistic = np.mean,
    draws: int = DRAWS,
) -> Interval | None:
    """Compute a statistic with its percentile interval from a bootstrap that draws whole patients.

    Below some ten patients the interval is too narrow, yet it shows how much depends on single ones. One
    patient has no interval, nor have values that are all the same.

    Args:
        values: One a scan or a lesion; infinite ones are allowed for a median.
        patients: Whose each is.
        rng: Draws the patients.
        statistic: Of an array of values.
        draws: Number of draws.

    Returns:
        None without values.
    """
    if not values:
        return None
    groups: dict[str, list[float]] = {}
    for patient, value in zip(patients, values, strict=True):
        groups.setdefault(patient, []).append(value)
    whole = float(statistic(np.array(values)))
    # Such draws are all alike, and an interval of width 0 would read as certainty.
    if len(groups) < 2 or len(set(values)) == 1:
        return Interval(whole, None, None)
    each = [np.array(group) for group in groups.values()]
    # All draws at once from one generator: the same seed gives the same interval whatever the statistic.
    chosen = rng.integers(len(each), size=(draws, len(each)))
    # With one value a patient the draws are an array, which is much faster than a loop.
    if len(each) == len(values):
        drawn = statistic(np.concatenate(each)[chosen], axis=1)
    else:
        drawn = [float(statistic(np.concatenate([each[place] for place in row]))) for row in chosen]
    # A value that was drawn, none between two: medians of distances may be infinite, and inf - inf is NaN.
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], method="nearest")
    return Interval(whole, float(low), float(high))


@dataclass(frozen=True)
class PairedDifference:
    """The mean of first minus second over pairs, and its interval, which one pair does not have."""

    pairs: int
    mean: float
    low: float | None
    high: float | None


def sample_deviation(values: Sequence[float]) -> float | None:
    """Return the standard deviation of a sample (n - 1); None for one value."""
    return stdev(values) if len(values) > 1 else None


def paired_difference(first: Sequence[float], second: Sequence[float]) -> PairedDifference:
    """Return the mean of first minus second with its 95 % interval: Student's t, n - 1 degrees of freedom.

    With three pairs the interval reaches 2.5 standard deviations to either side.

    >>> found = paired_difference([91.0, 92.0, 93.0], [90.0, 90.0, 90.0])
    >>> found.mean, round(found.low, 2), round(found.high, 2)
    (2.0, -0.48, 4.48)
    """
    each = [one - two for one, two in zip(first, second, strict=True)]
    middle, deviation = mean(each), sample_deviation(each)
    if deviation is None:
        return PairedDifference(len(each), middle, None, None)
    # Student's t, not a bootstrap: three seeds, as in the papers, have only ten different draws.
    reach = float(t.ppf((1 + LEVEL) / 2, len(each) - 1)) * deviation / sqrt(len(each))
    return PairedDifference(len(each), middle, middle - reach, middle + reach)
