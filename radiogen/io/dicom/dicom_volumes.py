"""Group CT slices into series, and take apart series that hold several volumes."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from os.path import commonpath
from pathlib import Path

import numpy as np

from radiogen.io.dicom.dicom_facts import MARKS, RECONSTRUCTION_MARKS, SliceFile
from radiogen.io.dicom.grid import Stack, are_parallel, stack_slices


@dataclass(frozen=True)
class Series:
    """The CT slices of one volume: one SeriesInstanceUID, or a part of it, in no order yet.

    Attributes:
        uid: SeriesInstanceUID.
        slices: Its files.
        part: Counts the volumes of this UID from 1; 0 if it holds only one.
        because: What tells this volume from the others of the UID.
    """

    uid: str
    slices: tuple[SliceFile, ...]
    part: int = 0
    because: str = ""

    @property
    def name(self) -> str:
        """The UID, and behind it which volume of the UID."""
        return f"{self.uid}#{self.part}" if self.part else self.uid

    @property
    def folder(self) -> Path:
        """The folder that holds all files of the series."""
        return Path(commonpath([item.path.parent for item in self.slices]))

    @property
    def patient(self) -> str:
        return self.slices[0].patient

    @property
    def frame_uids(self) -> frozenset[str]:
        return frozenset(item.frame_uid for item in self.slices) - {""}

    @cached_property
    def stack(self) -> Stack:
        """Its slices in order; checked by whoever reads them."""
        return stack_slices(self.slices)

    @property
    def extent_mm(self) -> float:
        """From the first slice to the last."""
        return float(self.stack.heights_mm[-1])

    @property
    def thickness_mm(self) -> float:
        """Slice thickness as the header has it, or else the distance of the slices."""
        return self.slices[0].thickness_mm or self.stack.usual_mm

    @property
    def is_axial(self) -> bool:
        """Whether the slices lie within 45 degrees of the patient's cross section."""
        row, column = np.array(self.slices[0].orientation).reshape(2, 3)
        return bool(abs(np.cross(row, column)[2]) > np.sqrt(0.5))


def group_series(slices: Iterable[SliceFile]) -> list[Series]:
    """Slices by SeriesInstanceUID and volume, the largest first."""
    groups: dict[str, list[SliceFile]] = defaultdict(list)
    for item in slices:
        groups[item.series_uid].append(item)
    series = [one for uid, items in groups.items() for one in _volumes(uid, items)]
    return sorted(series, key=lambda one: (-len(one.slices), one.uid, one.part))


def _volumes(uid: str, slices: Sequence[SliceFile]) -> list[Series]:
    parallel = _by_orientation(slices)
    told = [
        (part, "; ".join(filter(None, ["orientation" if len(parallel) > 1 else "", why])))
        for group in parallel
        for part, why in _tell_apart(group)
    ]
    if len(told) == 1:
        return [Series(uid, tuple(slices))]
    return [Series(uid, tuple(part), n, why) for n, (part, why) in enumerate(told, start=1)]


def _by_orientation(slices: Sequence[SliceFile]) -> list[list[SliceFile]]:
    groups: list[list[SliceFile]] = []
    for item in sorted(slices, key=lambda one: (one.path, one.frame)):
        for group in groups:
            if are_parallel(item, group[0]):
                group.append(item)
                break
        else:
            groups.append([item])
    return sorted(groups, key=len, reverse=True)


def _tell_apart(slices: Sequence[SliceFile]) -> list[tuple[Sequence[SliceFile], str]]:
    """The volumes that parallel slices form, and what tells them apart; one where nothing does.

    Slices are parted where places come twice, or are uneven, and some mark of the header explains it: each
    part then lies evenly, no place twice. Where no place comes twice only marks of reconstruction count: a
    scan in two acquisitions with a slice missing between them is one scan with a gap, not two.
    """
    whole = stack_slices(slices)
    if not whole.is_doubled and (len(whole.places) < 3 or whole.is_even):
        return [(slices, "")]
    marks = MARKS if whole.is_doubled else RECONSTRUCTION_MARKS
    for count in (1, 2):
        for names in combinations(marks, count):
            parts = _parted(slices, names)
            if len(parts) > 1 and _explains(list(parts.values()), whole):
                return [(part, _because(names, value)) for value, part in parts.items()]
    return [(slices, "")]


def _parted(slices: Sequence[SliceFile], names: Sequence[str]) -> dict[tuple[str, ...], list[SliceFile]]:
    parts: dict[tuple[str, ...], list[SliceFile]] = defaultdict(list)
    for item in slices:
        parts[tuple(item.marks[MARKS.index(name)] for name in names)].append(item)
    return dict(sorted(parts.items(), key=lambda one: [_natural(value) for value in one[0]]))


def _natural(value: str) -> tuple[float, str]:
    try:
        return float(value), value
    except ValueError:
        return np.inf, value


def _explains(parts: Sequence[Sequence[SliceFile]], whole: Stack) -> bool:
    stacks = [stack_slices(part) for part in parts]
    least = 1 if whole.is_doubled else 3  # places; fewer are always even and explain nothing
    return (
        all(not one.is_doubled and (len(one.places) < 3 or one.is_even) for one in stacks)
        and min(len(one.places) for one in stacks) >= least
        and max(len(one.places) for one in stacks) > len(whole.places) / 2
    )


def _because(names: Sequence[str], values: Sequence[str]) -> str:
    return ", ".join(f"{name} {value or 'not given'}" for name, value in zip(names, values, strict=True))
