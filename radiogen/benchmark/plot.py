"""The picture of the classifier benchmark: accuracy over sparsity, criteria beside controls."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from radiogen.benchmark.plans import DENSE
from radiogen.benchmark.table import Row
from radiogen.provenance import whole_file

DPI = 120
# Okabe and Ito's colours, which the colour-blind can tell apart; each with a marker and line of its own.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS, LINES = "osD^vPX*<>hd8", ("-", "--", ":", "-.")
APART = 0.03  # of the distance between two sparsities, so that error bars do not hide each other


def plot_accuracy(rows: Sequence[Row], path: Path) -> None:
    """Draw mean and standard deviation over seeds; left criteria, right controls."""
    controls = [row for row in rows if row["control"]]
    held = {row["criterion"] for row in controls}
    criteria = [row for row in rows if not row["control"]]
    order = list(dict.fromkeys(row["criterion"] for row in criteria if row["criterion"] != DENSE))
    panels = {"criteria": criteria}
    if controls:
        mine = [row for row in criteria if row["criterion"] in {*held, DENSE}]
        panels["controls: which weights, or how many a layer?"] = mine + controls
    figure = Figure(figsize=(6.0 * len(panels), 4.8), dpi=DPI, layout="constrained")
    first: Axes | None = None
    for number, (title, shown) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(1, len(panels), number, sharey=first)
        first = first or axes
        _draw(axes, shown, order)
        axes.set_title(title)
    with whole_file(path) as draft:
        FigureCanvasAgg(figure).print_png(draft, metadata={"Software": "radiogen"})


def _draw(axes: Axes, rows: Sequence[Row], order: Sequence[str]) -> None:
    """A criterion keeps its colour and marker in both panels; a control has a hollow one and another line."""
    sparsities = sorted({row["sparsity"] for row in rows if row["criterion"] != DENSE})
    places = {sparsity: place for place, sparsity in enumerate(sparsities)}
    for row in rows:
        if row["criterion"] == DENSE:
            axes.axhline(row["accuracy_mean"], color="#555555", linewidth=1, label="dense")
    names = dict.fromkeys((r["criterion"], r["control"]) for r in rows if r["criterion"] != DENSE)
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
