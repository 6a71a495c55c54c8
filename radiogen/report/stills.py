"""Put pictures into a page as data, smaller where they would make it heavy."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path

from radiogen.errors import CaseError

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
