"""Draw how the numbers of a cohort are spread: sizes, slices, lungs, probabilities."""

import base64
import io
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from radiogen.report.examined import Examined
from radiogen.report.figures import figure
from radiogen.report.reading import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.ticker import MaxNLocator

FEWEST = 3  # cases below which there is nothing to spread
# Okabe and Ito's colours; each has a hatch of its own, so that print without colour tells them apart
EGFR_STYLES = {"mutant": ("#D55E00", "//"), "wildtype": ("#0072B2", ""), "unknown": ("#999999", "..")}
BAR, BINS = "#0072B2", 12
PARTS = 10  # of the probabilities
PANEL_INCHES, DPI = (3.6, 2.7), 130


def draw_distributions(run: Run, examined: Sequence[Examined]) -> str:
    """A PNG as a data address, a panel for every number that at least three have; empty without any."""
    spread = {title: values for title, values in _numbers(run, examined).items() if len(values) >= FEWEST}
    by_status = _probabilities(run)
    panels = len(spread) + bool(by_status)
    if not panels:
        return ""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(3, panels)
    rows = math.ceil(panels / columns)
    drawn = Figure((columns * PANEL_INCHES[0], rows * PANEL_INCHES[1]), dpi=DPI, layout="constrained")
    places = iter(drawn.subplots(rows, columns, squeeze=False).ravel())
    for title, values in spread.items():
        _histogram(next(places), title, values)
    if by_status:
        _by_status(next(places), by_status)
    for left in places:
        left.set_axis_off()
    packed = io.BytesIO()
    FigureCanvasAgg(drawn).print_png(packed, metadata={"Software": "radiogen, not for clinical use"})
    return f"data:image/png;base64,{base64.b64encode(packed.getvalue()).decode('ascii')}"


def _numbers(run: Run, examined: Sequence[Examined]) -> dict[str, list[float]]:
    """By title with unit: the finite values."""
    facts = [one.facts for one in examined if one.facts]
    lesions = [lesion for case in run.segmented for lesion in case.lesions]
    found: dict[str, list[float | None]] = {
        "lesion volume, mL": [figure(row.get("volume_ml")) for row in lesions],
        "longest diameter, mm": [figure(row.get("longest_diameter_mm")) for row in lesions],
        "lesions a case": [float(len(case.lesions)) for case in run.segmented],
    }
    if not run.segmented:
        known = [lesion for each in facts for lesion in each.lesions]
        found = {
            "lesion volume, mL": [lesion.volume_ml for lesion in known],
            "longest diameter, mm": [lesion.diameter_mm for lesion in known],
        }
    found["lesion median, HU"] = [lesion.median_hu for each in facts for lesion in each.lesions]
    found["distance of slices, mm"] = [each.spacing_mm[2] for each in facts]
    found["lungs together, mL"] = [each.lungs.right_ml + each.lungs.left_ml for each in facts if each.lungs]
    return {title: [value for value in values if value is not None] for title, values in found.items()}


def _histogram(axes: "Axes", title: str, values: Sequence[float]) -> None:
    low, high = min(values), max(values)
    if low > 0 and high / low > 30:  # volumes spread over decades
        edges = [low * (high / low) ** (number / BINS) for number in range(BINS + 1)]
        edges[-1] = high * (1 + 1e-9)
        axes.hist(values, bins=edges, color=BAR, edgecolor="white")
        axes.set_xscale("log")
    elif title.startswith("lesions a case"):
        axes.hist(
            values, bins=[number - 0.5 for number in range(int(high) + 2)], color=BAR, edgecolor="white"
        )
    else:
        axes.hist(values, bins=BINS, color=BAR, edgecolor="white")
    if title.startswith("lesions a case"):
        axes.xaxis.set_major_locator(_whole_numbers())
    _finish(axes, f"{title} (n = {len(values)})", "count")


def _probabilities(run: Run) -> dict[str, list[float]]:
    """EGFR probabilities by known status."""
    status = {row.get("patient_id", ""): row.get("egfr", "") for row in run.manifest}
    found: dict[str, list[float]] = {}
    for row in run.predictions:
        value = figure(row.get("probability"))
        if value is not None:
            found.setdefault(status.get(row.get("patient_id", "")) or "unknown", []).append(value)
    return found if sum(map(len, found.values())) >= FEWEST else {}


def _by_status(axes: "Axes", by_status: Mapping[str, Sequence[float]]) -> None:
    names = [name for name in EGFR_STYLES if name in by_status]
    below = [0] * PARTS
    for name in names:
        color, hatch = EGFR_STYLES[name]
        counts = [0] * PARTS
        for value in by_status[name]:
            counts[min(PARTS - 1, int(value * PARTS))] += 1
        left = [part / PARTS for part in range(PARTS)]
        style = {"color": color, "hatch": hatch, "edgecolor": "white", "label": f"{name} ({sum(counts)})"}
        axes.bar(left, counts, 1 / PARTS, bottom=below, align="edge", **style)
        below = [low + count for low, count in zip(below, counts, strict=True)]
    axes.set_xlim(0, 1)
    axes.legend(fontsize=7)
    _finish(axes, "EGFR probability by known status", "patients")


def _finish(axes: "Axes", title: str, counted: str) -> None:
    axes.set_title(title, fontsize=9)
    axes.set_ylabel(counted, fontsize=8)
    axes.tick_params(labelsize=8)
    axes.yaxis.set_major_locator(_whole_numbers())


def _whole_numbers() -> "MaxNLocator":
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(integer=True)
