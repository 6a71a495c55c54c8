"""Draw a CT with the outlines of its masks in three planes, as a radiologist expects to see them."""

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import SimpleITK as sitk

from radiogen.drawing.panels import BACKING, LUNG, SOFT_TISSUE, FieldOfView, Panel, color_of, draw_panel
from radiogen.drawing.planes import PatientAxes, Point, body_edges_mm, cut_planes, patient_axes, widest_cut
from radiogen.errors import VolumeError
from radiogen.provenance import whole_file
from radiogen.volume import same_grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SMALLEST_FIELD_MM = 60.0
PANEL_INCHES = 4.3
DPI = 110
MOSAIC_PANEL_INCHES, MOSAIC_DPI = 2.75, 100
TALLEST, FLATTEST = 1.15, 0.55  # height to width
QUALITY = 82  # of JPEG; a mosaic takes 50 to 90 kB


def write_picture(
    ct: sitk.Image,
    masks: Mapping[str, sitk.Image],
    path: Path,
    title: str = "",
    at_mm: Point | None = None,
) -> None:
    """Write a PNG of the planes through a lesion: patient's right on the left, head up, true proportions.

    Axial, coronal and sagittal in the lung window, axial also in the soft-tissue window; where there is a
    lesion, the axial plane close up with and without the outlines. The same input gives the same bytes.

    Args:
        ct: HU, any direction matrix.
        masks: By name (`lesion`, `reference` and `lungs` have colours of their own), on the grid of `ct`.
        path: PNG file to write.
        title: Heading, usually the case id.
        at_mm: LPS point the planes go through. Without it they go where the largest part of `lesion`, else
            of `reference`, else of the first other mask, covers most; or through the middle of the volume.

    Raises:
        VolumeError: A mask does not lie on the grid of `ct`, or `at_mm` lies outside of it.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    for name, mask in masks.items():
        if not same_grid(ct, mask):
            raise VolumeError(f"mask {name}", "does not lie on the grid of the CT", "resample it to the CT")
    axes = patient_axes(ct)
    panels = choose_panels(ct, masks, axes, at_mm)
    # A canvas of our own, not pyplot: no global state, no display, and the same bytes from every process.
    canvas = FigureCanvasAgg(_figure(panels, list(masks), title, axes.tilt_degrees))
    with whole_file(path) as draft, draft.open("wb") as file:
        # Without matplotlib's version in the file, which would change its bytes.
        canvas.print_png(file, metadata={"Software": None})


def choose_panels(
    ct: sitk.Image, masks: Mapping[str, sitk.Image], axes: PatientAxes, at_mm: Point | None
) -> list[Panel]:
    """Choose the panels that `write_picture` draws: the upper row, then the lower row, equally many."""
    lesions = [name for name in ("lesion", "reference") if name in masks]
    names = lesions + [name for name in masks if name not in ("lesion", "reference", "lungs")]
    cuts = (widest_cut(axes.oriented(masks[name]), axes.spacing_mm) for name in names)
    widest = next((cut for cut in cuts if cut), None)
    x, y, z = (ct.GetSize()[axis] // 2 for axis in axes.axes)
    index = widest.index if widest else (x, y, z)
    if at_mm is not None:
        index = axes.index_at(ct, at_mm)
    planes = cut_planes(ct, masks, index, axes)
    (left, right), (front, back) = body_edges_mm(planes["axial"])
    (_, coronal_height), (_, sagittal_height) = planes["coronal"].size_mm, planes["sagittal"].size_mm
    whole = FieldOfView(left, right, front, back)
    upper = [Panel(planes["axial"], LUNG, whole), Panel(planes["axial"], SOFT_TISSUE, whole)]
    lower = [
        Panel(planes["coronal"], LUNG, FieldOfView(left, right, 0.0, coronal_height)),
        Panel(planes["sagittal"], LUNG, FieldOfView(front, back, 0.0, sagittal_height)),
    ]
    if widest:
        # The width is 1.6 times that of the lesion, so that about a third of it is surroundings.
        near = 0.5 * max(SMALLEST_FIELD_MM, 1.6 * max(widest.extent_mm[:2]))
        at_x, at_y = planes["axial"].at_mm
        across = near / min(1.0, _height_to_width(upper), _height_to_width(lower))
        close = FieldOfView(at_x - across, at_x + across, at_y - near, at_y + near)
        upper.append(Panel(planes["axial"], LUNG, close))
        # The same field without outlines, which hide just the edge that one wants to judge them by.
        lower.append(Panel(planes["axial"], LUNG, close, outlines=False))
    return upper + lower


def _height_to_width(row: Sequence[Panel]) -> float:
    """Return the shape of a row's panels: the taller of the two that show the whole body, within limits."""
    return min(1.6, max(0.4, *(panel.field.height_to_width for panel in row[:2])))


