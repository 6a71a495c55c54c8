"""Plots of numbers: an evaluation, a pruning benchmark, a training, the distributions of a run."""

import io
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from radiogen.measures.floors import FLOOR_WORDS, FLOORS, best_floor
from radiogen.provenance import whole_file

WIDTH_INCHES, HEIGHT_INCHES, DPI = 5.2, 4.2, 120
# Okabe and Ito's colours, which the colour-blind can tell apart; each with a mark or line of its own.
BLUE, VERMILION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
GREY, BLACK = "#777777", "#000000"
FLOOR_STYLES = {
    "floor_box": (GREY, ":"),
    "floor_ellipsoid": (PURPLE, "-."),
    "floor_threshold": (GREEN, "--"),
    "floor_threshold_ellipsoid": (VERMILION, "--"),
    "floor_mid_threshold_ellipsoid": (BLACK, "-."),
}
CRITERION_COLORS = (BLUE, VERMILION, GREEN, PURPLE, "#E69F00", "#56B4E9", BLACK)
MARKERS, LINES = "osD^vPX*<>hd8", ("-", "--", ":", "-.")
APART = 0.03  # of the distance between two sparsities, so that error bars do not hide each other
LIMITS_OF_AGREEMENT = 1.96  # standard deviations, 95 % of a normal distribution
METADATA = {"Software": "radiogen, not for clinical use"}  # in place of matplotlib's version: equal bytes
# Each status has a hatch of its own, so that print without colour tells them apart.
EGFR_STYLES = {"mutant": (VERMILION, "//"), "wildtype": (BLUE, ""), "unknown": ("#999999", "..")}
HISTOGRAM_INCHES, HISTOGRAM_DPI = (3.6, 2.7), 130
BINS, PROBABILITY_BINS = 12, 10
LESIONS_PER_CASE = "lesions a case"  # the title whose values are counted one by one

Row = dict[str, Any]  # of a table of `radiogen evaluate`, by column


def draw_sizes(lesions: Sequence[Row], size_bins_mm: Sequence[float], target: Path) -> Path | None:
    """Draw the Dice of every lesion of the reference against its diameter and floor; a panel a prompt.

    Args:
        lesions: Rows of the table of lesions.
        size_bins_mm: Edges between the size bins, drawn as lines.
        target: PNG file to write.

    Returns:
        None where there is no lesion.
    """

    def draw(axes: Axes, prompt: str, rows: list[Row]) -> None:
        _draw_lesions(axes, rows, best_floor(rows))
        for edge in size_bins_mm:
            axes.axvline(edge, color="#DDDDDD", linewidth=0.8, zorder=0)
        axes.set(title=f"Lesions, prompt {prompt}", xlabel="longest diameter, mm", ylabel="Dice")
        # Diameters and volumes spread over decades: on a linear axis the nodules lie in one heap.
        axes.set(xscale="log", ylim=(-0.03, 1.03))
        _plain_numbers(axes)
        axes.legend(fontsize=7, loc="lower right")

    return _draw_panels([row for row in lesions if row["lesion"] is not None], draw, target)


def _draw_lesions(axes: Axes, rows: Sequence[Row], floor: str | None) -> None:
    """Draw a mark for each lesion, and a line from its floor."""
    if floor:
        sizes, heights = [row["diameter_mm"] for row in rows], [row[floor] for row in rows]
        # A line from the floor to the model's Dice shows for each lesion what the network adds.
        axes.vlines(sizes, heights, [row["dice"] for row in rows], color="#CCCCCC", linewidth=0.8, zorder=1)
        label = f"floor: {FLOOR_WORDS[floor]}"
        axes.scatter(sizes, heights, s=40, marker="_", color=GREY, label=label, zorder=2)
    for is_found, color, mark, label in ((True, BLUE, "o", "found"), (False, VERMILION, "x", "not found")):
        some = [row for row in rows if (row["outcome"] == "found") == is_found]
        if some:
            sizes, heights = [row["diameter_mm"] for row in some], [row["dice"] for row in some]
            axes.scatter(sizes, heights, s=22, marker=mark, color=color, label=label, zorder=3)


