"""Plots of the validation of a marker: ROC, precision and recall, calibration, decision curve, confusion."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_curve, roc_curve

from radiogen.drawing.plots import BLUE, DPI, GREEN, VERMILION, save_plot

Floats = NDArray[np.float64]
SIZE_INCHES = (5.0, 4.5)
# Each colour has a line style of its own, so that print without colour tells the curves apart.
STYLES = ((BLUE, "-"), (VERMILION, "--"), (GREEN, "-."), ("#555555", ":"))
CALIBRATION_GROUPS = 5


@dataclass(frozen=True)
class CandidateCurve:
    """One candidate in the plots: out-of-fold values of shape (patients,), averaged over the repeats."""

    name: str
    labels: Floats  # 1 for the positive class, 0 for the other
    scores: Floats  # higher means positive
    probabilities: Floats  # calibrated
    auc: tuple[float, float, float]  # value, low and high end of the 95 % interval
    auprc: float


def draw_roc(curves: Sequence[CandidateCurve], target: Path, marker: str) -> Path:
    """Draw sensitivity against 1 - specificity, the AUC with its interval in the legend."""
    figure, axes = _new_plot()
    for curve, (color, line) in zip(curves, STYLES, strict=False):
        false_rate, true_rate, _ = roc_curve(curve.labels, curve.scores)
        value, low, high = curve.auc
        label = f"{curve.name} {value:.2f} ({low:.2f} to {high:.2f})"
        axes.plot(false_rate, true_rate, color=color, linestyle=line, label=label)
    axes.plot([0, 1], [0, 1], color="#BBBBBB", linewidth=0.8)
    axes.set(
        xlabel="1 - specificity", ylabel="sensitivity", title=f"{marker}: ROC, out of fold", aspect="equal"
    )
    axes.legend(fontsize=7, loc="lower right", title="AUC, 95 %", title_fontsize=7)
    return save_plot(figure, target)


def draw_precision_recall(
    curves: Sequence[CandidateCurve], prevalence: float, target: Path, marker: str
) -> Path:
    """Draw precision against recall, beside the prevalence, which a coin would reach."""
    figure, axes = _new_plot()
    for curve, (color, line) in zip(curves, STYLES, strict=False):
        precision, recall, _ = precision_recall_curve(curve.labels, curve.scores)
        label = f"{curve.name} {curve.auprc:.2f}"
        # Straight lines would promise a precision that no threshold reaches (Davis and Goadrich 2006).
        axes.step(recall, precision, where="post", color=color, linestyle=line, label=label)
    axes.axhline(prevalence, color="#BBBBBB", linewidth=0.8, label=f"prevalence {prevalence:.2f}")
    axes.set(
        xlabel="sensitivity (recall)",
        ylabel="precision",
        title=f"{marker}: precision and recall",
        ylim=(0, 1.02),
    )
    axes.legend(fontsize=7, title="AUPRC", title_fontsize=7)
    return save_plot(figure, target)


def draw_calibration(curves: Sequence[CandidateCurve], target: Path, marker: str) -> Path:
    """Draw the observed share of positives against the predicted probability, in groups of equal size."""
    figure, axes = _new_plot()
    for curve, (color, line) in zip(curves, STYLES, strict=False):
        # Groups of equal size: of a few dozen patients, bins of equal width would mostly be empty.
        order = np.argsort(curve.probabilities, kind="stable")
        groups = np.array_split(order, min(CALIBRATION_GROUPS, len(order)))
        predicted = [curve.probabilities[group].mean() for group in groups]
        observed = [curve.labels[group].mean() for group in groups]
        axes.plot(predicted, observed, color=color, linestyle=line, marker="o", label=curve.name)
    axes.plot([0, 1], [0, 1], color="#BBBBBB", linewidth=0.8)
    title = f"{marker}: calibration, {CALIBRATION_GROUPS} groups of equal size"
    axes.set(xlabel="predicted probability", ylabel="observed share", title=title, xlim=(0, 1), ylim=(0, 1))
    axes.legend(fontsize=7)
    return save_plot(figure, target)


def draw_decision_curve(
    thresholds: Sequence[float], net_benefit: Mapping[str, Sequence[float]], target: Path, marker: str
) -> Path:
    """Draw the net benefit of acting on each candidate over thresholds; the last curve is "treat all"."""
    figure, axes = _new_plot()
    # "Treat all" is dotted and grey, whether one candidate comes before it or three.
    styles = (*STYLES[: len(net_benefit) - 1], STYLES[3])
    for (name, benefit), (color, line) in zip(net_benefit.items(), styles, strict=True):
        axes.plot(thresholds, benefit, color=color, linestyle=line, label=name)
    axes.axhline(0, color="#BBBBBB", linewidth=0.8, label="nobody positive")
    # The axis ends at -0.1: "treat all" falls without limit as the threshold rises.
    highest = max(max(benefit) for benefit in net_benefit.values())
    axes.set(
        xlabel="threshold",
        ylabel="net benefit",
        title=f"{marker}: decision curve",
        ylim=(-0.1, highest + 0.05),
    )
    axes.legend(fontsize=7)
    return save_plot(figure, target)


def draw_confusion(counts: Floats, names: Sequence[str], title: str, target: Path) -> Path:
    """Draw a confusion matrix, shaded by the share of each row.

    Args:
        counts: (2, 2), patients by true (row) and called (column) status, mean of the repeats.
        names: Of the two classes, in the order of the rows.
        title: Above it.
        target: PNG file to write.
    """
    figure, axes = _new_plot()
    # By row: the classes differ in size, and counts would shade the larger one only.
    axes.imshow(counts / counts.sum(1, keepdims=True), cmap="Blues", vmin=0, vmax=1)
    for row in range(2):
        for column in range(2):
            share = counts[row, column] / counts[row].sum()
            color = "white" if share > 0.6 else "black"
            text = f"{counts[row, column]:.1f}\n{share:.0%}"
            axes.text(column, row, text, ha="center", va="center", color=color)
    axes.set(xticks=[0, 1], yticks=[0, 1], xticklabels=names, yticklabels=names)
    axes.set(xlabel="called", ylabel="true", title=title)
    return save_plot(figure, target)


def _new_plot() -> tuple[Figure, Axes]:
    figure = Figure(figsize=SIZE_INCHES, dpi=DPI, layout="constrained")
    return figure, figure.add_subplot()