def _figure(panels: Sequence[Panel], names: Sequence[str], title: str, tilt_degrees: float) -> "Figure":
    from matplotlib.figure import Figure

    columns = len(panels) // 2
    rows = (panels[:columns], panels[columns:])
    heights = [PANEL_INCHES * _height_to_width(row) for row in rows]
    head, foot, gap = 0.45, 0.3, 0.06
    width, height = columns * PANEL_INCHES + (columns + 1) * gap, sum(heights) + head + foot + gap
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="black")
    for number, panel in enumerate(panels):
        row, column = divmod(number, columns)
        left = gap + column * (PANEL_INCHES + gap)
        bottom = foot if row else foot + heights[1] + gap
        where = (left / width, bottom / height, PANEL_INCHES / width, heights[row] / height)
        draw_panel(figure.add_axes(where), panel, names, heights[row] / PANEL_INCHES)
    _head_and_foot(figure, names, title, tilt_degrees)
    return figure


def _head_and_foot(figure: "Figure", names: Sequence[str], title: str, tilt_degrees: float) -> None:
    width, height = figure.get_size_inches()
    top, left = 1 - 0.23 / height, 0.1 / width
    # Without math: a case id with two dollar signs would be set as a formula.
    plain: dict[str, Any] = {"va": "center", "parse_math": False}
    figure.text(left, top, _printable(title), color="white", fontsize=12, weight="bold", **plain)
    right = 1 - left
    for name in reversed(names):
        label = _printable(name)
        color = color_of(name, names)
        figure.text(right, top, label, color=color, fontsize=11, ha="right", weight="bold", **plain)
        # Inches of a letter at 11 points, and a gap; measuring the text would need a renderer.
        right -= (0.095 * len(label) + 0.25) / width
    tilt = f" The slices are tilted by {tilt_degrees:.0f} degrees." if tilt_degrees > 1 else ""
    note = f"Patient's right is on the left of axial and coronal planes. Positions in mm LPS.{tilt}"
    figure.text(left, 0.14 / height, note, color="#AAAAAA", fontsize=8, **plain)
    figure.text(
        1 - left, 0.14 / height, "not for clinical use", color="#AAAAAA", fontsize=8, ha="right", **plain
    )


def _printable(text: str, longest: int = 80) -> str:
    """Replace characters that the font of matplotlib lacks by question marks, and shorten the text.

    >>> _printable("R01-001 \\u80ba")
    'R01-001 ?'
    """
    printable = "".join(c if c.isprintable() and ord(c) < 0x250 else "?" for c in text)
    return printable if len(printable) <= longest else printable[: longest - 1] + "…"


def draw_mosaic(ct: sitk.Image, masks: Mapping[str, sitk.Image], title: str = "") -> bytes:
    """Draw a JPEG of axial, coronal and sagittal plane, and the lesion close up or else the soft tissue.

    Args:
        ct: HU.
        masks: `lungs` and `lesion` if there are such, on the grid of `ct`.
        title: In the first panel; a case id.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from PIL import Image

    panels = choose_panels(ct, masks, patient_axes(ct), _middle_of_lungs(ct, masks))
    # Without a lesion each row has two panels, else a third one close up.
    half = len(panels) // 2
    axial, coronal, sagittal = panels[0], panels[half], panels[half + 1]
    chosen = [axial, coronal, sagittal, panels[2] if half == 3 else panels[1]]
    shape = min(TALLEST, max(FLATTEST, *(panel.field.height_to_width for panel in chosen[:3])))
    figure = Figure(
        figsize=(len(chosen) * MOSAIC_PANEL_INCHES, shape * MOSAIC_PANEL_INCHES),
        dpi=MOSAIC_DPI,
        facecolor="black",
    )
    for number, panel in enumerate(chosen):
        where = (number / len(chosen) + 0.002, 0.0, 1 / len(chosen) - 0.004, 1.0)
        draw_panel(figure.add_axes(where), panel, list(masks), shape)
    plain: dict[str, Any] = {"fontsize": 9, "weight": "bold", "parse_math": False}
    figure.text(0.006, 0.03, title, color="white", bbox=BACKING, **plain)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    picture = Image.frombuffer("RGBA", canvas.get_width_height(), canvas.buffer_rgba()).convert("RGB")
    packed = io.BytesIO()
    # Without subsampling of colour: the outlines are thin coloured lines.
    picture.save(packed, format="JPEG", quality=QUALITY, subsampling=0, optimize=True)
    return packed.getvalue()


def data_address(content: bytes, kind: str = "jpeg") -> str:
    """Return a picture, a JPEG or of another kind, as a data address, which a page can hold."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _middle_of_lungs(ct: sitk.Image, masks: Mapping[str, sitk.Image]) -> Point | None:
    """Return where to cut a case without a lesion; None leaves it to the lesion or the middle of the CT."""
    axes = patient_axes(ct)
    if "lesion" in masks and axes.oriented(masks["lesion"]).any():
        return None
    cut = widest_cut(axes.oriented(masks["lungs"]), axes.spacing_mm) if "lungs" in masks else None
    return axes.point_at(ct, cut.index) if cut else None