def draw_volumes(rows: Sequence[Row], target: Path) -> Path | None:
    """Draw the difference of the volumes of a scan in per cent of their mean, against that mean.

    A panel a prompt, after Bland and Altman (Lancet 1986): the mean difference, and from three scans on 1.96
    standard deviations to either side of it.
    """

    def draw(axes: Axes, prompt: str, some: list[Row]) -> None:
        means = np.array([(row["predicted_ml"] + row["reference_ml"]) / 2 for row in some])
        # In per cent of the mean: the error in ml grows with the lesion, and one mass would set the limits.
        percent = 100 * np.array([row["volume_error_ml"] for row in some]) / means
        axes.scatter(means, percent, s=22, color=BLUE)
        axes.axhline(0, color="#BBBBBB", linewidth=0.8)
        bias = float(percent.mean())
        axes.axhline(bias, color=VERMILION, linewidth=1, label=f"mean {bias:+.0f} %")
        if len(some) > 2:
            reach = LIMITS_OF_AGREEMENT * float(percent.std(ddof=1))
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
    """Draw a panel a prompt; nothing where there is no row."""
    prompts = sorted({row["prompt"] for row in rows})
    if not prompts:
        return None
    figure = _figure(len(prompts))
    for place, prompt in enumerate(prompts, start=1):
        axes = figure.add_subplot(1, len(prompts), place)
        draw(axes, prompt, [row for row in rows if row["prompt"] == prompt])
    return save_plot(figure, target)


def draw_jitter(levels: Sequence[Row], target: Path) -> Path:
    """Draw the mean Dice against the jitter of the box: the model with its interval, and the floors."""
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
        # Only the levels that have an interval; one patient has none.
        axes.vlines([100 * row["jitter"] for row in spans], *ends, color=BLUE, linewidth=1.2, label="95 %")
    axes.set(title="Dice when the box is not exact", ylim=(0, 1.03))
    axes.set(xlabel="each face shifted by up to, % of the box's size", ylabel="Dice, mean over cases")
    axes.legend(fontsize=7)
    return save_plot(figure, target)


def plot_accuracy(rows: Sequence[Row], dense: str, path: Path) -> None:
    """Draw mean and standard deviation of the accuracy over seeds; left criteria, right controls.

    Args:
        rows: Of the table of a pruning benchmark.
        dense: Name of the network that is not pruned in that table.
        path: PNG file to write.
    """
    controls = [row for row in rows if row["control"]]
    controlled = {row["criterion"] for row in controls}
    criteria = [row for row in rows if not row["control"]]
    # Colours by the order of the criteria, so that controls keep the colour of theirs.
    order = list(dict.fromkeys(row["criterion"] for row in criteria if row["criterion"] != dense))
    panels = {"criteria": criteria}
    if controls:
        compared = [row for row in criteria if row["criterion"] in {*controlled, dense}]
        panels["controls: which weights, or how many a layer?"] = compared + controls
    figure = Figure(figsize=(6.0 * len(panels), 4.8), dpi=DPI, layout="constrained")
    first: Axes | None = None
    for number, (title, shown) in enumerate(panels.items(), start=1):
        # One scale of accuracy, or the panels could not be compared.
        axes = figure.add_subplot(1, len(panels), number, sharey=first)
        first = first or axes
        _draw_accuracy(axes, shown, order, dense)
        axes.set_title(title)
    save_plot(figure, path)


