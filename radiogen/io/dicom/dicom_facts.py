"""What is known of a DICOM file from its header alone: where its slices lie, how its numbers are stored."""

from dataclasses import dataclass
from pathlib import Path

DEFLATED = "1.2.840.10008.1.2.1.99"  # transfer syntax: the whole data set is compressed
# What tells volumes of one SeriesInstanceUID apart, in the order in which a split is tried.
MARKS = (
    *("matrix", "slice thickness", "kernel", "image type", "stack"),
    *("time point", "acquisition", "echo", "kVp", "acquisition time"),
)
RECONSTRUCTION_MARKS = MARKS[1:5]  # of these, two values are two volumes even where no position comes twice


@dataclass(frozen=True)
class StoredPixels:
    """How the numbers of a slice lie in its file, and what turns them into HU."""

    syntax: str  # transfer syntax UID
    offset: int  # byte where the first pixel of this frame lies; -1 where a decoder must find it
    bits: tuple[int, int, int]  # allocated, stored, high bit
    is_signed: bool
    photometric: str
    slope: float | None
    intercept: float | None
    padding: tuple[int, ...] = ()  # PixelPaddingValue, and PixelPaddingRangeLimit if there is one
    is_lossy: bool = False


@dataclass(frozen=True)
class SliceFile:
    """One CT slice: its file (and frame), what orders it, what its numbers mean. Millimetres are LPS."""

    path: Path
    frame: int  # of a multi-frame file, from 0
    patient: str
    study_uid: str
    series_uid: str
    frame_uid: str
    sop_uid: str
    image_type: tuple[str, ...]
    position_mm: tuple[float, ...]
    orientation: tuple[float, ...]
    pixel_spacing_mm: tuple[float, float]  # between columns (x), between rows (y)
    size: tuple[int, int]  # columns, rows
    thickness_mm: float | None
    kernel: str
    has_contrast: bool
    instance: int | None
    marks: tuple[str, ...]  # one a name in MARKS, empty where the file says nothing
    pixels: StoredPixels

    @property
    def name(self) -> str:
        """What a message calls it."""
        return f"{self.path.name} frame {self.frame + 1}" if self.frame else self.path.name


@dataclass(frozen=True)
class OutlineFile:
    """A file of outlines and the CT it says it belongs to."""

    path: Path
    kind: str  # rtstruct, seg, lidc-xml
    patient: str = ""
    series_uids: frozenset[str] = frozenset()
    frame_uids: frozenset[str] = frozenset()
    sop_uids: frozenset[str] = frozenset()  # images it refers to
    is_automatic: bool = False


@dataclass(frozen=True)
class FileFacts:
    """What one file is: slices of a CT, an outline, damaged (why), or something else (what)."""

    slices: tuple[SliceFile, ...] = ()
    outline: OutlineFile | None = None
    damage: str = ""
    ignored: str = ""
