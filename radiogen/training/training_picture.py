"""progress.png: loss and validation Dice over the epochs of a training."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from radiogen.provenance import whole_file

PICTURE = "progress.png"


def draw_progress(epochs: Sequence[dict[str, Any]], validation: Sequence[dict[str, Any]], out: Path) -> None:
    """Draw the loss of each epoch and, if anything was validated, the mean Dice by prior.

    Args:
        epochs: Rows with `epoch` and `loss`.
        validation: Rows with `epoch`, `prior`, `prompt` and `dice`, one a case.
        out: PNG to write, whole.
    """
    curves = dice_of_epochs(validation)
    figure = Figure(figsize=(9.0 if curves else 5.0, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 2 if curves else 1, squeeze=False)[0]
    axes[0].plot([row["epoch"] + 1 for row in epochs], [row["loss"] for row in epochs], marker=".")
    axes[0].set_ylabel("loss (1 - Dice + cross-entropy)")
    for name, points in curves.items():
        axes[-1].plot(
            [epoch + 1 for epoch, _ in points], [dice for _, dice in points], marker=".", label=name
        )
    if curves:
        axes[-1].set_ylabel("mean Dice of the held-out cases")
        axes[-1].set_ylim(0, 1)
        axes[-1].legend(loc="best", frameon=False)
    for each in axes:
        each.set_xlabel("epoch")
        each.xaxis.set_major_locator(MaxNLocator(integer=True))
        each.grid(alpha=0.3)
    with whole_file(out) as draft:
        figure.savefig(draft, dpi=110, metadata={"Software": None})


def dice_of_epochs(validation: Sequence[dict[str, Any]]) -> dict[str, list[tuple[int, float]]]:
    """Mean Dice of the cases of each validation, by prior with its prompt: (epoch, Dice).

    >>> row = {"epoch": 4, "prior": "box", "prompt": "oracle"}
    >>> dice_of_epochs([{**row, "dice": 0.5}, {**row, "dice": 0.75}])
    {'box (oracle)': [(4, 0.625)]}
    """
    found: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in validation:
        found[f"{row['prior']} ({row['prompt']})"][row["epoch"]].append(row["dice"])
    return {
        name: [(epoch, mean(dice)) for epoch, dice in sorted(rows.items())] for name, rows in found.items()
    }
