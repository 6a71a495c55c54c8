"""Read LIDC XML and find the nodules that its readers agree on.

Four radiologists read each scan twice, the second time with the outlines of the others before them. The XML
does not name which outlines mean the same nodule.
"""

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
    "subtlety",
    "internalStructure",
    "calcification",
    "sphericity",
    "margin",
    "lobulation",
    "spiculation",
    "texture",
    "malignancy",
)

VoxelIndices = npt.NDArray[np.int64]
OFF_SLICE = 0.25  # of the slice spacing: how far a contour may lie off its slice
MOST_PIXELS = 200_000_000  # of all contours' boxes together
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
    """One nodule as one reader outlined it.

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
    """What the readers of one CT series outlined: the number of readers, and all outlines."""

    readers: int
    outlines: tuple[ReaderOutline, ...]


def is_lidc_xml(head: bytes) -> bool:
    """Return whether a file that starts so is a LIDC reading of a CT."""
    return b"<LidcReadMessage" in head


def lidc_series_uid(path: Path) -> str:
    """Return the CT series a reading belongs to, empty if it does not say."""
    with path.open("rb") as file:
        match = _SERIES.search(file.read(65536))
    return match.group(1).decode() if match else ""


class _RefuseDoctype(ElementTree.TreeBuilder):
    """A parser target that refuses document types, and with them entities that expand to gigabytes."""

    def doctype(self, _name: str, _public_id: str, _system_id: str) -> None:
        raise ValueError("it declares a document type, which no LIDC reading does")


def read_lidc_xml(path: Path) -> LidcFile:
    """Return the nodules of all reading sessions.

    Raises:
        OutlineError: The file is no XML, or is damaged.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ValueError(f"it is larger than {_MOST_BYTES} bytes")
        parser = ElementTree.XMLParser(target=_RefuseDoctype())
        parser.feed(path.read_bytes())
        sessions = list(_children(parser.close(), "readingSession"))
        outlines = [
            _reader_outline(reader, nodule)
            # LIDC is anonymous: the readers of two files are numbered alike but need not be the same people.
            for reader, session in enumerate(sessions, start=1)
            for nodule in _children(session, "unblindedReadNodule")
        ]
    except (OSError, ValueError, LookupError, ElementTree.ParseError) as error:
        raise OutlineError(path, f"cannot be read as LIDC XML: {error}", "copy it again") from error
    return LidcFile(len(sessions), tuple(outlines))


def _reader_outline(reader: int, nodule: ElementTree.Element) -> ReaderOutline:
    polygons = []
    for roi in _children(nodule, "roi"):
        corners = [(_number(e, "xCoord"), _number(e, "yCoord")) for e in _children(roi, "edgeMap")]
        if corners:
            # The LIDC schema: inclusion FALSE marks a region that does not belong to the nodule.
            is_hole = _text(roi, "inclusion").upper() == "FALSE"
            polygons.append(Polygon(_number(roi, "imageZposition"), np.array(corners), is_hole))
    ratings: dict[str, int] = {}
    for rated in _children(nodule, "characteristics"):
        texts = {name: _text(rated, name) for name in RATINGS}
        ratings = {name: int(text) for name, text in texts.items() if re.fullmatch("[0-9]", text)}
    name = _text(nodule, "noduleID")
    # Nodules under 3 mm are marked by one point and have no ratings.
    if polygons and all(len(one.corners) == 1 for one in polygons) and not ratings:
        column, row = polygons[0].corners[0].tolist()
        return ReaderOutline(reader, name, ratings, (), (column, row, polygons[0].z_mm))
    return ReaderOutline(reader, name, ratings, tuple(polygons))


def _children(element: ElementTree.Element, name: str) -> Iterator[ElementTree.Element]:
    return (child for child in element if child.tag.rpartition("}")[2] == name)


def _text(element: ElementTree.Element, name: str) -> str:
    child = next(_children(element, name), None)
    return "" if child is None else (child.text or "").strip()


def _number(element: ElementTree.Element, name: str) -> float:
    text = _text(element, name)
    number = float(text)
    if not abs(number) <= FARTHEST_MM:  # NaN fails too
        raise ValueError(f"{name} {text[:20]} is no place on a CT")
    return number