def _draw_accuracy(axes: Axes, rows: Sequence[Row], order: Sequence[str], dense: str) -> None:
    """Draw one panel; a criterion keeps its colour and marker in both, a control has a hollow one."""
    sparsities = sorted({row["sparsity"] for row in rows if row["criterion"] != dense})
    # Evenly spaced, not to scale: 0.9, 0.95, 0.98 and 0.99 would lie on top of each other.
    places = {sparsity: place for place, sparsity in enumerate(sparsities)}
    for row in rows:
        if row["criterion"] == dense:
            axes.axhline(row["accuracy_mean"], color="#555555", linewidth=1, label="dense")
    names = dict.fromkeys((row["criterion"], row["control"]) for row in rows if row["criterion"] != dense)
    controls = ["", *dict.fromkeys(control for _, control in names if control)]
    for number, (criterion, control) in enumerate(names):
        own = [row for row in rows if (row["criterion"], row["control"]) == (criterion, control)]
        own.sort(key=lambda row: places[row["sparsity"]])
        style = order.index(criterion)
        axes.errorbar(
            [places[row["sparsity"]] + APART * (number - len(names) / 2) for row in own],
            [row["accuracy_mean"] for row in own],
            yerr=[row["accuracy_sd"] or 0.0 for row in own],
            color=CRITERION_COLORS[style % len(CRITERION_COLORS)],
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


def draw_training_progress(
    loss: Sequence[tuple[int, float]], dice: Mapping[str, Sequence[tuple[int, float]]], target: Path
) -> None:
    """Draw the loss of each epoch and, if anything was validated, the mean Dice by prior.

    Args:
        loss: (epoch, loss), epochs counted from 0; drawn from 1.
        dice: By prior with its prompt: (epoch, mean Dice of the held-out cases).
        target: PNG file to write.
    """
    figure = Figure(figsize=(9.0 if dice else 5.0, 3.6), layout="constrained")
    axes = figure.subplots(1, 2 if dice else 1, squeeze=False)[0]
    axes[0].plot([epoch + 1 for epoch, _ in loss], [value for _, value in loss], marker=".")
    axes[0].set_ylabel("loss (1 - Dice + cross-entropy)")
    for name, points in dice.items():
        epochs = [epoch + 1 for epoch, _ in points]
        axes[-1].plot(epochs, [value for _, value in points], marker=".", label=name)
    if dice:
        axes[-1].set_ylabel("mean Dice of the held-out cases")
        axes[-1].set_ylim(0, 1)
        axes[-1].legend(loc="best", frameon=False)
    for each in axes:
        each.set_xlabel("epoch")
        each.xaxis.set_major_locator(MaxNLocator(integer=True))
        each.grid(alpha=0.3)
    with whole_file(target) as draft:
        FigureCanvasAgg(figure)
        # The version of matplotlib would change the bytes of the file.
        figure.savefig(draft, dpi=110, metadata={"Software": None})


def draw_distributions(
    numbers: Mapping[str, Sequence[float]], probabilities: Mapping[str, Sequence[float]], marker: str
) -> bytes:
    """Draw a histogram of each list of numbers, and one of probabilities stacked by status.

    Args:
        numbers: By title with unit.
        probabilities: By status, a key of `EGFR_STYLES`; empty for no such panel.
        marker: What is predicted.

    Returns:
        A PNG.
    """
    panels = len(numbers) + bool(probabilities)
    columns = min(3, panels)
    rows = math.ceil(panels / columns)
    width, height = columns * HISTOGRAM_INCHES[0], rows * HISTOGRAM_INCHES[1]
    figure = Figure((width, height), dpi=HISTOGRAM_DPI, layout="constrained")
    places = iter(figure.subplots(rows, columns, squeeze=False).ravel())
    for title, values in numbers.items():
        _draw_histogram(next(places), title, values)
    if probabilities:
        _draw_stacked(next(places), probabilities, marker)
    for unused in places:
        unused.set_axis_off()
    png = io.BytesIO()
    FigureCanvasAgg(figure).print_png(png, metadata=METADATA)
    return png.getvalue()


def _draw_histogram(axes: Axes, title: str, values: Sequence[float]) -> None:
    low, high = min(values), max(values)
    are_counts = title == LESIONS_PER_CASE
    edges: Sequence[float] | int = BINS
    # Values over more than a decade and a half, such as volumes, get a logarithmic axis.
    if low > 0 and high / low > 30:
        edges = [low * (high / low) ** (number / BINS) for number in range(BINS + 1)]
        # Rounding must not leave the largest out.
        edges[-1] = high * (1 + 1e-9)
        axes.set_xscale("log")
    elif are_counts:
        # Counts lie in the middle of their bars.
        edges = [number - 0.5 for number in range(int(high) + 2)]
    axes.hist(values, bins=edges, color=BLUE, edgecolor="white")
    if are_counts:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _finish_histogram(axes, f"{title} (n = {len(values)})", "count")


def _draw_stacked(axes: Axes, by_status: Mapping[str, Sequence[float]], marker: str) -> None:
    lefts = [part / PROBABILITY_BINS for part in range(PROBABILITY_BINS)]
    below = [0] * PROBABILITY_BINS
    for name, (color, hatch) in EGFR_STYLES.items():
        if name not in by_status:
            continue
        counts = [0] * PROBABILITY_BINS
        for value in by_status[name]:
            # A probability of 1 belongs to the last bar.
            counts[min(PROBABILITY_BINS - 1, int(value * PROBABILITY_BINS))] += 1
        style = {"color": color, "hatch": hatch, "edgecolor": "white", "label": f"{name} ({sum(counts)})"}
        axes.bar(lefts, counts, 1 / PROBABILITY_BINS, bottom=below, align="edge", **style)
        below = [low + count for low, count in zip(below, counts, strict=True)]
    axes.set_xlim(0, 1)
    axes.legend(fontsize=7)
    _finish_histogram(axes, f"{marker} probability by known status", "patients")


def _finish_histogram(axes: Axes, title: str, y_label: str) -> None:
    axes.set_title(title, fontsize=9)
    axes.set_ylabel(y_label, fontsize=8)
    axes.tick_params(labelsize=8)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))


def _plain_numbers(axes: Axes) -> None:
    """Label a logarithmic axis 1, 2, 5, 10, 20 instead of powers of ten."""
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())


def _figure(panels: int) -> Figure:
    return Figure(figsize=(WIDTH_INCHES * panels, HEIGHT_INCHES), dpi=DPI, layout="constrained")


def save_plot(figure: Figure, target: Path) -> Path:
    """Write a figure as a PNG; the same figure gives the same bytes."""
    with whole_file(target) as draft:
        FigureCanvasAgg(figure).print_png(draft, metadata=METADATA)
    return target
