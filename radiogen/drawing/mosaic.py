"""A small picture of a case for pages that show many: three planes with lungs and lesion, and a close-up."""

import base64
import io
from collections.abc import Mapping
from typing import Any

import SimpleITK as sitk

from radiogen.drawing.panels import BACKING, draw_panel
from radiogen.drawing.pictures import choose_panels
from radiogen.drawing.planes import Point, patient_axes, widest_cut

PANEL_INCHES, DPI = 2.75, 100
TALLEST, FLATTEST = 1.15, 0.55  # height to width
QUALITY = 82  # of JPEG; a mosaic takes 50 to 90 kB


def draw_mosaic(ct: sitk.Image, masks: Mapping[str, sitk.Image], title: str = "") -> bytes:
    """A JPEG of axial, coronal and sagittal plane, and the lesion close up or else the soft tissue.

    Args:
        ct: HU.
        masks: `lungs` and `lesion` if there are such, on the grid of `ct`.
        title: Stands in the first panel; a case id.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from PIL import Image

    panels = choose_panels(ct, masks, patient_axes(ct), _middle_of_lungs(ct, masks))
    half = len(panels) // 2
    shown = [panels[0], panels[half], panels[half + 1], panels[2] if half == 3 else panels[1]]
    shape = min(TALLEST, max(FLATTEST, *(panel.shown.height_to_width for panel in shown[:3])))
    figure = Figure(figsize=(len(shown) * PANEL_INCHES, shape * PANEL_INCHES), dpi=DPI, facecolor="black")
    for number, panel in enumerate(shown):
        where = (number / len(shown) + 0.002, 0.0, 1 / len(shown) - 0.004, 1.0)
        draw_panel(figure.add_axes(where), panel, list(masks), shape)
    plain: dict[str, Any] = {"fontsize": 9, "weight": "bold", "parse_math": False}
    figure.text(0.006, 0.03, title, color="white", bbox=BACKING, **plain)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    picture = Image.frombuffer("RGBA", canvas.get_width_height(), canvas.buffer_rgba()).convert("RGB")
    packed = io.BytesIO()
    picture.save(packed, format="JPEG", quality=QUALITY, subsampling=0, optimize=True)  # thin coloured lines
    return packed.getvalue()


def as_data(jpeg: bytes) -> str:
    """The picture as an address that a page can hold."""
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode('ascii')}"


def _middle_of_lungs(ct: sitk.Image, masks: Mapping[str, sitk.Image]) -> Point | None:
    """Where to cut a case without a lesion; None leaves it to the lesion, or to the middle of the scan."""
    axes = patient_axes(ct)
    if "lesion" in masks and axes.laid(masks["lesion"]).any():
        return None
    cut = widest_cut(axes.laid(masks["lungs"]), axes.spacing_mm) if "lungs" in masks else None
    return axes.point_at(ct, cut.index) if cut else None
