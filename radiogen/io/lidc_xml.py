"""Read the XML of LIDC-IDRI: what four readers outlined, nodule by nodule."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from radiogen.errors import OutlineError
from radiogen.io.contours import BoolArray, Points, fill_polygons

VoxelIndices = npt.NDArray[np.int64]

_SERIES = re.compile(rb"<SeriesInstanceUid>\s*([0-9.]{1,64})\s*</SeriesInstanceUid>", re.IGNORECASE)
_MOST_BYTES = 50_000_000  # the largest of the collection has 2 MB


@dataclass(frozen=True)
class Polygon:
    """One contour: pixels (column, row) of the slice at `z_mm`, shape (n, 2)."""

    z_mm: float
    corners: Points
    is_hole: bool


@dataclass(frozen=True)
class Reading:
    """One nodule as one reader outlined it; a nodule under 3 mm is a single point and has no polygons."""

    reader: int
    nodule: str
    malignancy: int | None  # 1 highly unlikely .. 5 highly suspicious
    polygons: tuple[Polygon, ...]


@dataclass(frozen=True)
class LidcReadings:
    """What the readers of one CT series outlined."""

    readers: int
    readings: tuple[Reading, ...]


@dataclass(frozen=True)
class Nodule:
    """A nodule on the grid of a CT: the voxels that enough readers drew in, and what they thought of it."""

    voxels: VoxelIndices  # flat indices of the array (z, y, x)
    readers: int
    malignancy: tuple[int, ...]  # one a reader, 1 highly unlikely .. 5 highly suspicious


def is_lidc_xml(head: bytes) -> bool:
    """Whether a file that starts so is a LIDC reading of a CT."""
    return b"<LidcReadMessage" in head


def lidc_series_uid(path: Path) -> str:
    """The CT series a reading belongs to, empty if it does not say."""
    with path.open("rb") as file:
        found = _SERIES.search(file.read(65536))
    return found.group(1).decode() if found else ""


def read_lidc_xml(path: Path) -> LidcReadings:
    """The nodules of all reading sessions.

    Raises:
        OutlineError: The file is no XML, or is damaged.
    """
    try:
        text = path.read_bytes()
        if len(text) > _MOST_BYTES or b"<!DOCTYPE" in text:
            raise ValueError("more or other than a LIDC reading holds")
        root = ElementTree.fromstring(text)
        sessions = list(_children(root, "readingSession"))
        readings = [
            _reading(reader, nodule)
            for reader, session in enumerate(sessions, start=1)
            for nodule in _children(session, "unblindedReadNodule")
        ]
    except (OSError, ValueError, ElementTree.ParseError) as error:
        raise OutlineError(path, f"cannot be read as LIDC XML: {error}", "copy it again") from error
    return LidcReadings(len(sessions), tuple(readings))


def _reading(reader: int, nodule: ElementTree.Element) -> Reading:
    polygons = []
    for roi in _children(nodule, "roi"):
        corners = [(float(_text(e, "xCoord")), float(_text(e, "yCoord"))) for e in _children(roi, "edgeMap")]
        if len(corners) >= 3:
            is_hole = _text(roi, "inclusion").upper() == "FALSE"
            polygons.append(Polygon(float(_text(roi, "imageZposition")), np.array(corners), is_hole))
    rated = [_text(one, "malignancy") for one in _children(nodule, "characteristics")]
    malignancy = int(rated[0]) if rated and rated[0].isdecimal() else None
    return Reading(reader, _text(nodule, "noduleID"), malignancy, tuple(polygons))


def _children(element: ElementTree.Element, name: str) -> Iterator[ElementTree.Element]:
    return (child for child in element if child.tag.rpartition("}")[2] == name)


def _text(element: ElementTree.Element, name: str) -> str:
    for child in _children(element, name):
        return (child.text or "").strip()
    return ""


def find_nodules(
    found: LidcReadings, ct: sitk.Image, agreement: float, source: Path
) -> tuple[list[Nodule], list[str]]:
    """The nodules that enough readers outlined, voxel by voxel.

    Readings whose voxels overlap are one nodule. A voxel belongs to it if at least `agreement` of all
    readers of the file drew it in.

    Args:
        found: What the XML says.
        ct: Axial CT; LIDC counts pixels of its slices.
        agreement: Share of the readers, above 0 to 1.
        source: The XML, for messages.

    Returns:
        Nodules by size, largest first, and what was decided.

    Raises:
        OutlineError: The CT is not axial.
    """
    if not np.allclose(np.abs(np.array(ct.GetDirection())[[0, 4, 8]]), 1.0, atol=1e-3):
        raise OutlineError(
            source, "counts pixels of axial slices, the CT is not axial", "give the axial series"
        )
    drawn = [reading for reading in found.readings if reading.polygons]
    filled = [_voxels_of(reading, ct) for reading in drawn]
    elsewhere = sum(count for _, count in filled)
    needed = max(1, int(np.ceil(agreement * found.readers - 1e-9)))
    nodules, seen_by_few = [], 0
    for group in _overlapping([voxels for voxels, _ in filled]):
        voxels, votes = np.unique(np.concatenate([filled[i][0] for i in group]), return_counts=True)
        agreed = voxels[votes >= needed]
        readers = len({drawn[i].reader for i in group})
        seen_by_few += len(agreed) == 0
        rated = [drawn[i].malignancy for i in group]
        if len(agreed):
            nodules.append(Nodule(agreed, readers, tuple(m for m in rated if m is not None)))
    nodules.sort(key=lambda nodule: -len(nodule.voxels))
    said = [f"LIDC: {len(nodules)} nodules where at least {needed} of {found.readers} readers agree"]
    if seen_by_few:
        said.append(f"LIDC: {seen_by_few} nodules that fewer readers agree on left out")
    if points := len(found.readings) - len(drawn):
        said.append(f"LIDC: {points} readings of nodules under 3 mm, which are points, left out")
    if elsewhere:
        said.append(f"LIDC: {elsewhere} contours lie on slices that are not here")
    return nodules, said


def _voxels_of(reading: Reading, ct: sitk.Image) -> tuple[VoxelIndices, int]:
    """Flat indices of the voxels of one reading, and how many of its polygons lie on slices not here.

    The contour line counts as nodule, of a hole too: so volumes agree with those published for pylidc.
    """
    columns, rows, slices = ct.GetSize()
    inside: dict[int, BoolArray] = {}
    elsewhere = 0
    for polygon in sorted(reading.polygons, key=lambda one: one.is_hole):
        place = (polygon.z_mm - ct.GetOrigin()[2]) / (ct.GetSpacing()[2] * ct.GetDirection()[8])
        k = round(place)
        if not 0 <= k < slices:
            elsewhere += 1
            continue
        plane = inside.setdefault(k, np.zeros((rows, columns), dtype=bool))
        filled = fill_polygons([polygon.corners], (columns, rows))
        line = _line_through(polygon.corners, (columns, rows))
        if polygon.is_hole:
            plane &= ~(filled & ~line)
        else:
            plane |= filled | line
    flat = [np.flatnonzero(plane) + k * rows * columns for k, plane in inside.items()]
    return np.concatenate([np.zeros(0, dtype=np.int64), *flat]), elsewhere


def _line_through(corners: Points, size: tuple[int, int]) -> BoolArray:
    line = np.zeros(size[::-1], dtype=bool)
    for start, end in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        steps = int(np.abs(end - start).max())
        x, y = np.rint(np.linspace(start, end, steps + 1)).astype(int).T
        line[np.clip(y, 0, size[1] - 1), np.clip(x, 0, size[0] - 1)] = True
    return line


def _overlapping(readings: list[VoxelIndices]) -> list[list[int]]:
    """Readings in groups that share voxels, directly or through others."""
    groups: list[list[int]] = []
    for i, voxels in enumerate(readings):
        met = [g for g in groups if any(np.intersect1d(voxels, readings[j]).size for j in g)]
        groups = [g for g in groups if g not in met] + [sorted([i, *(j for g in met for j in g)])]
    return [group for group in groups if any(readings[i].size for i in group)]
