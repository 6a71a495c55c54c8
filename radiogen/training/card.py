"""The training part of a model card: priors, augmentation, epochs, and the cohorts that were learned from."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from radiogen.io.cases import Case
from radiogen.training.settings import TrainingSettings


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


def training_lines(
    training: TrainingSettings, metrics: Mapping[str, Any], cohorts: Sequence[CohortCount]
) -> list[str]:
    """Lines of a model card on how the network was trained, then a table of what it learned from."""
    return [*_training_lines(training, metrics), "", *cohort_lines(cohorts, training)]


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
