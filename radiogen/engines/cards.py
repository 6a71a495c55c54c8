"""Model cards: what a model is, in words, from what its training wrote."""

from collections import defaultdict
from collections.abc import Mapping
from statistics import mean
from typing import Any

from radiogen import __version__
from radiogen.engines.model_folder import ModelConfig


def model_card(config: ModelConfig, metrics: Mapping[str, Any], weights: int, note: str = "") -> str:
    """MODEL_CARD.md of a RA-Seg: what it sees, what it was trained on, what was measured.

    Args:
        config: The model's config.
        metrics: `epochs` and `validation` rows of the training; empty for imported weights.
        weights: Number of weights.
        note: One more sentence, such as where imported weights come from.
    """
    seen = config.patients_seen
    windows = ", ".join(f"{w.low_hu:g} to {w.high_hu:g} HU" for w in config.preprocessing.windows)
    spacing = " x ".join(f"{mm:g}" for mm in config.preprocessing.spacing_mm)
    lines = [
        f"# RA-Seg ({config.preset or 'own settings'})",
        "",
        "Not for clinical use. Research software.",
        "",
        f"- Written by radiogen {__version__}; {weights:,} weights, sparsity {config.sparsity:g}.",
        f"- Sees: {windows}; voxels of {spacing} mm (x, y, z), layout {config.preprocessing.layout}.",
        f"- Priors it was trained with: {', '.join(config.priors)}. Another one is refused.",
        f"- Patients seen in training: {'unknown' if seen is None else len(seen)}.",
    ]
    if metrics.get("epochs"):
        last = metrics["epochs"][-1]
        lines.append(f"- Epochs: {last['epoch'] + 1}; loss of the last: {last['loss']:.4f}.")
    if note:
        lines.append(f"- {note}")
    lines += ["", "## Measured on held-out cases", ""]
    lines += _validation_lines(metrics.get("validation") or [])
    return "\n".join(lines) + "\n"


def _validation_lines(rows: list[dict[str, Any]]) -> list[str]:
    if not rows:
        return ["Nothing was measured in training. Use radiogen evaluate on cases that it has not seen."]
    last = max(row["epoch"] for row in rows)
    by_prior: dict[tuple[str, str], list[float]] = defaultdict(list)
    for row in rows:
        if row["epoch"] == last:
            by_prior[row["prior"], row["prompt"]].append(row["dice"])
    lines = ["| prior | prompt | cases | mean Dice |", "| --- | --- | --- | --- |"]
    lines += [
        f"| {prior} | {prompt} | {len(dice)} | {mean(dice):.3f} |"
        for (prior, prompt), dice in by_prior.items()
    ]
    return [*lines, "", "Dice on the network's grid. `oracle`: the prior was made from the true outline."]