@dataclass(frozen=True)
class NoduleReading:
    """How large one reader drew a nodule, and the nine ratings."""

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
    """A nodule on the grid of a CT: the voxels that enough readers drew, and each reader's reading of it."""

    voxels: VoxelIndices  # flat indices of the array (z, y, x)
    readings: tuple[NoduleReading, ...]


@dataclass(frozen=True)
class LidcNodules:
    """The nodules of a CT, largest first, those under 3 mm, and what was decided."""

    nodules: tuple[Nodule, ...]
    small: tuple[SmallNodule, ...]
    decisions: tuple[str, ...]


def find_nodules(annotations: LidcFile, ct: sitk.Image, agreement: float, source: Path) -> LidcNodules:
    """Return the nodules that enough readers outlined, voxel by voxel.

    Outlines that share a voxel, directly or through others, are one nodule: a distance, as pylidc uses it,
    needs a tolerance. A voxel belongs to it if at least `agreement` of all readers of the file drew it: who
    did not outline a nodule saw the outlines of the others and drew nothing, which is an opinion. A reader
    counts once, however often he outlined it.

    Args:
        annotations: The content of the XML.
        ct: Axial CT with the pixels of its DICOM slices; LIDC counts them.
        agreement: Share of the readers, above 0 to 1.
        source: The XML, for messages.

    Raises:
        OutlineError: The CT is not axial, or a nodule that enough readers outlined leaves it.
    """
    _check_axial(ct, source)
    drawn = [outline for outline in annotations.outlines if outline.polygons]
    _check_amount(drawn, source)
    filled = [_voxels_of(outline, ct, source) for outline in drawn]
    # 1e-9 against rounding: 0.5 of four readers must be two, not three.
    needed = max(1, int(np.ceil(agreement * annotations.readers - 1e-9)))
    nodules = []
    by_few, twice = 0, 0  # nodules that too few readers agree on, that one reader outlined twice
    for group in _overlapping(filled):
        by_reader: dict[int, VoxelIndices] = {}
        for i in group:
            reader = drawn[i].reader
            by_reader[reader] = np.union1d(by_reader.get(reader, filled[i]), filled[i])
        voxels, votes = np.unique(np.concatenate(list(by_reader.values())), return_counts=True)
        agreed = voxels[votes >= needed]
        if len(agreed) == 0:
            by_few += 1
            continue
        twice += len(by_reader) < len(group)
        # What too few drew may lie elsewhere; half a nodule would be a wrong truth.
        _check_slices(agreed, ct, source)
        nodules.append(Nodule(agreed, tuple(_reading(drawn[i], filled[i], ct) for i in group)))
    nodules.sort(key=lambda nodule: -len(nodule.voxels))
    small = tuple(_small(one, ct) for one in annotations.outlines if one.point)
    decisions = [
        f"LIDC: {len(nodules)} nodules where at least {needed} of {annotations.readers} readers agree, "
        "a reader who did not outline it counts as not agreeing"
    ]
    decisions += _left_out(by_few, twice, len(small))
    return LidcNodules(tuple(nodules), small, tuple(decisions))


def _left_out(by_few: int, twice: int, small: int) -> list[str]:
    decisions = []
    if by_few:
        decisions.append(f"LIDC: {by_few} nodules that fewer readers agree on left out")
    if twice:
        decisions.append(
            f"LIDC: {twice} nodules that one reader outlined more than once, each reader counted once"
        )
    if small:
        decisions.append(
            f"LIDC: {small} readings of nodules under 3 mm, which are points, are not in the mask"
        )
    return decisions


def _check_axial(ct: sitk.Image, source: Path) -> None:
    """Refuse a CT with turned or flipped rows: LIDC counts pixels, not millimetres."""
    direction = np.array(ct.GetDirection()).reshape(3, 3)
    is_axial = np.allclose(np.abs(np.diag(direction)), 1.0, atol=1e-3)
    if not is_axial or np.linalg.det(direction) < 0:
        wrong = "counts pixels of axial DICOM slices, which this CT has not"
        raise OutlineError(source, wrong, "give the DICOM series")


def _check_amount(outlines: Sequence[ReaderOutline], source: Path) -> None:
    """Refuse contours that would take minutes to fill: a damaged coordinate can span the whole image."""
    boxes = (np.ptp(polygon.corners, axis=0) + 1 for one in outlines for polygon in one.polygons)
    if sum(float(box.prod()) for box in boxes) > MOST_PIXELS:
        raise OutlineError(source, "outlines more than a chest holds", "copy it again")


