"""The pictures of an evaluation: Dice against size, volumes after Bland and Altman, the jitter curve."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from radiogen.measures.floors import FLOOR_WORDS, FLOORS
from radiogen.provenance import whole_file

WIDTH_INCHES, HEIGHT_INCHES, DPI = 5.2, 4.2, 120
# Okabe and Ito's colours, which the colour-blind can tell apart; each with a mark or line of its own.
BLUE, VERMILION, GREEN, PURPLE, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#777777"
FLOOR_STYLES = dict(zip(FLOORS, ((GREY, ":"), (PURPLE, "-."), (GREEN, "--"), (VERMILION, "--")), strict=True))
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS, LINES = "osD^vPX*<>hd8", ("-", "--", ":", "-.")
APART = 0.03  # of the distance between two sparsities, so that error bars do not hide each other
LIMITS = 1.96  # standard deviations

Row = dict[str, Any]  # of a table of `radiogen evaluate`, by column


def draw_sizes(
    lesions: Sequence[Row],
    size_bins_mm: Sequence[float],
    best_floor: Callable[[Sequence[Row]], str | None],
    target: Path,
) -> Path | None:
    """Draw the Dice of every lesion of the reference against its diameter; a panel a prompt.

    Args:
        lesions: Rows of the table of lesions.
        size_bins_mm: Edges between the size bins, drawn as lines.
        best_floor: Name of the column with the best floor of some rows, None where there is none.
        target: PNG file to write.
    """

    def draw(axes: Axes, prompt: str, rows: list[Row]) -> None:
        _draw_lesions(axes, rows, best_floor(rows))
        for edge in size_bins_mm:
            axes.axvline(edge, color="#DDDDDD", linewidth=0.8, zorder=0)
        axes.set(title=f"Lesions, prompt {prompt}", xlabel="longest diameter, mm", ylabel="Dice")
        axes.set(xscale="log", ylim=(-0.03, 1.03))
        _plain_numbers(axes)
        axes.legend(fontsize=7, loc="lower right")

    return _draw_panels([row for row in lesions if row["lesion"] is not None], draw, target)


def _draw_lesions(axes: Axes, rows: Sequence[Row], floor: str | None) -> None:
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


def plot_accuracy(rows: Sequence[Row], dense: str, path: Path) -> None:
    """Draw mean and standard deviation of the accuracy over seeds; left criteria, right controls.

    Args:
        rows: Of the table of a pruning benchmark.
        dense: What that table calls the network that is not pruned.
        path: PNG file to write.
    """
    controls = [row for row in rows if row["control"]]
    held = {row["criterion"] for row in controls}
    criteria = [row for row in rows if not row["control"]]
    order = list(dict.fromkeys(row["criterion"] for row in criteria if row["criterion"] != dense))
    panels = {"criteria": criteria}
    if controls:
        mine = [row for row in criteria if row["criterion"] in {*held, dense}]
        panels["controls: which weights, or how many a layer?"] = mine + controls
    figure = Figure(figsize=(6.0 * len(panels), 4.8), dpi=DPI, layout="constrained")
    first: Axes | None = None
    for number, (title, shown) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(1, len(panels), number, sharey=first)
        first = first or axes
        _draw_accuracy(axes, shown, order, dense)
        axes.set_title(title)
    _save(figure, path)


def _draw_accuracy(axes: Axes, rows: Sequence[Row], order: Sequence[str], dense: str) -> None:
    """A criterion keeps its colour and marker in both panels; a control has a hollow one and another line."""
    sparsities = sorted({row["sparsity"] for row in rows if row["criterion"] != dense})
    places = {sparsity: place for place, sparsity in enumerate(sparsities)}
    for row in rows:
        if row["criterion"] == dense:
            axes.axhline(row["accuracy_mean"], color="#555555", linewidth=1, label="dense")
    names = dict.fromkeys((r["criterion"], r["control"]) for r in rows if r["criterion"] != dense)
    controls = ["", *dict.fromkeys(control for _, control in names if control)]
    for number, (criterion, control) in enumerate(names):
        own = [row for row in rows if (row["criterion"], row["control"]) == (criterion, control)]
        own.sort(key=lambda row: places[row["sparsity"]])
        style = order.index(criterion)
        axes.errorbar(
            [places[row["sparsity"]] + APART * (number - len(names) / 2) for row in own],
            [row["accuracy_mean"] for row in own],
            yerr=[row["accuracy_sd"] or 0.0 for row in own],
            color=COLOURS[style % len(COLOURS)],
            marker=MARKERS[style % len(MARKERS)],
            markerfacecolor="white" if control else None,
            linestyle=LINES[(controls.index(control) if len(controls) > 1 else style) % len(LINES)],
            capsize=3,
            label=f"{criterion}, {control}" if control else criterion,
        )
    axes.set_xticks(range(len(sparsities)), [f"{sparsity:g}" for sparsity in sparsities])
    axes.set_xlabel("sparsity (share of the weights removed)")
    axes.set_ylabel("test accuracy in %, mean and deviation over seeds")
    axes.legend()


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
