"""Order the slices of a CT series by where they lie, and make one volume of them."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from os.path import commonpath
from pathlib import Path

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from radiogen.errors import SeriesError
from radiogen.io.dicom_files import SliceFile
from radiogen.io.dicom_pixels import HuNotes, read_slice_hu

EVEN = 0.1  # of the slice spacing: how far a slice may lie off its place
SIDEWAYS = 0.25  # of a pixel: how far a slice may lie off the line through the others
TURNED = 1e-3  # difference of direction cosines

Vectors = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Series:
    """The CT slices that share one SeriesInstanceUID, in no order yet."""

    uid: str
    slices: tuple[SliceFile, ...]

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

    @property
    def is_axial(self) -> bool:
        """Whether the slices lie within 45 degrees of the patient's cross section."""
        row, column = np.array(self.slices[0].orientation).reshape(2, 3)
        return bool(abs(np.cross(row, column)[2]) > np.sqrt(0.5))


@dataclass(frozen=True)
class Stack:
    """Slices in the order of the grid they form; files of one position stand together."""

    places: tuple[tuple[SliceFile, ...], ...]
    origin_mm: tuple[float, ...]
    spacing_mm: tuple[float, ...]
    direction: tuple[float, ...]

    @property
    def size(self) -> tuple[int, int, int]:
        return *self.places[0][0].size, len(self.places)


@dataclass(frozen=True)
class CtSeries:
    """A CT that was read: the volume in HU, its slices in order, and what was decided."""

    volume: sitk.Image
    slices: tuple[SliceFile, ...]
    decisions: tuple[str, ...]


def group_series(slices: Iterable[SliceFile]) -> list[Series]:
    """Slices by SeriesInstanceUID, the largest series first."""
    groups: dict[str, list[SliceFile]] = defaultdict(list)
    for item in slices:
        groups[item.series_uid].append(item)
    series = [Series(uid, tuple(items)) for uid, items in groups.items()]
    return sorted(series, key=lambda one: (-len(one.slices), one.uid))


def read_series(series: Series) -> CtSeries:
    """Read one CT series as int16 HU.

    Raises:
        SeriesError: The slices do not form one evenly spaced volume, or a file is damaged.
    """
    stack = order_slices(series)
    notes = HuNotes()
    voxels = np.empty(stack.size[::-1], dtype=np.int16)
    doubles = 0
    for k, place in enumerate(stack.places):
        voxels[k] = read_slice_hu(place[0].path, place[0].size, notes)
        for other in place[1:]:
            if not np.array_equal(voxels[k], read_slice_hu(other.path, other.size, HuNotes())):
                raise _doubled(place[0], other, stack)
            doubles += 1
    volume = sitk.GetImageFromArray(voxels)
    volume.SetOrigin(stack.origin_mm)
    volume.SetSpacing(stack.spacing_mm)
    volume.SetDirection(stack.direction)
    decisions = notes.decisions()
    if doubles:
        decisions.insert(0, f"{doubles} doubled slices with equal voxels left out")
    return CtSeries(volume, tuple(place[0] for place in stack.places), tuple(decisions))


def _doubled(one: SliceFile, other: SliceFile, stack: Stack) -> SeriesError:
    z = one.position_mm[2]
    return SeriesError(
        other.path,
        f"lies at z {z:.2f} mm like {one.path.name} but holds other voxels "
        f"({len(stack.places)} places in all)",
        "keep one time point or reconstruction a folder, or choose with --series",
    )


def order_slices(series: Series) -> Stack:
    """Order slices along their normal and check that they form one upright, even grid.

    Raises:
        SeriesError: Several patients, sizes or orientations; missing, uneven, tilted or too few slices.
    """
    first = series.slices[0]
    _check_alike(series)
    row, column = np.array(first.orientation).reshape(2, 3)
    row = row / np.linalg.norm(row)
    normal = np.cross(row, column)
    normal /= np.linalg.norm(normal)
    column = np.cross(normal, row)
    positions = np.array([item.position_mm for item in series.slices])
    places = _places(series.slices, positions @ normal)
    if len(places) < 2:
        raise SeriesError(series.folder, "holds a CT of one slice", "give the whole series")
    ordered = np.array([place[0].position_mm for place in places])
    spacing = _even_spacing(series.folder, ordered @ normal, ordered)
    _check_upright(series.folder, ordered, normal, min(first.pixel_spacing_mm))
    return Stack(
        places=tuple(places),
        origin_mm=tuple(ordered[0].tolist()),
        spacing_mm=(*first.pixel_spacing_mm, spacing),
        direction=tuple(np.stack([row, column, normal], axis=1).ravel().tolist()),
    )


