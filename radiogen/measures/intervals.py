"""Intervals by drawing patients: lesions and scans of one patient are not independent."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import mean, stdev
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from scipy.stats import t

LEVEL = 0.95
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
    """A statistic with the percentile interval of a bootstrap that draws patients with all that is theirs.

    Below some ten patients the interval is too narrow; it says at least how much hangs on single ones. One
    patient has no interval, nor have values that are all the same: drawing from them tells nothing.

    Args:
        values: One a scan or a lesion; infinite ones are allowed for a median.
        patients: Whose each is.
        rng: The draws.
        statistic: Of an array of values.
        draws: How many.

    Returns:
        None without values.
    """
    if not values:
        return None
    groups: dict[str, list[float]] = {}
    for patient, value in zip(patients, values, strict=True):
        groups.setdefault(patient, []).append(value)
    whole = float(statistic(np.array(values)))
    if len(groups) < 2 or len(set(values)) == 1:
        return Interval(whole, None, None)
    each = [np.array(group) for group in groups.values()]
    chosen = rng.integers(len(each), size=(draws, len(each)))
    if len(each) == len(values):
        drawn = statistic(np.concatenate(each)[chosen], axis=1)
    else:
        drawn = [float(statistic(np.concatenate([each[place] for place in row]))) for row in chosen]
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], method="nearest")
    return Interval(whole, float(low), float(high))


@dataclass(frozen=True)
class PairedDifference:
    """The mean of first minus second over pairs, and its interval, which one pair does not have."""

    pairs: int
    mean: float
    low: float | None
    high: float | None


def spread(values: Sequence[float]) -> float | None:
    """The standard deviation of a sample (n - 1); None for one value."""
    return stdev(values) if len(values) > 1 else None


def paired_difference(first: Sequence[float], second: Sequence[float]) -> PairedDifference:
    """First minus second, pair by pair, with the 95 % interval of Student's t with n - 1 degrees of freedom.

    With three pairs the interval is 2.5 standard deviations to either side: wide, and honest.

    >>> found = paired_difference([91.0, 92.0, 93.0], [90.0, 90.0, 90.0])
    >>> found.mean, round(found.low, 2), round(found.high, 2)
    (2.0, -0.48, 4.48)
    """
    each = [one - two for one, two in zip(first, second, strict=True)]
    middle, deviation = mean(each), spread(each)
    if deviation is None:
        return PairedDifference(len(each), middle, None, None)
    reach = float(t.ppf((1 + LEVEL) / 2, len(each) - 1)) * deviation / sqrt(len(each))
    return PairedDifference(len(each), middle, middle - reach, middle + reach)
