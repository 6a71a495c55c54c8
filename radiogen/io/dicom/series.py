"""Group CT slices into series and read a series as one volume, or say why its slices do not form one."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from os.path import commonpath
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from radiogen.errors import SeriesError
from radiogen.io.dicom.pixels import HuArray, HuCounts, convert_to_hu, stored_numbers
from radiogen.io.dicom.slice_header import MARKS, RECONSTRUCTION_MARKS, SliceFile
from radiogen.io.dicom.slice_order import (
    EvenGrid,
    SliceStack,
    are_parallel,
    check_alike,
    even_grid,
    fill_grid,
    gap_error,
    order_slices,
    tilt_error,
    widest_gap,
)
from radiogen.runtime import memory_gb
from radiogen.volume import writable_volume


@dataclass(frozen=True)
class Series:
    """The CT slices of one volume: one SeriesInstanceUID, or a part of it, in no order yet.

    Attributes:
        uid: SeriesInstanceUID.
        slices: Its files.
        part: Counts the volumes of this UID from 1; 0 if it holds only one.
        told_apart_by: What distinguishes this volume from the others of the UID.
    """

    uid: str
    slices: tuple[SliceFile, ...]
    part: int = 0
    told_apart_by: str = ""

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
    def frame_of_reference_uids(self) -> frozenset[str]:
        return frozenset(item.frame_uid for item in self.slices) - {""}

    @cached_property
    def stack(self) -> SliceStack:
        """Its slices in order; not validated here, see `check_series`."""
        return order_slices(self.slices)

    @property
    def extent_mm(self) -> float:
        """From the first slice to the last."""
        return float(self.stack.heights_mm[-1])

    @property
    def thickness_mm(self) -> float:
        """Slice thickness as the header has it, or else the distance of the slices."""
        return self.slices[0].thickness_mm or self.stack.median_spacing_mm

    @property
    def is_axial(self) -> bool:
        """Whether the slices lie within 45 degrees of the patient's cross section."""
        row, column = np.array(self.slices[0].orientation).reshape(2, 3)
        return bool(abs(np.cross(row, column)[2]) > np.sqrt(0.5))


def group_series(slices: Iterable[SliceFile]) -> list[Series]:
    """Group slices by SeriesInstanceUID and volume, the largest first."""
    groups: dict[str, list[SliceFile]] = defaultdict(list)
    for item in slices:
        groups[item.series_uid].append(item)
    series = [one for uid, items in groups.items() for one in _volumes(uid, items)]
    return sorted(series, key=lambda one: (-len(one.slices), one.uid, one.part))


def _volumes(uid: str, slices: Sequence[SliceFile]) -> list[Series]:
    parallel = _by_orientation(slices)
    volumes: list[tuple[Sequence[SliceFile], str]] = []
    for group in parallel:
        for part, reason in _tell_apart(group):
            reasons = ["orientation", reason] if len(parallel) > 1 else [reason]
            volumes.append((part, "; ".join(filter(None, reasons))))
    if len(volumes) == 1:
        return [Series(uid, tuple(slices))]
    return [Series(uid, tuple(part), n, reason) for n, (part, reason) in enumerate(volumes, start=1)]


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
    """Return the volumes that parallel slices form, and what tells them apart; one where nothing does.

    Scanners store several phases or reconstructions under one SeriesInstanceUID. Slices are parted where
    places come twice, or are uneven, and one or two marks of the header explain it: each part then lies
    evenly, no place twice. Where no place comes twice only marks of reconstruction count: a scan in two
    acquisitions with a slice missing between them is one scan with a gap, not two.
    """
    whole = order_slices(slices)
    # Two places are even whatever their distance, so there is nothing that a split could explain.
    if not whole.is_doubled and (len(whole.places) < 3 or whole.is_even):
        return [(slices, "")]
    marks = MARKS if whole.is_doubled else RECONSTRUCTION_MARKS
    # One mark first, then pairs: the simplest difference that explains the volumes is taken.
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
        # Numbers before words, and 9 before 10, so that volumes are counted in the order of their mark.
        return float(value), value
    except ValueError:
        return np.inf, value


def _explains(parts: Sequence[Sequence[SliceFile]], whole: SliceStack) -> bool:
    stacks = [order_slices(part) for part in parts]
    places = [len(one.places) for one in stacks]
    least = 1 if whole.is_doubled else 3  # fewer places are always even and explain nothing
    are_even = all(not one.is_doubled and (len(one.places) < 3 or one.is_even) for one in stacks)
    # One part must hold more than half of the places: a volume is not a few stray slices.
    return are_even and min(places) >= least and max(places) > len(whole.places) / 2


def _because(names: Sequence[str], values: Sequence[str]) -> str:
    return ", ".join(f"{name} {value or 'not given'}" for name, value in zip(names, values, strict=True))


Rule = Literal["refuse", "resample"]
THIN = 1.5  # times their thickness: slices farther apart leave something out
AIR_BELOW_HU = -300
MOST_OF_MEMORY = 0.5  # of the machine: a volume that claims more is refused before it is read


@dataclass(frozen=True)
class SeriesRules:
    """Whether a series that is not evenly spaced, or sheared by gantry tilt, is refused or resampled."""

    gaps: Rule = "refuse"
    tilt: Rule = "refuse"


