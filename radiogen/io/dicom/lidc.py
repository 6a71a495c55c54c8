"""From what LIDC readers outlined to nodules: which readings mean the same one, and what they agree on."""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from radiogen.errors import OutlineError
from radiogen.io.contours import EDGE_VOXELS, FARTHEST_MM, check_inside
from radiogen.io.polygons import BoolArray, Points, fill_polygon
from radiogen.volume import voxel_ml

RATINGS = (
    *("subtlety", "internalStructure", "calcification", "sphericity", "margin"),
    *("lobulation", "spiculation", "texture", "malignancy"),
)

_SERIES = re.compile(rb"<SeriesInstanceUid>\s*([0-9.]{1,64})\s*</SeriesInstanceUid>", re.IGNORECASE)
_MOST_BYTES = 20_000_000  # the largest of the collection has 2 MB


@dataclass(frozen=True)
class Polygon:
    """One contour: pixels (column, row) of the slice at `z_mm`, shape (n, 2)."""

    z_mm: float
    corners: Points
    is_hole: bool


@dataclass(frozen=True)
class ReaderOutline:
    """One nodule as one reader saw it.

    Attributes:
        reader: Number of the reading session, from 1.
        nodule: The reader's own name for it.
        ratings: The nine ratings of nodules of 3 mm and more by name, 1 to 5 or 6.
        polygons: Contours; none for a nodule under 3 mm.
        point: Of a nodule under 3 mm: column, row, z in mm.
    """

    reader: int
    nodule: str
    ratings: Mapping[str, int]
    polygons: tuple[Polygon, ...]
    point: tuple[float, float, float] | None = None


@dataclass(frozen=True)
class LidcFile:
    """What the readers of one CT series outlined."""

    readers: int
    readings: tuple[ReaderOutline, ...]


def is_lidc_xml(head: bytes) -> bool:
    """Whether a file that starts so is a LIDC reading of a CT."""
    return b"<LidcReadMessage" in head


def lidc_series_uid(path: Path) -> str:
    """The CT series a reading belongs to, empty if it does not say."""
    with path.open("rb") as file:
        found = _SERIES.search(file.read(65536))
    return found.group(1).decode() if found else ""


class _NoDoctype(ElementTree.TreeBuilder):
    """Refuses document types, and with them entities that expand to gigabytes."""

    def doctype(self, _name: str, _public_id: str, _system_id: str) -> None:
        raise ValueError("it declares a document type, which no LIDC reading does")


def read_lidc_xml(path: Path) -> LidcFile:
    """The nodules of all reading sessions.

    Raises:
        OutlineError: The file is no XML, or is damaged.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ValueError(f"it is larger than {_MOST_BYTES} bytes")
        parser = ElementTree.XMLParser(target=_NoDoctype())
        parser.feed(path.read_bytes())
        sessions = list(_children(parser.close(), "readingSession"))
        readings = [
            _reading(reader, nodule)
            for reader, session in enumerate(sessions, start=1)
            for nodule in _children(session, "unblindedReadNodule")
        ]
    except (OSError, ValueError, LookupError, ElementTree.ParseError) as error:
        raise OutlineError(path, f"cannot be read as LIDC XML: {error}", "copy it again") from error
    return LidcFile(len(sessions), tuple(readings))


def _reading(reader: int, nodule: ElementTree.Element) -> ReaderOutline:
    polygons = []
    for roi in _children(nodule, "roi"):
        corners = [(_number(e, "xCoord"), _number(e, "yCoord")) for e in _children(roi, "edgeMap")]
        if corners:
            is_hole = _text(roi, "inclusion").upper() == "FALSE"
            polygons.append(Polygon(_number(roi, "imageZposition"), np.array(corners), is_hole))
    ratings: dict[str, int] = {}
    for rated in _children(nodule, "characteristics"):
        texts = {name: _text(rated, name) for name in RATINGS}
        ratings = {name: int(text) for name, text in texts.items() if re.fullmatch("[0-9]", text)}
    name = _text(nodule, "noduleID")
    if polygons and all(len(one.corners) == 1 for one in polygons) and not ratings:
        column, row = polygons[0].corners[0].tolist()
        return ReaderOutline(reader, name, ratings, (), (column, row, polygons[0].z_mm))
    return ReaderOutline(reader, name, ratings, tuple(polygons))


def _children(element: ElementTree.Element, name: str) -> Iterator[ElementTree.Element]:
    return (child for child in element if child.tag.rpartition("}")[2] == name)


def _text(element: ElementTree.Element, name: str) -> str:
    for child in _children(element, name):
        return (child.text or "").strip()
    return ""


def _number(element: ElementTree.Element, name: str) -> float:
    text = _text(element, name)
    number = float(text)
    if not abs(number) <= FARTHEST_MM:  # NaN fails too
        raise ValueError(f"{name} {text[:20]} is no place on a CT")
    return number


VoxelIndices = npt.NDArray[np.int64]
OFF_SLICE = 0.25  # of the slice spacing: how far a contour may lie off its slice
MOST_PIXELS = 200_000_000  # of all contours' boxes together


@dataclass(frozen=True)
class NoduleReading:
    """What one reader made of a nodule: how large it was drawn, and the nine ratings."""

    reader: int
    nodule: str
    volume_ml: float
    ratings: Mapping[str, int]


@dataclass(frozen=True)
class SmallNodule:
    """A nodule under 3 mm, which a reader marked by one point; LPS millimetres."""

    reader: int
    nodule: str
    position_mm: tuple[float, float, float]


@dataclass(frozen=True)
class Nodule:
    """A nodule on the grid of a CT: the voxels that enough readers drew in, and each reader's view of it."""

    voxels: VoxelIndices  # flat indices of the array (z, y, x)
    readings: tuple[NoduleReading, ...]