def _reading(outline: ReaderOutline, voxels: VoxelIndices, ct: sitk.Image) -> NoduleReading:
    return NoduleReading(outline.reader, outline.nodule, len(voxels) * voxel_ml(ct), outline.ratings)


def _small(outline: ReaderOutline, ct: sitk.Image) -> SmallNodule:
    column, row, z = outline.point or (0.0, 0.0, 0.0)
    x, y, _ = ct.TransformContinuousIndexToPhysicalPoint((column, row, 0.0))
    return SmallNodule(outline.reader, outline.nodule, (round(x, 2), round(y, 2), round(z, 2)))


def _voxels_of(outline: ReaderOutline, ct: sitk.Image, source: Path) -> VoxelIndices:
    """Fill one outline; returns flat indices, below 0 or behind the end where slices lie beyond the CT.

    The contour line counts as nodule, of a hole too: so volumes agree with those published for pylidc.
    """
    columns, rows, _ = ct.GetSize()
    slices: dict[int, list[Polygon]] = defaultdict(list)
    for polygon in outline.polygons:
        slices[_slice_of(polygon, ct, source)].append(polygon)
    flat = [np.zeros(0, dtype=np.int64)]
    for k, polygons in slices.items():
        plane = np.zeros((rows, columns), dtype=bool)
        # Holes last, since they cut what the other contours filled.
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
            source, f"lies outside the CT by {(over * spacing).max():.1f} mm", "give the series it belongs to"
        )
    return k


def _check_slices(voxels: VoxelIndices, ct: sitk.Image, source: Path) -> None:
    columns, rows, _ = ct.GetSize()
    ends = np.array([voxels.min(), voxels.max()]) // (columns * rows)
    check_inside(np.array([[0.0, 0.0, float(k)] for k in ends]), ct, source)


def _draw(plane: BoolArray, polygon: Polygon) -> None:
    """Add a contour to a slice, or cut a hole that leaves its own line."""
    filled = fill_polygon(polygon.corners, plane.shape[::-1])
    under = filled.cut_from(plane)
    x, y = _line_through(polygon.corners, plane.shape[::-1])
    if polygon.is_hole:
        line = np.zeros_like(plane)
        line[y, x] = True
        under &= ~filled.inside | filled.cut_from(line)
    else:
        under |= filled.inside
        plane[y, x] = True


def _line_through(corners: Points, size: tuple[int, int]) -> tuple[VoxelIndices, VoxelIndices]:
    """Return columns and rows of the pixels on the straight lines between corners."""
    corners = np.clip(corners, 0, np.array(size) - 1)
    edges = np.roll(corners, -1, axis=0) - corners
    steps = np.maximum(np.ceil(np.abs(edges).max(axis=1)).astype(np.int64), 1)
    edge = np.repeat(np.arange(len(corners)), steps)
    share = (np.arange(len(edge)) - np.repeat(np.cumsum(steps) - steps, steps)) / steps[edge]
    x, y = np.rint(corners[edge] + share[:, np.newaxis] * edges[edge]).astype(np.int64).T
    return x, y


def _overlapping(outlines: Sequence[VoxelIndices]) -> list[list[int]]:
    """Group outlines that share voxels, directly or through others; those without voxels are in none.

    All voxels are sorted with the number of their outline: equal neighbours are a shared voxel, so the work
    grows with the voxels and not with the pairs of outlines. The groups are the connected components of these
    links.
    """
    count = len(outlines)
    owner = np.repeat(np.arange(count), [len(voxels) for voxels in outlines])
    voxels = np.concatenate([np.zeros(0, dtype=np.int64), *outlines])
    order = np.argsort(voxels, kind="stable")
    shared = np.flatnonzero(np.diff(voxels[order]) == 0)
    pairs = (owner[order][shared], owner[order][shared + 1])
    links = coo_array((np.ones(len(shared), dtype=bool), pairs), shape=(count, count))
    groups: dict[int, list[int]] = defaultdict(list)
    for i, group in enumerate(connected_components(links, directed=False)[1] if count else ()):
        if len(outlines[i]):
            groups[int(group)].append(i)
    return list(groups.values())
