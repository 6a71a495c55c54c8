"""Means over seeds, and differences paired by seed with their intervals."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import mean, stdev

from scipy.stats import t

LEVEL = 0.95


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
