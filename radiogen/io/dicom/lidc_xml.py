"""Read the XML of LIDC-IDRI: what four readers outlined and how they rated it."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from radiogen.errors import OutlineError
from radiogen.io.outline_place import FARTHEST_MM
from radiogen.io.polygons import Points

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
class Reading:
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
class LidcReadings:
    """What the readers of one CT series outlined."""

    readers: int
    readings: tuple[Reading, ...]


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


def read_lidc_xml(path: Path) -> LidcReadings:
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
    return LidcReadings(len(sessions), tuple(readings))


def _reading(reader: int, nodule: ElementTree.Element) -> Reading:
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
        return Reading(reader, name, ratings, (), (column, row, polygons[0].z_mm))
    return Reading(reader, name, ratings, tuple(polygons))


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
