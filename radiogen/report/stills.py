"""Put pictures into a page as data, smaller where they would make it heavy."""

import base64
import io
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import SimpleITK as sitk
from PIL import Image

from radiogen.drawing.pictures import data_address, write_picture
from radiogen.errors import CaseError
from radiogen.report.qc import ExaminedCase

HEAVIEST_BYTES = 14_000_000  # as base64, so that the page stays below 15 MB
HEAVIEST_CASES_BYTES = 18_000_000  # of all pictures of a page of many cases, as base64
WIDTHS_PIXELS = (1600, 1200, 900, 600, 400, 280)
NARROWEST_PIXELS, QUALITY = 360, 80


def embed_pictures(paths: Sequence[Path], heaviest_bytes: int = HEAVIEST_BYTES) -> dict[Path, str]:
    """Return PNG files as data addresses; unchanged while all together stay within `heaviest_bytes`.

    Beyond that, each picture larger than its equal share becomes a JPEG of the first of `WIDTHS_PIXELS` that
    fits the share, or of the last.

    Raises:
        CaseError: A file is not a picture.
    """
    raw_bytes = heaviest_bytes * 3 // 4  # base64 takes four characters for three bytes
    share = raw_bytes // max(1, len(paths))
    fits = sum(path.stat().st_size for path in paths) <= raw_bytes
    return {path: _embed(path, None if fits else share) for path in paths}


def _embed(path: Path, share_bytes: int | None) -> str:
    content, kind = path.read_bytes(), "png"
    if not content.startswith(b"\x89PNG"):
        raise CaseError(path, "is not a PNG picture", "run the command that wrote it again")
    if share_bytes is not None and len(content) > share_bytes:
        content, kind = _shrink(path, share_bytes), "jpeg"
    return data_address(content, kind)


def _shrink(path: Path, share_bytes: int) -> bytes:
    try:
        with Image.open(path) as opened:
            picture = opened.convert("RGB")
    except OSError as error:
        raise CaseError(path, "is a damaged picture", "run the command that wrote it again") from error
    # The largest width that fits; the last is taken whatever its size, for a picture is better than none.
    content = b""
    for width in WIDTHS_PIXELS:
        smaller = picture.copy()
        smaller.thumbnail((width, width * 4))
        buffer = io.BytesIO()
        smaller.save(buffer, format="JPEG", quality=85)
        content = buffer.getvalue()
        if len(content) <= share_bytes:
            break
    return content


def draw_still(ct: sitk.Image, masks: Mapping[str, sitk.Image], title: str) -> str:
    """Draw the planes through the lesion as a JPEG; each names plane, position and window."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "still.png"
        write_picture(ct, masks, path, title)
        with Image.open(path) as drawn:
            packed = io.BytesIO()
            # Without subsampling of colour: the outlines are thin coloured lines.
            drawn.convert("RGB").save(packed, format="JPEG", quality=90, subsampling=0, optimize=True)
    return data_address(packed.getvalue())


def shrink_pictures(
    examined: Sequence[ExaminedCase], heaviest_bytes: int = HEAVIEST_CASES_BYTES
) -> list[ExaminedCase]:
    """Shrink the pictures of cases to stay within a limit together, as far as they remain legible."""
    total_bytes = sum(len(one.picture) for one in examined)
    if total_bytes <= heaviest_bytes:
        return list(examined)
    # Scale of the width. Not the square root: a smaller JPEG takes more bytes a pixel.
    scale = (heaviest_bytes / total_bytes) ** 0.6
    return [replace(one, picture=_smaller(one.picture, scale)) if one.picture else one for one in examined]


def _smaller(address: str, scale: float) -> str:
    content = base64.b64decode(address.partition(",")[2])
    with Image.open(io.BytesIO(content)) as picture:
        width = max(NARROWEST_PIXELS, int(picture.width * scale))
        small = picture.resize((width, max(1, round(picture.height * width / picture.width))))
        packed = io.BytesIO()
        small.save(packed, format="JPEG", quality=QUALITY, optimize=True)
    return data_address(packed.getvalue())
