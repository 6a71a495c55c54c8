"""The main results of a run: Dice beside its floors, AUC beside that of clinical variables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, quantiles
from typing import Any

from radiogen.evaluation.sentences import PROMPTS, describe_floor
from radiogen.evaluation.summary import compare_with_best_floor
from radiogen.io.patients import patients_in_common
from radiogen.measures.floors import FLOORS
from radiogen.report.figures import number_of
from radiogen.report.reading import Row, Run, TrainingResult

FLOOR_PREFIX = "floor_"
CLINICAL_AND_FEATURES = "clinical+features"


@dataclass(frozen=True)
class FloorDice:
    """The mean Dice of a rule without a network, on the same cases."""

    name: str
    dice: float


@dataclass(frozen=True)
class SegmentationAnswer:
    """The mean Dice of one prompt, beside its floors."""

    prompt: str
    about_prompt: str
    cases: int
    dice: float
    middle: float  # the median
    low: float  # lower quartile
    high: float  # upper quartile
    floors: tuple[FloorDice, ...]
    verdict: str  # in the words of `radiogen evaluate`
    without_figure: int


@dataclass(frozen=True)
class EgfrAnswer:
    """The AUC of the EGFR model with its interval, beside clinical variables alone."""

    model: str
    auc: Mapping[str, Any]
    clinical: Mapping[str, Any] | None
    both: Mapping[str, Any] | None  # clinical + features, which the increment is of
    increment: Mapping[str, Any] | None
    verdict: str


@dataclass(frozen=True)
class PatientCounts:
    """Numbers of patients that reached each step of a run."""

    ingested: int | None
    failed: int
    segmented: int
    predicted: int
    mutant: int
    wildtype: int
    not_segmented: tuple[str, ...]

    @property
    def known(self) -> int:
        """Patients with an EGFR status."""
        return self.mutant + self.wildtype


def answer_segmentation(evaluation: Sequence[Row]) -> list[SegmentationAnswer]:
    """Return the Dice of each prompt of an evaluation beside its floors; empty where no case has a Dice."""
    by_prompt: dict[str, list[Row]] = {}
    for row in evaluation:
        # Prompts are never mixed: a Dice with the true box says nothing about one without.
        by_prompt.setdefault(row.get("prompt") or "", []).append(row)
    answers = []
    for prompt, rows in by_prompt.items():
        measured = [row for row in rows if number_of(row.get("dice")) is not None]
        if measured:
            dice = _values(measured, "dice")
            # `quantiles` refuses a single value, which is its own quartiles.
            low, middle, high = quantiles(dice, n=4, method="inclusive") if len(dice) > 1 else dice * 3
            answers.append(
                SegmentationAnswer(
                    prompt=prompt or "not recorded",
                    about_prompt=PROMPTS.get(prompt, ""),
                    cases=len(dice),
                    dice=mean(dice),
                    middle=middle,
                    low=low,
                    high=high,
                    floors=_floors(measured),
                    verdict=_beside_floors(measured),
                    without_figure=len(rows) - len(measured),
                )
            )
    return answers


def count_unmeasured(evaluation: Sequence[Row], measured: Sequence[SegmentationAnswer]) -> int:
    """Count the evaluated rows that no answer covers, such as cases without a prediction."""
    return len(evaluation) - sum(each.cases + each.without_figure for each in measured)


def _floors(rows: Sequence[Row]) -> tuple[FloorDice, ...]:
    floors = []
    for column in rows[0]:
        values = _values(rows, column)
        # Tables of other versions may have columns of this prefix that are no Dice.
        if column.startswith(FLOOR_PREFIX) and values and all(0 <= value <= 1 for value in values):
            name = column.removeprefix(FLOOR_PREFIX).removesuffix("_dice").replace("_", " ")
            floors.append(FloorDice(name, mean(values)))
    return tuple(floors)


def _beside_floors(rows: Sequence[Row]) -> str:
    numbers = [
        {"patient_id": row.get("patient_id") or row.get("case_id"), "dice": number_of(row.get("dice"))}
        | {name: number_of(row.get(name)) for name in FLOORS}
        for row in rows
    ]
    return describe_floor(compare_with_best_floor(numbers))


def _values(rows: Sequence[Row], column: str) -> list[float]:
    values = [number_of(row.get(column)) for row in rows]
    return [value for value in values if value is not None]


def answer_egfr(validation: Mapping[str, Any]) -> EgfrAnswer | None:
    """Return the AUC and the increment of an EGFR validation; None where there is none."""
    candidates = validation.get("candidates") or {}
    model = str(validation.get("model") or "")
    auc = (candidates.get(model) or {}).get("auc")
    if not auc:
        return None
    # The model itself may be one of these two: it is not set beside itself.
    clinical, both = (
        (candidates.get(name) or {}).get("auc") if name != model else None
        for name in ("clinical", CLINICAL_AND_FEATURES)
    )
    gain = validation.get("headline")
    return EgfrAnswer(model, auc, clinical, both, gain, _verdict(gain))


def _verdict(gain: Mapping[str, Any] | None) -> str:
    low, high = (number_of((gain or {}).get(end)) for end in ("low", "high"))
    if low is None or high is None:
        return "The increment over clinical variables could not be measured."
    # A gain is claimed only where its interval excludes zero: the AUC alone mostly shows clinical variables.
    if low > 0:
        return "The interval excludes zero: the features add to the clinical variables."
    if high < 0:
        return "The interval excludes zero: the features make the clinical variables worse."
    return "The interval holds zero: no gain over clinical variables is shown."


def count_patients(run: Run) -> PatientCounts:
    """Count how many patients of a run were ingested, failed, were segmented, and have a known status."""
    segmented = {case.case_id for case in run.segmented}
    ids = [row.get("case_id", "") for row in run.manifest] or list(run.ingest_decisions)
    status = [row.get("egfr", "") for row in run.manifest]
    return PatientCounts(
        ingested=len(ids) if ids else None,
        # A case may fail in several steps and counts once.
        failed=len({row["case_id"] for row in run.failures}),
        segmented=len(segmented),
        predicted=len(run.predictions),
        mutant=status.count("mutant"),
        wildtype=status.count("wildtype"),
        not_segmented=tuple(each for each in ids if each not in segmented) if segmented else (),
    )


def patients_known(run: Run, training: TrainingResult | None) -> int | None:
    """Count the evaluated patients that the segmentation model learned from; None where it is not known."""
    seen = training.config.get("patients_seen") if training else None
    if not isinstance(seen, list) or not run.evaluation:
        return None
    patients = {row.get("case_id", ""): row.get("patient_id", "") for row in run.manifest}
    evaluated = {patients.get(row.get("case_id", ""), row.get("case_id", "")) for row in run.evaluation}
    return len(patients_in_common(evaluated, map(str, seen)))
