"""Model cards: what a model is, in words, from what its training wrote."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

from radiogen import __version__
from radiogen.model.folder import ModelConfig
from radiogen.training.settings import TrainingSettings
from radiogen.io.cases import Case

NOT_FOR = (
    "Not for clinical use: no diagnosis, staging, planning or dose; nobody has examined it as a device.",
    "Not for lesions outside the lungs, for other modalities, or for scanners and protocols unlike those of "
    "its cohorts before radiogen evaluate has measured it there.",
    "Not for features of the patients it has seen, where these are tested: radiogen refuses that where it "
    "knows them.",
)


@dataclass(frozen=True)
class CohortCount:
    """How much of one cohort a model has learned from."""

    cohort: str
    cases: int
    patients: int


def count_cohorts(cases: Sequence[Case]) -> list[CohortCount]:
    """Cases and patients by cohort, in the order of their names."""
    found: dict[str, list[Case]] = defaultdict(list)
    for case in cases:
        found[case.cohort or "(none named)"].append(case)
    return [
        CohortCount(name, len(some), len({case.patient_id for case in some}))
        for name, some in sorted(found.items())
    ]


def model_card(
    config: ModelConfig,
    metrics: Mapping[str, Any],
    weights: int,
    note: str = "",
    training: TrainingSettings | None = None,
    cohorts: Sequence[CohortCount] = (),
    held_out: str = "",
) -> str:
    """MODEL_CARD.md of a RA-Seg: what it sees, what it was trained on, what was measured.

    Args:
        config: The model's config.
        metrics: `epochs` and `validation` rows of the training; empty for imported weights.
        weights: Number of weights.
        note: One more sentence, such as where imported weights come from.
        training: How it was trained; None for imported weights.
        cohorts: What it learned from.
        held_out: A sentence on the cases that `metrics` were measured on.
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
        lines += ["", "## Training", "", *_training_lines(training, metrics)]
        lines += ["", *cohort_lines(cohorts, training)]
    lines += ["", "## Measured on held-out cases", "", *([held_out, ""] if held_out else [])]
    lines += validation_lines(metrics, chosen_by_it=bool(training and training.patience))
    lines += ["", "## What it is not for", "", *(f"- {sentence}" for sentence in NOT_FOR)]
    return "\n".join(lines) + "\n"


def _training_lines(training: TrainingSettings, metrics: Mapping[str, Any]) -> list[str]:
    shares = {name: training.priors.count(name) / len(training.priors) for name in training.prior_names}
    boxes = f"faces shifted by up to {training.box_jitter:.0%} and moved out by {training.box_loosen:.0%}"
    lines = ["- Priors of its patches: " + ", ".join(f"{name} {share:.0%}" for name, share in shares.items())]
    if "box" in shares:
        lines[0] += f"; boxes drawn round the true outline, {boxes}"
    changed = {
        name: value
        for name, value in training.augmentation.model_dump().items()
        if value != type(training.augmentation)().model_dump()[name]
    }
    lines.append("- Augmentation: " + _augmentation(changed))
    if training.synthetic_lesions:
        low, high = training.synthetic_mm
        share = f"{training.synthetic_lesions:.0%} of the patches get a made lesion, {low:g} to {high:g} mm"
        lines.append(f"- Synthetic lesions: {share}.")
    if training.lungs_empty:
        lines.append(
            f"- Of the patches without a box {training.lungs_empty:.0%} lie anywhere and get no made lesion."
        )
    if metrics.get("epochs"):
        last, kept = metrics["epochs"][-1], metrics.get("kept_epoch", metrics["epochs"][-1]["epoch"])
        lines.append(
            f"- Epochs: {last['epoch'] + 1} of {training.epochs}; loss of the last: {last['loss']:.4f}."
        )
        how = f"the means of the weights over the steps (decay {training.ema_decay:g})"
        which = f"epoch {kept + 1}, the best on the held-out cases" if training.patience else "the last epoch"
        lines.append(f"- Weights: of {which}" + (f", {how}." if training.ema_decay else "."))
    return [line if line.endswith(".") else f"{line}." for line in lines]


def _augmentation(changed: Mapping[str, Any]) -> str:
    kinds = "flips, affine and elastic warps, other kernels, slice thicknesses, doses and calibrations"
    if not changed:
        return f"{kinds}, each drawn from (seed, epoch, draw)"
    return f"{kinds}, with " + ", ".join(f"{name} {value}" for name, value in changed.items())


def cohort_lines(cohorts: Sequence[CohortCount], training: TrainingSettings) -> list[str]:
    """A table of what was learned from; cohorts that gave their lungs alone are marked."""
    lines = ["| cohort | cases | patients | what was learned |", "| --- | --- | --- | --- |"]
    for count in cohorts:
        of_lungs = count.cohort in training.lungs_only_cohorts
        what = "lungs only, with made lesions; its own lesions never seen" if of_lungs else "outlined lesions"
        times = training.cohort_draws.get(count.cohort, 1)
        what += f"; drawn {times} times as often" if times > 1 else ""
        lines.append(f"| {count.cohort} | {count.cases} | {count.patients} | {what} |")
    return lines


def validation_lines(metrics: Mapping[str, Any], chosen_by_it: bool) -> list[str]:
    """Mean Dice of the epoch that was kept, by prior and prompt.

    Args:
        metrics: `validation` rows, and `kept_epoch`; the last one if it says none.
        chosen_by_it: Whether the epoch was chosen by these very figures.
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
    if chosen_by_it:
        lines.append("The epoch was chosen by these figures, so they flatter; measure on other cases.")
    return lines
