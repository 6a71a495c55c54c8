"""Rank the CT series of one patient by a stated rule, and say of each why it stands behind the first."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from radiogen.errors import SeriesError
from radiogen.io.dicom.dicom_volumes import Series
from radiogen.resources import compile_pattern

SeriesRule = Literal["most-slices", "thinnest", "thickest"]
PROJECTIONS = {"MIP", "MINIP", "MPR", "PROJECTION IMAGE"}
WHOLE = 0.5  # of the longest scan: a thin series that covers less is no rival


@dataclass(frozen=True)
class SeriesWish:
    """Which series of a patient is wanted.

    Attributes:
        series: SeriesInstanceUID, with `#2` behind it for the second volume of that UID.
        rule: What decides among several; None lets an outline decide, and then the number of slices.
        kernel: Pattern found in the convolution kernel.
        contrast: Whether contrast medium was given.
    """

    series: str | None = None
    rule: SeriesRule | None = None
    kernel: str | None = None
    contrast: bool | None = None

    def of(self, series: Sequence[Series], where: Path) -> list[Series]:
        """The series that were asked for by name, kernel and contrast.

        Raises:
            SeriesError: There is none.
        """
        left = [one for one in series if self.series in (None, one.name, one.uid)]
        if not left:
            raise SeriesError(
                where, f"holds {len(series)} CT series, none is {self.series}", "correct --series"
            )
        if self.kernel is not None:
            pattern = compile_pattern(self.kernel, "--kernel")
            there = sorted({one.slices[0].kernel or "none given" for one in left})
            left = [one for one in left if pattern.search(one.slices[0].kernel)]
            if not left:
                raise SeriesError(
                    where,
                    f"no kernel matches {self.kernel!r}, there are {', '.join(there)}",
                    "correct --kernel",
                )
        if self.contrast is not None:
            left = [one for one in left if one.slices[0].has_contrast == self.contrast]
            if not left:
                word = "with" if self.contrast else "without"
                raise SeriesError(where, f"holds no CT {word} contrast medium", "leave out --contrast")
        return left


@dataclass(frozen=True)
class _Rank:
    """What is compared, from the first to the last; each with what is said of the one that loses by it."""

    series: Series
    keys: tuple[tuple[float | str, str], ...]

    @property
    def order(self) -> tuple[float | str, ...]:
        return tuple(key for key, _ in self.keys)


def rank_series(series: Sequence[Series], rule: SeriesRule | None) -> list[tuple[Series, str]]:
    """Series from the one to take down to the last, each but the first with why it is not."""
    longest = max(one.extent_mm for one in series)
    ranks = sorted((_rank(one, rule, longest) for one in series), key=lambda rank: rank.order)
    return [(rank.series, _behind(ranks[0], rank)) for rank in ranks]


def _rank(series: Series, rule: SeriesRule | None, longest: float) -> _Rank:
    first = series.slices[0]
    places = len(series.stack.places)
    by_thickness: tuple[tuple[float, str], ...] = ()
    if rule in ("thinnest", "thickest"):
        sign, word = (1, "thicker") if rule == "thinnest" else (-1, "thinner")
        by_thickness = (
            (series.extent_mm < WHOLE * longest, "it covers less than half of the longest"),
            (sign * series.thickness_mm, f"its slices are {word}"),
        )
    return _Rank(
        series,
        (
            (not series.is_axial, "it is not axial"),
            (bool(PROJECTIONS & set(first.image_type)), "it is a projection or reformat"),
            *by_thickness,
            (-places, "it has fewer slices"),
            (-len(series.slices), "it has fewer slices"),
            ("ORIGINAL" not in first.image_type, "it is derived, not original"),
            (series.uid, "it is as good and its UID comes later"),
            (series.part, "it is as good and comes later in its series"),
        ),
    )


def _behind(first: _Rank, other: _Rank) -> str:
    pairs = zip(first.keys, other.keys, strict=True)
    return next((why for (one, _), (two, why) in pairs if one != two), "")


def rule_in_words(rule: SeriesRule | None) -> str:
    """Why the first of the ranks was taken."""
    return {None: "it has the most axial slices", "most-slices": "it has the most axial slices"}.get(
        rule, f"it is the {rule}"
    )