@dataclass(frozen=True)
class CtSeries:
    """A CT that was read: the volume in HU, its slices in order, and what was decided."""

    volume: sitk.Image
    slices: tuple[SliceFile, ...]
    decisions: tuple[str, ...]


def read_series(series: Series, rules: SeriesRules | None = None) -> CtSeries:
    """Read one CT series as int16 HU.

    Raises:
        SeriesError: The slices do not form one evenly spaced upright volume and the rules do not allow
            to resample them, or a file is damaged.
    """
    stack = check_series(series, rules or SeriesRules())
    grid = even_grid(stack)
    _check_memory(series, grid)
    volume, voxels = writable_volume(grid.size, sitk.sitkInt16)
    volume.SetOrigin(grid.origin_mm)
    volume.SetSpacing(grid.spacing_mm)
    volume.SetDirection(grid.direction)
    counts = HuCounts()
    fill_grid(_read_places(stack, counts), grid, voxels)
    if counts.inverted:
        _check_corners(series, voxels)
    doubles = sum(len(place) - 1 for place in stack.places)
    decisions = [f"{doubles} doubled slices with equal voxels left out"] if doubles else []
    decisions += [*grid.decisions, *counts.decisions(), *_header_warnings(stack)]
    return CtSeries(volume, tuple(place[0] for place in stack.places), tuple(decisions))


def check_series(series: Series, rules: SeriesRules) -> SliceStack:
    """Order slices along their normal and check that they form a grid that the rules allow.

    Returns:
        The slices in order.

    Raises:
        SeriesError: Several patients, sizes or orientations; missing, uneven, tilted or too few slices.
    """
    check_alike(series.folder, series.slices)
    stack = series.stack
    if len(stack.places) < 2:
        raise SeriesError(series.folder, "holds a CT of one slice", "give the whole series")
    # What was not scanned for two slices cannot be guessed, whatever the rules allow.
    is_too_wide = float(np.diff(stack.heights_mm).max()) > widest_gap(stack)
    if not stack.is_even and (rules.gaps == "refuse" or is_too_wide):
        raise gap_error(series.folder, stack)
    if not stack.is_upright and rules.tilt == "refuse":
        raise tilt_error(series.folder, stack)
    return stack


def _check_memory(series: Series, grid: EvenGrid) -> None:
    # Two bytes a voxel, int16.
    gigabytes = 2e-9 * float(np.prod(grid.size, dtype=float))
    if gigabytes > MOST_OF_MEMORY * memory_gb():
        wrong = f"makes a volume of {gigabytes:.0f} GB, the machine has {memory_gb():.0f} GB of memory"
        raise SeriesError(series.folder, wrong, "take a coarser series, or a larger machine")


def _check_corners(series: Series, voxels: HuArray) -> None:
    """Refuse MONOCHROME1 whose corners are no air: it concerns display, but some writers invert HU too."""
    # The corners of a CT slice lie outside the body: air, or padding that became air.
    corners = voxels[:, [0, 0, -1, -1], [0, -1, 0, -1]]
    if float(np.median(corners)) > AIR_BELOW_HU:
        raise SeriesError(
            series.folder, "is MONOCHROME1 and its corners are not air: inverted", "export it as MONOCHROME2"
        )


def _read_places(stack: SliceStack, counts: HuCounts) -> Iterator[HuArray]:
    """Return the HU of each place in turn; further files of a place must hold the same."""
    files = [item for place in stack.places for item in place]
    with closing(stored_numbers(files)) as stored:
        for place in stack.places:
            # Doubled files are dropped only if their voxels are equal, whatever their UIDs.
            first = _hu(next(stored), place[0], counts)
            for other in place[1:]:
                if not np.array_equal(first, _hu(next(stored), other, HuCounts())):
                    raise _doubled(place[0], other, stack)
            yield first


def _hu(stored: npt.NDArray[Any], item: SliceFile, counts: HuCounts) -> HuArray:
    hu = np.empty(stored.shape, dtype=np.int16)
    convert_to_hu(stored, item.pixels, counts, hu)
    return hu


def _doubled(one: SliceFile, other: SliceFile, stack: SliceStack) -> SeriesError:
    z = one.position_mm[2]
    return SeriesError(
        other.path.with_name(other.name),
        f"lies at z {z:.2f} mm like {one.name} but holds other voxels "
        f"({len(stack.places)} places in all), and no header tells two volumes apart",
        "keep one time point or reconstruction a folder",
    )


def _header_warnings(stack: SliceStack) -> list[str]:
    """Return what the headers say against the slices being the whole scan without gaps."""
    warnings = []
    numbers = sorted(place[0].instance or 0 for place in stack.places)
    # A slice missing at an end leaves no gap: only numbers that start late tell of it.
    if numbers[0] > 1 and numbers[-1] - numbers[0] == len(numbers) - 1:
        warnings.append(f"instance numbers start at {numbers[0]}: slices may be missing at an end")
    frames = {place[0].frame_uid for place in stack.places} - {""}
    if len(frames) > 1:
        warnings.append(
            f"its slices name {len(frames)} frames of reference; their positions are taken as of one"
        )
    thickness = stack.first.thickness_mm
    if thickness and stack.median_spacing_mm > THIN * thickness:
        warnings.append(
            f"slices of {thickness:g} mm lie {stack.median_spacing_mm:.2f} mm apart: "
            "what lies between is not seen"
        )
    return warnings