def _check_alike(series: Series) -> None:
    first = series.slices[0]
    row, column = np.array(first.orientation).reshape(2, 3)
    if abs(float(row @ column)) > TURNED or abs(float(np.linalg.norm(row)) - 1) > 1e-2:
        raise SeriesError(
            first.path, "its rows and columns are not at right angles", "export the series again"
        )
    for item in series.slices:
        if item.patient != first.patient:
            raise SeriesError(
                series.folder,
                f"one series holds two patients ({first.path.name} and {item.path.name})",
                "separate the patients, one folder each",
            )
        if item.size != first.size or not np.allclose(
            item.pixel_spacing_mm, first.pixel_spacing_mm, rtol=1e-3
        ):
            raise SeriesError(
                item.path,
                f"has {item.size} pixels of {item.pixel_spacing_mm} mm, {first.path.name} {first.size} of "
                f"{first.pixel_spacing_mm} mm",
                "keep one reconstruction in the folder",
            )
        if not np.allclose(item.orientation, first.orientation, atol=TURNED):
            raise SeriesError(
                item.path, f"is turned against {first.path.name}", "keep one orientation in the folder"
            )


def _places(slices: Sequence[SliceFile], heights: Vectors) -> list[tuple[SliceFile, ...]]:
    """Slices by height; those nearer than a hundredth of a millimetre share a place."""
    order = sorted(range(len(slices)), key=lambda i: (heights[i], slices[i].path))
    places: list[list[int]] = []
    for i in order:
        if places and heights[i] - heights[places[-1][0]] < 0.01:
            places[-1].append(i)
        else:
            places.append([i])
    return [tuple(slices[i] for i in place) for place in places]


def _even_spacing(folder: Path, heights: Vectors, positions: Vectors) -> float:
    gaps = np.diff(heights)
    usual = float(np.sort(gaps)[(len(gaps) - 1) // 2])
    steps = np.rint(gaps / usual)
    for i in np.flatnonzero((steps >= 2) & (np.abs(gaps / usual - steps) <= EVEN * steps)):
        raise SeriesError(
            folder,
            f"{int(steps[i]) - 1} of the slices missing between z {positions[i][2]:.2f} and "
            f"{positions[i + 1][2]:.2f} mm, they lie {usual:.2f} mm apart",
            "give the whole series",
        )
    spacing = round(float(heights[-1] - heights[0]) / len(gaps), 6)
    off = np.abs(heights - heights[0] - spacing * np.arange(len(heights)))
    if off.max() > EVEN * spacing:
        worst = int(np.argmax(np.abs(gaps - usual)))
        raise SeriesError(
            folder,
            f"slices at z {positions[worst][2]:.2f} and {positions[worst + 1][2]:.2f} mm lie "
            f"{gaps[worst]:.2f} mm apart, the others {usual:.2f} mm",
            "give a series with even spacing",
        )
    return spacing


def _check_upright(folder: Path, positions: Vectors, normal: Vectors, pixel_mm: float) -> None:
    path = positions - positions[0]
    sideways = path - np.outer(path @ normal, normal)
    shift_mm = np.linalg.norm(sideways, axis=1)
    if shift_mm.max() <= SIDEWAYS * pixel_mm:
        return
    degrees = np.degrees(np.arctan2(shift_mm[-1], abs(float(path[-1] @ normal))))
    raise SeriesError(
        folder,
        f"the slices are shifted sideways by up to {shift_mm.max():.1f} mm "
        f"(gantry tilt of {degrees:.1f} degrees)",
        "give a series without tilt, or resample it to an upright volume first",
    )