@dataclass(frozen=True)
class LidcNodules:
    """The nodules of a CT, largest first, those under 3 mm, and what was decided."""

    nodules: tuple[Nodule, ...]
    small: tuple[SmallNodule, ...]
    decisions: tuple[str, ...]


def find_nodules(found: LidcFile, ct: sitk.Image, agreement: float, source: Path) -> LidcNodules:
    """The nodules that enough readers outlined, voxel by voxel.

    Readings that share a voxel, directly or through others, are one nodule. A voxel belongs to it if at least
    `agreement` of all readers of the file drew it in: who did not outline a nodule has seen the outlines of
    the others, and counts as one who drew nothing. A reader counts once, however often he outlined it.

    Args:
        found: What the XML says.
        ct: Axial CT with the pixels of its DICOM slices; LIDC counts them.
        agreement: Share of the readers, above 0 to 1.
        source: The XML, for messages.

    Raises:
        OutlineError: The CT is not axial, or a nodule that enough readers outlined leaves it.
    """
    direction = np.array(ct.GetDirection())
    if (
        not np.allclose(np.abs(direction[[0, 4, 8]]), 1.0, atol=1e-3)
        or np.linalg.det(direction.reshape(3, 3)) < 0
    ):
        raise OutlineError(
            source, "counts pixels of axial DICOM slices, which this CT has not", "give the DICOM series"
        )
    drawn = [reading for reading in found.readings if reading.polygons]
    _check_amount(drawn, source)
    filled = [_voxels_of(reading, ct, source) for reading in drawn]
    needed = max(1, int(np.ceil(agreement * found.readers - 1e-9)))
    nodules, by_few, twice = [], 0, 0
    for group in _overlapping(filled):
        by_reader: dict[int, VoxelIndices] = {}
        for i in group:
            by_reader[drawn[i].reader] = np.union1d(by_reader.get(drawn[i].reader, filled[i]), filled[i])
        voxels, votes = np.unique(np.concatenate(list(by_reader.values())), return_counts=True)
        agreed = voxels[votes >= needed]
        by_few += len(agreed) == 0
        if len(agreed):
            twice += len(by_reader) < len(group)
            _check_slices(agreed, ct, source)
            readings = tuple(_rated(drawn[i], filled[i], ct) for i in group)
            nodules.append(Nodule(agreed, readings))
    nodules.sort(key=lambda nodule: -len(nodule.voxels))
    small = tuple(_small(one, ct) for one in found.readings if one.point)
    said = [
        f"LIDC: {len(nodules)} nodules where at least {needed} of {found.readers} readers agree, "
        "a reader who did not outline it counts as not agreeing"
    ]
    if by_few:
        said.append(f"LIDC: {by_few} nodules that fewer readers agree on left out")
    if twice:
        said.append(
            f"LIDC: {twice} nodules that one reader outlined more than once, each reader counted once"
        )
    if small:
        said.append(
            f"LIDC: {len(small)} readings of nodules under 3 mm, which are points, are not in the mask"
        )
    return LidcNodules(tuple(nodules), small, tuple(said))


def _check_amount(readings: Sequence[ReaderOutline], source: Path) -> None:
    boxes = (np.ptp(polygon.corners, axis=0) + 1 for one in readings for polygon in one.polygons)
    if sum(float(box.prod()) for box in boxes) > MOST_PIXELS:
        raise OutlineError(source, "outlines more than a chest holds", "copy it again")


def _rated(reading: ReaderOutline, voxels: VoxelIndices, ct: sitk.Image) -> NoduleReading:
    return NoduleReading(reading.reader, reading.nodule, len(voxels) * voxel_ml(ct), reading.ratings)


