"""Pictures of a validation: ROC, precision and recall, calibration, decision curve, confusion."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_curve, roc_curve

from radiogen.provenance import whole_file

Floats = NDArray[np.float64]
SIZE_INCHES, DPI = (5.0, 4.5), 120
# Okabe and Ito's colours, which the colour-blind can tell apart; each with a line style of its own.
STYLES = (("#0072B2", "-"), ("#D55E00", "--"), ("#009E73", "-."), ("#555555", ":"))
BINS = 5
TEXTS = {"patient_id": str, "status": str, "candidate": str, "called": str}


def plot_validation(folder: Path) -> list[Path]:
    """Draw the pictures of a model folder from its oof.csv and validation.json.

    Curves are of the probabilities averaged over the repeats, one line a candidate: the model, clinical,
    clinical + features, volume, as far as they are there.

    Returns:
        roc.png, precision_recall.png, calibration.png, decision_curve.png, confusion.png.
    """
    validation = json.loads((folder / "validation.json").read_text(encoding="utf-8"))
    table = pd.read_csv(folder / "oof.csv", dtype=TEXTS, keep_default_na=False)
    shown = [validation["model"], "clinical+features", "clinical", "volume"]
    shown = [name for name in dict.fromkeys(shown) if name in validation["candidates"]]
    drawers: dict[str, Callable[[Axes], None]] = {
        "roc": lambda axes: _draw_roc(axes, table, validation, shown),
        "precision_recall": lambda axes: _draw_precision_recall(axes, table, validation, shown),
        "calibration": lambda axes: _draw_calibration(axes, table, validation, shown),
        "decision_curve": lambda axes: _draw_decision_curve(axes, validation),
        "confusion": lambda axes: _draw_confusion(axes, table, validation),
    }
    written = []
    for name, draw in drawers.items():
        figure = Figure(figsize=SIZE_INCHES, dpi=DPI, layout="constrained")
        draw(figure.add_subplot())
        with whole_file(folder / f"{name}.png") as draft:
            FigureCanvasAgg(figure).print_png(draft, metadata={"Software": "radiogen, not for clinical use"})
        written.append(folder / f"{name}.png")
    return written


def _averaged(table: pd.DataFrame, positive: str, name: str, column: str) -> tuple[Floats, Floats]:
    own = table[table["candidate"] == name]
    each = own.groupby("patient_id").agg({"status": "first", column: "mean"})
    labels = np.array(each["status"] == positive, dtype=np.float64)
    return labels, np.array(each[column], dtype=np.float64)


def _draw_roc(axes: Axes, table: pd.DataFrame, validation: dict[str, Any], shown: list[str]) -> None:
    for name, (color, line) in zip(shown, STYLES, strict=False):
        labels, scores = _averaged(table, validation["positive"], name, "score")
        false, true, _ = roc_curve(labels, scores)
        area = validation["candidates"][name]["auc"]
        label = f"{name} {area['value']:.2f} ({area['low']:.2f} to {area['high']:.2f})"
        axes.plot(false, true, color=color, linestyle=line, label=label)
    axes.plot([0, 1], [0, 1], color="#BBBBBB", linewidth=0.8)
    axes.set(xlabel="1 - specificity", ylabel="sensitivity", title="ROC, out of fold", aspect="equal")
    axes.legend(fontsize=7, loc="lower right", title="AUC, 95 %", title_fontsize=7)


def _draw_precision_recall(
    axes: Axes, table: pd.DataFrame, validation: dict[str, Any], shown: list[str]
) -> None:
    prevalence = validation["candidates"]["majority"]["prevalence"]
    for name, (color, line) in zip(shown, STYLES, strict=False):
        labels, scores = _averaged(table, validation["positive"], name, "score")
        precision, recall, _ = precision_recall_curve(labels, scores)
        label = f"{name} {validation['candidates'][name]['auprc']:.2f}"
        axes.step(recall, precision, where="post", color=color, linestyle=line, label=label)
    axes.axhline(prevalence, color="#BBBBBB", linewidth=0.8, label=f"prevalence {prevalence:.2f}")
    axes.set(xlabel="sensitivity (recall)", ylabel="precision", title="Precision and recall", ylim=(0, 1.02))
    axes.legend(fontsize=7, title="AUPRC", title_fontsize=7)


def _draw_calibration(axes: Axes, table: pd.DataFrame, validation: dict[str, Any], shown: list[str]) -> None:
    for name, (color, line) in zip(shown[:2], STYLES, strict=False):
        labels, probabilities = _averaged(table, validation["positive"], name, "probability")
        parts = np.array_split(np.argsort(probabilities, kind="stable"), min(BINS, len(labels)))
        said = [probabilities[part].mean() for part in parts]
        seen = [labels[part].mean() for part in parts]
        axes.plot(said, seen, color=color, linestyle=line, marker="o", label=name)
    axes.plot([0, 1], [0, 1], color="#BBBBBB", linewidth=0.8)
    title = f"Calibration, {BINS} groups of equal size"
    axes.set(xlabel="probability said", ylabel="share seen", title=title, xlim=(0, 1), ylim=(0, 1))
    axes.legend(fontsize=7)


def _draw_decision_curve(axes: Axes, validation: dict[str, Any]) -> None:
    curves = dict(validation["decision_curve"])
    thresholds = curves.pop("threshold")
    styles = (*STYLES[: len(curves) - 1], STYLES[3])
    for (name, benefit), (color, line) in zip(curves.items(), styles, strict=True):
        axes.plot(thresholds, benefit, color=color, linestyle=line, label=name)
    axes.axhline(0, color="#BBBBBB", linewidth=0.8, label="nobody positive")
    highest = max(max(benefit) for benefit in curves.values())
    axes.set(xlabel="threshold", ylabel="net benefit", title="Decision curve", ylim=(-0.1, highest + 0.05))
    axes.legend(fontsize=7)


def _draw_confusion(axes: Axes, table: pd.DataFrame, validation: dict[str, Any]) -> None:
    own = table[table["candidate"] == validation["model"]]
    names = list(validation["classes"])
    counts = pd.crosstab(own["status"], own["called"]).reindex(index=names, columns=names, fill_value=0)
    means = counts.to_numpy(dtype=float) / validation["repeats"]
    axes.imshow(means / means.sum(1, keepdims=True), cmap="Blues", vmin=0, vmax=1)
    for row in range(2):
        for column in range(2):
            share = means[row, column] / means[row].sum()
            color = "white" if share > 0.6 else "black"
            text = f"{means[row, column]:.1f}\n{share:.0%}"
            axes.text(column, row, text, ha="center", va="center", color=color)
    axes.set(xticks=[0, 1], yticks=[0, 1], xticklabels=names, yticklabels=names)
    axes.set(xlabel="called", ylabel="true", title=f"{validation['model']}, mean of the repeats")
