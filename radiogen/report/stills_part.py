"""The large still picture of a case, and pictures that become smaller where many would be heavy."""

import base64
import io
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import SimpleITK as sitk
from PIL import Image

from radiogen.drawing.pictures import write_picture
from radiogen.report.examined import Examined
from radiogen.drawing.mosaic import as_data

HEAVIEST_BYTES = 18_000_000  # of all pictures of a page of many cases, as base64
NARROWEST, QUALITY = 360, 80


def draw_still(ct: sitk.Image, masks: Mapping[str, sitk.Image], title: str) -> str:
    """A JPEG, as a data address, of the planes through the lesion; each says plane, position and window."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "still.png"
        write_picture(ct, masks, path, title)
        with Image.open(path) as drawn:
            packed = io.BytesIO()
            drawn.convert("RGB").save(packed, format="JPEG", quality=90, subsampling=0, optimize=True)
    return as_data(packed.getvalue())


def lighten(examined: Sequence[Examined], heaviest_bytes: int = HEAVIEST_BYTES) -> list[Examined]:
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
    return as_data(packed.getvalue())