def _small(reading: ReaderOutline, ct: sitk.Image) -> SmallNodule:
    column, row, z = reading.point or (0.0, 0.0, 0.0)
    x, y, _ = ct.TransformContinuousIndexToPhysicalPoint((column, row, 0.0))
    return SmallNodule(reading.reader, reading.nodule, (round(x, 2), round(y, 2), round(z, 2)))


def _voxels_of(reading: ReaderOutline, ct: sitk.Image, source: Path) -> VoxelIndices:
    """Flat indices of the voxels of one reading; those of slices beyond the CT go on below 0 and above it.

    The contour line counts as nodule, of a hole too: so volumes agree with those published for pylidc.
    """
    columns, rows, _ = ct.GetSize()
    slices: dict[int, list[Polygon]] = defaultdict(list)
    for polygon in reading.polygons:
        slices[_slice_of(polygon, ct, source)].append(polygon)
    flat = [np.zeros(0, dtype=np.int64)]
    for k, polygons in slices.items():
        plane = np.zeros((rows, columns), dtype=bool)
        for polygon in sorted(polygons, key=lambda one: one.is_hole):
            _draw(plane, polygon)
        flat.append(np.flatnonzero(plane) + k * rows * columns)
    return np.concatenate(flat)


def _slice_of(polygon: Polygon, ct: sitk.Image, source: Path) -> int:
    height = (polygon.z_mm - ct.GetOrigin()[2]) / (ct.GetSpacing()[2] * ct.GetDirection()[8])
    k = int(np.rint(height))
    if abs(height - k) > OFF_SLICE and 0 <= height <= ct.GetSize()[2] - 1:
        off = abs(height - k) * ct.GetSpacing()[2]
        raise OutlineError(
            source, f"has a contour {off:.1f} mm off the slices of the CT", "give the series it belongs to"
        )
    size, spacing = np.array(ct.GetSize()[:2]), np.array(ct.GetSpacing()[:2])
    over = np.maximum(-polygon.corners, polygon.corners - (size - 1)).max(axis=0)
    if (over > EDGE_VOXELS).any():
        raise OutlineError(
            source,
            f"lies outside the CT by {(over * spacing).max():.1f} mm",
            "give the series it belongs to",
        )
    return k


def _check_slices(voxels: VoxelIndices, ct: sitk.Image, source: Path) -> None:
    columns, rows, _ = ct.GetSize()
    ends = np.array([voxels.min(), voxels.max()]) // (columns * rows)
    check_inside(np.array([[0.0, 0.0, float(k)] for k in ends]), ct, source)


def _draw(plane: BoolArray, polygon: Polygon) -> None:
    """Add a contour to a slice, or cut a hole that leaves its own line."""
    patch = fill_polygon(polygon.corners, plane.shape[::-1])
    under = patch.cut_from(plane)
    x, y = _line_through(polygon.corners, plane.shape[::-1])
    if polygon.is_hole:
        line = np.zeros_like(plane)
        line[y, x] = True
        under &= ~patch.inside | patch.cut_from(line)
    else:
        under |= patch.inside
        plane[y, x] = True


def _line_through(corners: Points, size: tuple[int, int]) -> tuple[VoxelIndices, VoxelIndices]:
    """Columns and rows of the pixels on the straight lines between corners."""
    corners = np.clip(corners, 0, np.array(size) - 1)
    way = np.roll(corners, -1, axis=0) - corners
    steps = np.maximum(np.ceil(np.abs(way).max(axis=1)).astype(np.int64), 1)
    edge = np.repeat(np.arange(len(corners)), steps)
    share = (np.arange(len(edge)) - np.repeat(np.cumsum(steps) - steps, steps)) / steps[edge]
    x, y = np.rint(corners[edge] + share[:, np.newaxis] * way[edge]).astype(np.int64).T
    return x, y


def _overlapping(readings: Sequence[VoxelIndices]) -> list[list[int]]:
    """Readings in groups that share voxels, directly or through others; those without voxels are in none."""
    owner = np.repeat(np.arange(len(readings)), [len(voxels) for voxels in readings])
    voxels = np.concatenate([np.zeros(0, dtype=np.int64), *readings])
    order = np.argsort(voxels, kind="stable")
    shared = np.flatnonzero(np.diff(voxels[order]) == 0)
    one, other = owner[order][shared], owner[order][shared + 1]
    links = coo_array((np.ones(len(one), dtype=bool), (one, other)), shape=(len(readings), len(readings)))
    groups: dict[int, list[int]] = defaultdict(list)
    for i, group in enumerate(connected_components(links, directed=False)[1] if len(readings) else ()):
        if len(readings[i]):
            groups[int(group)].append(i)
    return list(groups.values())
