"""Tell CT volumes and their lesion masks apart by how the files are named."""

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from radiogen.io.nifti import VOLUME_ENDINGS

IMAGE_WORDS = ("image", "images", "img", "imgs", "ct", "cts", "scan", "scans", "volume", "volumes", "0000")
MASK_WORDS = (
    *("label", "labels", "mask", "masks", "seg", "segs", "segmentation", "segmentations", "annotations"),
    *("lesion", "lesions", "gtv", "tumor", "tumour", "tumors", "tumours", "roi"),
)
LUNG_WORDS = ("lungs", "lungmask")


@dataclass(frozen=True)
class VolumePair:
    """One scan: what it is called without words like "image", the CT, and the masks that go with it."""

    name: str
    ct: Path
    masks: tuple[Path, ...] = ()


@dataclass(frozen=True)
class _Named:
    path: Path
    home: Path  # the folder, above folders like imagesTr
    core: str  # the stem without image and mask words
    role: str  # image, mask, lungs


def pair_volumes(files: Iterable[Path]) -> tuple[list[VolumePair], int]:
    """Pair CT volumes with lesion masks by name.

    A mask is `x_label` beside `x` or `x_image`, `labelsTr/x` beside `imagesTr/x`, or, where a folder has
    one CT, a file or folder that is called nothing but `mask`, `label` or the like.

    Returns:
        One pair a CT in the order of the files, and how many masks have no CT.
    """
    named = [_named(path) for path in files]
    images = [one for one in named if one.role == "image"]
    alone = {home for home, count in _count(one.home for one in images).items() if count == 1}
    masks: dict[tuple[Path, str], list[Path]] = defaultdict(list)
    for one in named:
        if one.role == "mask":
            masks[one.home, one.core].append(one.path)
    pairs = []
    for one in images:
        found = masks.pop((one.home, one.core), [])
        if not found and one.home in alone:
            found = masks.pop((one.home, ""), [])
        pairs.append(VolumePair(one.core or one.home.name, one.path, tuple(found)))
    return pairs, sum(len(left) for left in masks.values())


def scan_name(path: Path) -> str:
    """What a volume file is called without words like "image" or "label", or else its folder.

    >>> scan_name(Path("a/lung1_image.nrrd"))
    'lung1'
    """
    named = _named(path)
    return named.core or named.home.name


def _count(homes: Iterable[Path]) -> dict[Path, int]:
    counts: dict[Path, int] = defaultdict(int)
    for home in homes:
        counts[home] += 1
    return counts


def _named(path: Path) -> _Named:
    role, home = "image", path.parent
    folder = re.sub(r"(tr|ts|val)$", "", home.name.lower())
    if folder in MASK_WORDS or folder in IMAGE_WORDS:
        role, home = ("mask" if folder in MASK_WORDS else "image"), home.parent
    core = _stem(path)
    if _last_word(core)[1] in LUNG_WORDS:
        return _Named(path, home, "", "lungs")
    while (shorter := _last_word(core))[1] in MASK_WORDS + IMAGE_WORDS:
        role = "mask" if shorter[1] in MASK_WORDS else role
        core = shorter[0]
    return _Named(path, home, core, role)


def _last_word(name: str) -> tuple[str, str]:
    """What stands before the last word, and that word in lower case."""
    found = re.fullmatch(r"(.*?)[_\-. ]*([^_\-. ]*)", name)
    return (found[1], found[2].lower()) if found else (name, "")


def _stem(path: Path) -> str:
    for ending in VOLUME_ENDINGS:
        if path.name.lower().endswith(ending):
            return path.name[: -len(ending)]
    return path.stem
