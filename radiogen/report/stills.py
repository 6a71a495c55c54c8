"""Put pictures into a page as data, smaller where they would make it heavy."""

import base64
import io
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import SimpleITK as sitk
from PIL import Image

from radiogen.drawing.pictures import jpeg_address, write_picture
from radiogen.errors import CaseError
from radiogen.report.qc import ExaminedCase

HEAVIEST_BYTES = 14_000_000  # as base64, so that the page stays below 15 MB
WIDTHS_PIXELS = (1600, 1200, 900, 600, 400, 280)


def embed_pictures(paths: Sequence[Path], heaviest_bytes: int = HEAVIEST_BYTES) -> dict[Path, str]:
    """Data addresses of PNG files; unchanged while all addresses together stay within `heaviest_bytes`.

    Beyond that, each picture larger than its equal share becomes a JPEG of the first of `WIDTHS_PIXELS` that
    fits the share, or of the last.

    Raises:
        CaseError: A file is no picture.
    """
    raw_bytes = heaviest_bytes * 3 // 4  # base64 takes four characters for three bytes
    share = raw_bytes // max(1, len(paths))
    fits = sum(path.stat().st_size for path in paths) <= raw_bytes
    return {path: _embed(path, None if fits else share) for path in paths}


def _embed(path: Path, share_bytes: int | None) -> str:
    content, kind = path.read_bytes(), "png"
    if not content.startswith(b"\x89PNG"):
        raise CaseError(path, "is no PNG picture", "write it again with the command that made it")
    if share_bytes is not None and len(content) > share_bytes:
        content, kind = _shrink(path, share_bytes), "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _shrink(path: Path, share_bytes: int) -> bytes:
    from PIL import Image

    try:
        with Image.open(path) as opened:
            picture = opened.convert("RGB")
    except OSError as error:
        raise CaseError(
            path, "is a damaged picture", "write it again with the command that made it"
        ) from error
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


HEAVIEST_CASES_BYTES = 18_000_000  # of all pictures of a page of many cases, as base64
NARROWEST, QUALITY = 360, 80


def draw_still(ct: sitk.Image, masks: Mapping[str, sitk.Image], title: str) -> str:
    """A JPEG, as a data address, of the planes through the lesion; each says plane, position and window."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "still.png"
        write_picture(ct, masks, path, title)
        with Image.open(path) as drawn:
            packed = io.BytesIO()
            drawn.convert("RGB").save(packed, format="JPEG", quality=90, subsampling=0, optimize=True)
    return jpeg_address(packed.getvalue())


def lighten(
    examined: Sequence[ExaminedCase], heaviest_bytes: int = HEAVIEST_CASES_BYTES
) -> list[ExaminedCase]:
    """The same cases with pictures that together stay within a limit, as far as one can still see them."""
    weight = sum(len(one.picture) for one in examined)
    if weight <= heaviest_bytes:
        return list(examined)
    scale = (heaviest_bytes / weight) ** 0.6  # of width; a smaller JPEG weighs more a pixel
    return [replace(one, picture=_smaller(one.picture, scale)) if one.picture else one for one in examined]


def _smaller(address: str, scale: float) -> str:
    content = base64.b64decode(address.partition(",")[2])
    with Image.open(io.BytesIO(content)) as picture:
        width = max(NARROWEST, int(picture.width * scale))
        small = picture.resize((width, max(1, round(picture.height * width / picture.width))))
        packed = io.BytesIO()
        small.save(packed, format="JPEG", quality=QUALITY, optimize=True)
    return jpeg_address(packed.getvalue())
