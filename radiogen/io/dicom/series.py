"""Make one volume of the slices of a CT series, or say why they do not form one."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from radiogen.errors import SeriesError
from radiogen.io.dicom.dicom_facts import SliceFile
from radiogen.io.dicom.pixels import HuArray, HuNotes, put_hu, stored_numbers
from radiogen.io.dicom.dicom_volumes import Series
from radiogen.io.dicom.even_grid import EvenGrid, even_grid, lay_slices
from radiogen.io.dicom.grid import Stack, check_alike, refuse_gaps, refuse_tilt, widest_gap
from radiogen.runtime import memory_gb
from radiogen.volume import writable_volume

Rule = Literal["refuse", "resample"]
THIN = 1.5  # times their thickness: slices farther apart leave something out
AIR_BELOW_HU = -300
MOST_OF_MEMORY = 0.5  # of the machine: a volume that claims more is refused before it is read


@dataclass(frozen=True)
class SeriesRules:
    """What happens to a series that is no even, upright grid: it is refused, or resampled to one."""

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
    notes = HuNotes()
    lay_slices(_read_places(stack, notes), grid, voxels)
    if notes.inverted:
        _check_corners(series, voxels)
    doubles = sum(len(place) - 1 for place in stack.places)
    said = [f"{doubles} doubled slices with equal voxels left out"] if doubles else []
    said += [*grid.decisions, *notes.decisions(), *_seams(stack)]
    return CtSeries(volume, tuple(place[0] for place in stack.places), tuple(said))


def check_series(series: Series, rules: SeriesRules) -> Stack:
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
    is_too_wide = float(np.diff(stack.heights_mm).max()) > widest_gap(stack)
    if not stack.is_even and (rules.gaps == "refuse" or is_too_wide):
        raise refuse_gaps(series.folder, stack)
    if not stack.is_upright and rules.tilt == "refuse":
        raise refuse_tilt(series.folder, stack)
    return stack


def _check_memory(series: Series, grid: EvenGrid) -> None:
    gigabytes = 2e-9 * float(np.prod(grid.size, dtype=float))
    if gigabytes > MOST_OF_MEMORY * memory_gb():
        raise SeriesError(
            series.folder,
            f"makes a volume of {gigabytes:.0f} GB, the machine has {memory_gb():.0f} GB of memory",
            "take a coarser series, or a larger machine",
        )


def _check_corners(series: Series, voxels: HuArray) -> None:
    """MONOCHROME1 changes how a slice is shown, not its HU; some writers invert the HU all the same."""
    corners = voxels[:, [0, 0, -1, -1], [0, -1, 0, -1]]
    if float(np.median(corners)) > AIR_BELOW_HU:
        raise SeriesError(
            series.folder, "is MONOCHROME1 and its corners are not air: inverted", "export it as MONOCHROME2"
        )


def _read_places(stack: Stack, notes: HuNotes) -> Iterator[HuArray]:
    """The HU of each place in turn; further files of a place must hold the same."""
    files = [item for place in stack.places for item in place]
    with closing(stored_numbers(files)) as stored:
        for place in stack.places:
            first = _hu(next(stored), place[0], notes)
            for other in place[1:]:
                if not np.array_equal(first, _hu(next(stored), other, HuNotes())):
                    raise _doubled(place[0], other, stack)
            yield first


def _hu(stored: npt.NDArray[Any], item: SliceFile, notes: HuNotes) -> HuArray:
    hu = np.empty(stored.shape, dtype=np.int16)
    put_hu(stored, item.pixels, notes, hu)
    return hu


def _doubled(one: SliceFile, other: SliceFile, stack: Stack) -> SeriesError:
    z = one.position_mm[2]
    return SeriesError(
        other.path.with_name(other.name),
        f"lies at z {z:.2f} mm like {one.name} but holds other voxels "
        f"({len(stack.places)} places in all), and no header tells two volumes apart",
        "keep one time point or reconstruction a folder",
    )


def _seams(stack: Stack) -> list[str]:
    """What the headers say against the slices being the whole scan without gaps."""
    said = []
    numbers = sorted(place[0].instance or 0 for place in stack.places)
    if numbers[0] > 1 and numbers[-1] - numbers[0] == len(numbers) - 1:
        said.append(f"instance numbers start at {numbers[0]}: slices may be missing at an end")
    frames = {place[0].frame_uid for place in stack.places} - {""}
    if len(frames) > 1:
        said.append(f"its slices name {len(frames)} frames of reference; their positions are taken as of one")
    thickness = stack.first.thickness_mm
    if thickness and stack.usual_mm > THIN * thickness:
        said.append(
            f"slices of {thickness:g} mm lie {stack.usual_mm:.2f} mm apart: what lies between is not seen"
        )
    return said
