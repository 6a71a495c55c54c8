"""Draw one plane of a CT with its outlines, its position and window, and a scale bar."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from radiogen.drawing.planes import Plane

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's colours, which the colour-blind can tell apart; masks of other names take the further ones.
COLORS = {"lesion": "#E69F00", "reference": "#56B4E9", "lungs": "#009E73"}
FURTHER_COLORS = ("#CC79A7", "#F0E442", "#D55E00", "#0072B2")
# Lines differ as well, so that print without colour tells lesion, reference and lungs apart.
STYLES: dict[str, Any] = {"reference": (0, (4, 2)), "lungs": (0, (1, 1.5))}
LETTERING: dict[str, Any] = {"color": "#EEEEEE", "fontsize": 8}
BACKING: dict[str, Any] = {"facecolor": "black", "alpha": 0.6, "pad": 1.5, "linewidth": 0}


@dataclass(frozen=True)
class DisplayWindow:
    """The range of HU that is shown from black to white."""

    low_hu: float
    high_hu: float

    @property
    def label(self) -> str:
        """Width and level, as DICOM viewers name them.

        >>> DisplayWindow(-1350, 150).label
        'W 1500 L -600'
        """
        return f"W {self.high_hu - self.low_hu:.0f} L {(self.high_hu + self.low_hu) / 2:.0f}"


# The two windows in which a radiologist reads a chest CT.
LUNG = DisplayWindow(-1350.0, 150.0)
SOFT_TISSUE = DisplayWindow(-160.0, 240.0)


@dataclass(frozen=True)
class FieldOfView:
    """The part of a plane that a panel shows, in mm from the upper left corner of the plane."""

    left_mm: float
    right_mm: float
    top_mm: float
    bottom_mm: float

    @property
    def height_to_width(self) -> float:
        return (self.bottom_mm - self.top_mm) / (self.right_mm - self.left_mm)

    def widened_to(self, height_to_width: float) -> "FieldOfView":
        """Grow the field along one side round the same middle, to fill a panel of another shape."""
        width, height = self.right_mm - self.left_mm, self.bottom_mm - self.top_mm
        more_x = max(0.0, height / height_to_width - width) / 2
        more_y = max(0.0, width * height_to_width - height) / 2
        return FieldOfView(
            self.left_mm - more_x, self.right_mm + more_x, self.top_mm - more_y, self.bottom_mm + more_y
        )


@dataclass(frozen=True)
class Panel:
    """One plane on the page: the window of its grey levels, which part of it, and whether with outlines."""

    plane: Plane
    window: DisplayWindow
    field: FieldOfView
    outlines: bool = True


def draw_panel(axes: "Axes", panel: Panel, names: Sequence[str], height_to_width: float) -> None:
    """Draw a panel into axes of a shape: the slice, its outlines, a caption and a scale bar."""
    plane, window = panel.plane, panel.window
    width, height = plane.size_mm
    axes.imshow(
        plane.hu,
        cmap="gray",
        vmin=window.low_hu,
        vmax=window.high_hu,
        # In mm, not voxels: thick slices keep their true proportions.
        extent=(0, width, height, 0),
        interpolation="bilinear",
    )
    axes.set_axis_off()
    if panel.outlines:
        for name in names:
            _outline(axes, plane, name, names)
    field = panel.field.widened_to(height_to_width)
    axes.set_aspect("equal")
    axes.set_xlim(field.left_mm, field.right_mm)
    axes.set_ylim(field.bottom_mm, field.top_mm)
    # Short ticks at the edges, where the other two planes cut.
    for at, along in zip(plane.at_mm, (axes.axvline, axes.axhline), strict=True):
        for start, end in ((0.0, 0.03), (0.97, 1.0)):
            along(at, start, end, color="#F0E442", linewidth=1.0)
    _annotate(axes, panel)
    _scale_bar(axes, field)


def color_of(name: str, names: Sequence[str]) -> str:
    """Return the colour a mask is drawn in, among masks of these names."""
    further = [other for other in names if other not in COLORS]
    return COLORS.get(name) or FURTHER_COLORS[further.index(name) % len(FURTHER_COLORS)]


def _outline(axes: "Axes", plane: Plane, name: str, names: Sequence[str]) -> None:
    """Draw the line halfway between the voxels of a label and their neighbours, label by label."""
    # Padded, so that an outline at the edge of the volume is closed.
    labels = np.pad(plane.masks[name], 1)
    rows = (np.arange(labels.shape[0]) - 0.5) * plane.row_mm
    columns = (np.arange(labels.shape[1]) - 0.5) * plane.column_mm
    # One contour a label: a contour of all would draw no line between lesions that touch.
    for label in np.unique(labels[labels != 0]):
        axes.contour(
            columns,
            rows,
            (labels == label).astype(np.float32),
            levels=[0.5],
            colors=[color_of(name, names)],
            linewidths=0.9 if name == "lungs" else 1.5,
            linestyles=[STYLES.get(name, "solid")],
        )


def _annotate(axes: "Axes", panel: Panel) -> None:
    """Write the plane, its position and window, and the letters of the sides, without which it is misread."""
    text = f"{panel.plane.name} · {panel.plane.position} · {panel.window.label}"
    if not panel.outlines:
        text += " · without outlines"
    left, right, _, down = panel.plane.letters
    texts = (
        (0.015, 0.985, text, "left", "top"),
        (0.015, 0.5, left, "left", "center"),
        (0.985, 0.5, right, "right", "center"),
        (0.5, 0.015, down, "center", "bottom"),
    )
    for x, y, words, ha, va in texts:
        axes.text(x, y, words, transform=axes.transAxes, ha=ha, va=va, bbox=BACKING, **LETTERING)


def _scale_bar(axes: "Axes", field: FieldOfView) -> None:
    """Draw a bar of a round length in the lower right corner."""
    width, height = field.right_mm - field.left_mm, field.bottom_mm - field.top_mm
    # At most a third of the width, so that the bar leaves the anatomy visible.
    length_mm = next((length for length in (100, 50, 20, 10, 5) if length < width / 3), 1)
    end, at = field.right_mm - 0.03 * width, field.bottom_mm - 0.03 * height
    # White on black: the bar shows on lung and on bone.
    for color, line in (("black", 4.0), ("#EEEEEE", 2.0)):
        axes.plot([end - length_mm, end], [at, at], color=color, linewidth=line, solid_capstyle="butt")
    middle, above = end - length_mm / 2, at - 0.012 * height
    axes.text(middle, above, f"{length_mm} mm", ha="center", va="bottom", bbox=BACKING, **LETTERING)
