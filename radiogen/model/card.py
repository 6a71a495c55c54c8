"""Write model cards from the config and the metrics of a training."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

from radiogen import __version__
from radiogen.model.folder import ModelConfig

NOT_FOR = (
    "Not for clinical use: no diagnosis, staging, planning or dose; nobody has examined it as a device.",
    "Not for lesions outside the lungs, for other modalities, or for scanners and protocols unlike those of "
    "its cohorts before radiogen evaluate has measured it there.",
    "Not for features of the patients it has seen, where these are tested: radiogen refuses that where it "
    "knows them.",
)


def model_card(
    config: ModelConfig,
    metrics: Mapping[str, Any],
    weights: int,
    note: str = "",
    training: Sequence[str] = (),
    held_out: str = "",
    chosen_by_validation: bool = False,
) -> str:
    """Compose MODEL_CARD.md of a RA-Seg: its input, its training data, its measured results.

    Args:
        config: The model's config.
        metrics: `epochs` and `validation` rows of the training; empty for imported weights.
        weights: Number of weights.
        note: One more sentence, such as where imported weights come from.
        training: Lines on how it was trained and on what; empty for imported weights.
        held_out: A sentence on the cases that `metrics` were measured on.
        chosen_by_validation: Whether the epoch was chosen by these very figures.
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
    if note:
        lines.append(f"- {note}")
    if training:
        lines += ["", "## Training", "", *training]
    lines += ["", "## Measured on held-out cases", "", *([held_out, ""] if held_out else [])]
    lines += validation_lines(metrics, chosen_by_validation)
    lines += ["", "## What it is not for", "", *(f"- {sentence}" for sentence in NOT_FOR)]
    return "\n".join(lines) + "\n"


def validation_lines(metrics: Mapping[str, Any], chosen_by_validation: bool) -> list[str]:
    """List the mean Dice of the epoch that was kept, by prior and prompt.

    Args:
        metrics: `validation` rows, and `kept_epoch`; the last one if it says none.
        chosen_by_validation: Whether the epoch was chosen by these very figures.
    """
    rows: list[dict[str, Any]] = metrics.get("validation") or []
    if not rows:
        return ["Nothing was measured in training. Use radiogen evaluate on cases that it has not seen."]
    kept = metrics.get("kept_epoch", max(row["epoch"] for row in rows))
    by_prior: dict[tuple[str, str], list[float]] = defaultdict(list)
    for row in rows:
        if row["epoch"] == kept:
            by_prior[row["prior"], row["prompt"]].append(row["dice"])
    lines = ["| prior | prompt | cases | mean Dice | lowest |", "| --- | --- | --- | --- | --- |"]
    lines += [
        f"| {prior} | {prompt} | {len(dice)} | {mean(dice):.3f} | {min(dice):.3f} |"
        for (prior, prompt), dice in by_prior.items()
    ]
    lines += ["", "Dice on the network's grid. `oracle`: the prior was made from the true outline."]
    if chosen_by_validation:
        lines.append("The epoch was chosen by these figures, so they flatter; measure on other cases.")
    return lines
