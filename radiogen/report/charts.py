"""Charts of the page: curves and bars as coordinates, which the template draws as SVG, and histograms."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

from radiogen.drawing.pictures import data_address
from radiogen.report.figures import number_of
from radiogen.report.qc import ExaminedCase
from radiogen.report.reading import Row, Run

WIDTH, HEIGHT = 560.0, 240.0
LEFT, RIGHT, TOP, BOTTOM = 56.0, 12.0, 12.0, 36.0
STEPS = (1.0, 2.0, 5.0, 10.0)
FEWEST_VALUES = 3  # below which a histogram shows nothing


@dataclass(frozen=True)
class Tick:
    """A mark on an axis: its place in the picture, and its text."""

    at: float
    text: str


@dataclass(frozen=True)
class Curve:
    """One curve: its name and its points in picture coordinates, as SVG takes them."""

    name: str
    points: str


@dataclass(frozen=True)
class Chart:
    """A picture of curves."""

    x_title: str
    y_title: str
    lines: tuple[Curve, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    width: float = WIDTH
    height: float = HEIGHT


@dataclass(frozen=True)
class LayerBar:
    """The kept share of one layer."""

    name: str
    share: float
    kept: str
    weights: str
    dead: int  # channels that nothing enters or leaves


def draw_curves(
    curves: Mapping[str, Sequence[tuple[float, float]]], x_title: str, y_title: str
) -> Chart | None:
    """Draw a chart of named curves of (x, y) points; None without a finite point."""
    kept = {name: [p for p in points if math.isfinite(p[1])] for name, points in curves.items()}
    kept = {name: points for name, points in kept.items() if points}
    if not kept:
        return None
    xs = [x for points in kept.values() for x, _ in points]
    ys = [y for points in kept.values() for _, y in points]
    # Axes from 0 upwards where nothing is negative: a loss that falls by a tenth should look like that.
    x_marks, y_marks = _round_marks(min(xs), max(xs)), _round_marks(min(0.0, *ys), max(ys))
    # A single epoch would make the axis 0 wide.
    x_low, x_high = min(xs), max(max(xs), min(xs) + 1e-9)
    y_low, y_high = y_marks[0], y_marks[-1]

    def x_at(x: float) -> float:
        return round(LEFT + (x - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT), 1)

    def y_at(y: float) -> float:
        return round(HEIGHT - BOTTOM - (y - y_low) / (y_high - y_low) * (HEIGHT - TOP - BOTTOM), 1)

    lines = tuple(
        Curve(name, " ".join(f"{x_at(x)},{y_at(y)}" for x, y in sorted(points)))
        for name, points in kept.items()
    )
    x_ticks = tuple(Tick(x_at(x), f"{x:g}") for x in x_marks if x_low <= x <= x_high and x == int(x))
    return Chart(x_title, y_title, lines, x_ticks, tuple(Tick(y_at(y), f"{y:g}") for y in y_marks))


def _round_marks(low: float, high: float) -> list[float]:
    """Return about five round numbers from below the lowest to above the highest."""
    span = (high - low) or max(abs(high), 1.0)
    power: float = 10.0 ** math.floor(math.log10(span / 4))
    # Steps of 1, 2 or 5 times a power of ten, the first that gives five or fewer intervals.
    step = next((each * power for each in STEPS if each * power >= span / 5), 10 * power)
    first, last = math.floor(low / step), math.ceil((low + span) / step)
    return [round(number * step, 10) for number in range(first, last + 1)]


def loss_chart(epochs: Sequence[Mapping[str, Any]]) -> Chart | None:
    """Draw the loss of a training by epoch."""
    points = [(float(row["epoch"]), float(row["loss"])) for row in epochs if _has(row, "epoch", "loss")]
    return draw_curves({"loss": points}, "epoch", "loss")


def dice_chart(validation: Sequence[Mapping[str, Any]]) -> Chart | None:
    """Draw the mean Dice of held-out cases by epoch, one curve a prior and prompt."""
    groups: dict[str, dict[float, list[float]]] = {}
    for row in validation:
        if _has(row, "epoch", "dice"):
            parts = [str(row[key]) for key in ("prior", "prompt") if row.get(key)]
            by_epoch = groups.setdefault(" / ".join(parts) or "held-out cases", {})
            by_epoch.setdefault(float(row["epoch"]), []).append(float(row["dice"]))
    curves = {
        name: [(epoch, mean(dice)) for epoch, dice in by_epoch.items()] for name, by_epoch in groups.items()
    }
    return draw_curves(curves, "epoch", "mean Dice")


def layer_bars(layers: Sequence[Row]) -> list[LayerBar]:
    """Return the kept share of each layer, in the order of the table."""
    bars = []
    for row in layers:
        share = number_of(row.get("share"))
        kept, weights = number_of(row.get("kept")), number_of(row.get("weights"))
        # Tables of older versions have no column `share`.
        if share is None and kept is not None and weights:
            share = kept / weights
        if share is not None:
            dead = sum(int(number_of(row.get(name)) or 0) for name in ("dead_in", "dead_out"))
            bars.append(
                LayerBar(row.get("name", ""), share, row.get("kept", ""), row.get("weights", ""), dead)
            )
    return bars


def _has(row: Mapping[str, Any], *names: str) -> bool:
    return all(number_of(row.get(name)) is not None for name in names)


def draw_distributions(run: Run, examined: Sequence[ExaminedCase]) -> str:
    """Draw histograms of all values that three cases or more have, as a data address; empty without any."""
    numbers = _numbers(run, examined)
    by_status = _probabilities(run)
    if not numbers and not by_status:
        return ""
    # This imports matplotlib: not for pages without a histogram.
    from radiogen.drawing import plots

    png = plots.draw_distributions(numbers, by_status, run.marker)
    return data_address(png, "png")


def _numbers(run: Run, examined: Sequence[ExaminedCase]) -> dict[str, list[float]]:
    """Return the values of each histogram, by title with unit."""
    facts = [one.facts for one in examined if one.facts]
    lesions = [lesion for case in run.segmented for lesion in case.lesions]
    values_of: dict[str, list[float | None]] = {
        "lesion volume, mL": [number_of(row.get("volume_ml")) for row in lesions],
        "longest diameter, mm": [number_of(row.get("longest_diameter_mm")) for row in lesions],
        "lesions a case": [float(len(case.lesions)) for case in run.segmented],
    }
    # Without a segmentation the lesions are those of the outlines.
    if not run.segmented:
        known = [lesion for each in facts for lesion in each.lesions]
        values_of = {
            "lesion volume, mL": [lesion.volume_ml for lesion in known],
            "longest diameter, mm": [lesion.diameter_mm for lesion in known],
        }
    values_of["lesion median, HU"] = [lesion.median_hu for each in facts for lesion in each.lesions]
    values_of["distance of slices, mm"] = [each.spacing_mm[2] for each in facts]
    lungs = [each.lungs for each in facts if each.lungs]
    values_of["lungs together, mL"] = [each.right_ml + each.left_ml for each in lungs]
    finite = {title: [value for value in values if value is not None] for title, values in values_of.items()}
    return {title: values for title, values in finite.items() if len(values) >= FEWEST_VALUES}


def _probabilities(run: Run) -> dict[str, list[float]]:
    """Return the probabilities by known status; a manifest knows that of EGFR alone."""
    manifest = run.manifest if run.marker == "EGFR" else ()
    status = {row.get("patient_id", ""): row.get("egfr", "") for row in manifest}
    by_status: dict[str, list[float]] = {}
    for row in run.predictions:
        value = number_of(row.get("probability"))
        if value is not None:
            by_status.setdefault(status.get(row.get("patient_id", "")) or "unknown", []).append(value)
    return by_status if sum(map(len, by_status.values())) >= FEWEST_VALUES else {}
