"""The pictures of an evaluation: Dice against size, volumes after Bland and Altman, the jitter curve."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from radiogen.evaluation.case import Row
from radiogen.evaluation.sentences import FLOOR_WORDS
from radiogen.evaluation.settings import EvaluateOptions
from radiogen.evaluation.summary import against_floors
from radiogen.measures.floors import FLOORS
from radiogen.provenance import whole_file

WIDTH_INCHES, HEIGHT_INCHES, DPI = 5.2, 4.2, 120
# Okabe and Ito's colours, which the colour-blind can tell apart; each with a mark or line of its own.
BLUE, VERMILION, GREEN, PURPLE, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#777777"
FLOOR_STYLES = dict(zip(FLOORS, ((GREY, ":"), (PURPLE, "-."), (GREEN, "--"), (VERMILION, "--")), strict=True))
LIMITS = 1.96  # standard deviations


def draw_sizes(lesions: Sequence[Row], options: EvaluateOptions, target: Path) -> Path | None:
    """Dice of every lesion of the reference against its diameter, beside its best floor; a panel a prompt."""

    def draw(axes: Axes, prompt: str, rows: list[Row]) -> None:
        _draw_lesions(axes, rows)
        for edge in options.size_bins_mm:
            axes.axvline(edge, color="#DDDDDD", linewidth=0.8, zorder=0)
        axes.set(title=f"Lesions, prompt {prompt}", xlabel="longest diameter, mm", ylabel="Dice")
        axes.set(xscale="log", ylim=(-0.03, 1.03))
        _plain_numbers(axes)
        axes.legend(fontsize=7, loc="lower right")

    return _draw_panels([row for row in lesions if row["lesion"] is not None], draw, target)


def _draw_lesions(axes: Axes, rows: Sequence[Row]) -> None:
    floor = against_floors(rows)["best_floor"]
    if floor:
        sizes, heights = [row["diameter_mm"] for row in rows], [row[floor] for row in rows]
        axes.vlines(sizes, heights, [row["dice"] for row in rows], color="#CCCCCC", linewidth=0.8, zorder=1)
        label = f"floor: {FLOOR_WORDS[floor]}"
        axes.scatter(sizes, heights, s=40, marker="_", color=GREY, label=label, zorder=2)
    for is_found, color, mark, label in ((True, BLUE, "o", "found"), (False, VERMILION, "x", "not found")):
        some = [row for row in rows if (row["outcome"] == "found") == is_found]
        if some:
            place = [row["diameter_mm"] for row in some], [row["dice"] for row in some]
            axes.scatter(*place, s=22, marker=mark, color=color, label=label, zorder=3)


def draw_volumes(rows: Sequence[Row], target: Path) -> Path | None:
    """Difference of the volumes of a scan in per cent of their mean, against that mean; a panel a prompt.

    After Bland and Altman (Lancet 1986): the mean difference, and 1.96 standard deviations to either side of
    it from three scans on.
    """

    def draw(axes: Axes, prompt: str, some: list[Row]) -> None:
        means = np.array([(row["predicted_ml"] + row["reference_ml"]) / 2 for row in some])
        percent = 100 * np.array([row["volume_error_ml"] for row in some]) / means
        axes.scatter(means, percent, s=22, color=BLUE)
        axes.axhline(0, color="#BBBBBB", linewidth=0.8)
        bias = float(percent.mean())
        axes.axhline(bias, color=VERMILION, linewidth=1, label=f"mean {bias:+.0f} %")
        if len(some) > 2:
            reach = LIMITS * float(percent.std(ddof=1))
            limits = f"limits of agreement {bias - reach:+.0f} to {bias + reach:+.0f} %"
            axes.axhline(bias - reach, color=GREEN, linestyle="--", linewidth=1, label=limits)
            axes.axhline(bias + reach, color=GREEN, linestyle="--", linewidth=1)
        axes.set(title=f"Volume, prompt {prompt}", xlabel="mean of both volumes, ml", xscale="log")
        axes.set_ylabel("predicted - reference, % of the mean")
        _plain_numbers(axes)
        axes.legend(fontsize=7)

    return _draw_panels([row for row in rows if row["dice"] is not None], draw, target)


def _draw_panels(
    rows: Sequence[Row], draw: Callable[[Axes, str, list[Row]], None], target: Path
) -> Path | None:
    """A picture with a panel a prompt; none where there is no row."""
    prompts = sorted({row["prompt"] for row in rows})
    if not prompts:
        return None
    figure = _figure(len(prompts))
    for place, prompt in enumerate(prompts, start=1):
        axes = figure.add_subplot(1, len(prompts), place)
        draw(axes, prompt, [row for row in rows if row["prompt"] == prompt])
    return _save(figure, target)


def draw_jitter(levels: Sequence[Row], target: Path) -> Path:
    """Mean Dice against the jitter of the box, the model with its interval and the four floors."""
    figure = _figure(1)
    axes = figure.add_subplot()
    shares = [100 * row["jitter"] for row in levels]
    for name in FLOORS:
        color, line = FLOOR_STYLES[name]
        heights = [row[f"{name}_mean"] for row in levels]
        if None not in heights:
            axes.plot(shares, heights, color=color, linestyle=line, marker=".", label=FLOOR_WORDS[name])
    means = [row["dice_mean"] for row in levels]
    axes.plot(shares, means, color=BLUE, marker="o", label="model")
    spans = [row for row in levels if row["dice_low"] is not None]
    if spans:
        ends = [row["dice_low"] for row in spans], [row["dice_high"] for row in spans]
        axes.vlines([100 * row["jitter"] for row in spans], *ends, color=BLUE, linewidth=1.2, label="95 %")
    axes.set(title="Dice when the box is not exact", ylim=(0, 1.03))
    axes.set(xlabel="each face shifted by up to, % of the box's size", ylabel="Dice, mean over cases")
    axes.legend(fontsize=7)
    return _save(figure, target)


def _plain_numbers(axes: Axes) -> None:
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())


def _figure(panels: int) -> Figure:
    return Figure(figsize=(WIDTH_INCHES * panels, HEIGHT_INCHES), dpi=DPI, layout="constrained")


def _save(figure: Figure, target: Path) -> Path:
    with whole_file(target) as draft:
        FigureCanvasAgg(figure).print_png(draft, metadata={"Software": "radiogen, not for clinical use"})
    return target
