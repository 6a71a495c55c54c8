"""The flow of cases through a run: the numbers that reach each step, and why the others are excluded."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from radiogen.config import data_folder
from radiogen.provenance import files_hash
from radiogen.report.reading import Row, Run, cohort_setting

VERB_ORDER = (
    "ingest",
    "split",
    "prune",
    "train",
    "segment",
    "evaluate",
    "extract-features",
    "train-egfr",
    "classify-egfr",
)
REPORTED_OPTIONS = (
    "prior",
    "prompt",
    "preset",
    "criterion",
    "sparsity",
    "classifier",
    "split",
    "loosen",
    "cohort",
    "radiomics",
)
HASH_DIGITS = 12
WEIGHTS, CONFIG = "model.safetensors", "config.json"
MOST_REASONS = 4
NO_CASE = "in the clinical table without features"  # left out by the validation, but of no case
# The file or case that a reason names first.
LEADING_NAME = re.compile(r"^[\w.-]+: ")


@dataclass(frozen=True)
class Exclusion:
    """A number of cases or patients that do not reach a stage, and the reason."""

    count: int
    reason: str


@dataclass(frozen=True)
class Stage:
    """A box of the flow diagram: its title, its number, and those excluded on the way to it."""

    title: str
    count: int
    excluded: tuple[Exclusion, ...] = ()

    @property
    def excluded_count(self) -> int:
        return sum(each.count for each in self.excluded)


def draw_flow(run: Run) -> list[Stage]:
    """Return the stages of a run in their order; empty where there is only one.

    Each stage counts cases, the last ones patients. The counts of a stage and of those excluded before it add
    up to the stage above.
    """
    manifest = {row.get("case_id", ""): row for row in run.manifest}
    ingested = set(manifest) or set(run.ingest_decisions)
    of_step: dict[str, dict[str, str]] = {}
    for row in run.failures:
        of_step.setdefault(row.get("step", ""), {})[row["case_id"]] = row.get("reason", "")
    stages: list[Stage] = []
    if ingested:
        # A case that failed once and was ingested later is no failure any more.
        refused = {case: why for case, why in of_step.get("ingest", {}).items() if case not in ingested}
        stages += [
            Stage("scans were given", len(ingested) + len(refused)),
            Stage("became cases", len(ingested), _count(refused.values())),
        ]
    segmented = {case.case_id: case for case in run.segmented}
    # Cases from elsewhere: who was excluded before them is not known.
    if not ingested >= set(segmented):
        stages, ingested = [], set(segmented)
    if segmented:
        failed = of_step.get("segment", {})
        absent = sorted(ingested - set(segmented))
        reasons = [
            _reason_not_segmented(manifest.get(case, {}), failed.get(case, ""), segmented, manifest)
            for case in absent
        ]
        stages.append(Stage("were segmented", len(segmented), _count(reasons)))
        without = [name for name, case in segmented.items() if not case.lesions]
        no_lesion = _count(["no lesion was found"] * len(without))
        stages.append(Stage("have a lesion", len(segmented) - len(without), no_lesion))
    stages += _feature_stages(run, set(segmented) or ingested, of_step)
    return stages if len(stages) > 1 else []


def _feature_stages(run: Run, before: set[str], of_step: dict[str, dict[str, str]]) -> list[Stage]:
    """Return the stages of cases with features and of patients with a probability."""
    if not run.features:
        return []
    with_features = {row.get("case_id", "") for row in run.features}
    with_lesion = {case.case_id for case in run.segmented if case.lesions} or before
    failed = of_step.get("extract-features", {})
    reasons = [
        failed.get(case, "features were not requested") for case in sorted(with_lesion - with_features)
    ]
    stages: list[Stage] = []
    # Else the features are of other cases, and the counts would not add up.
    if with_lesion >= with_features:
        stages.append(Stage("have features", len(with_features), _count(reasons)))
    patients = {row.get("patient_id") or row.get("case_id", "") for row in run.features}
    if not run.predictions:
        return [*stages, *_validation_stages(run, len(patients))]
    predicted = {row.get("patient_id", "") for row in run.predictions}
    failed = of_step.get("classify-egfr", {})
    patient_of = {row.get("case_id", ""): row.get("patient_id") for row in run.features}
    reason_of = {patient_of.get(case): reason for case, reason in failed.items()}
    without = sorted(patients - predicted)
    reasons = [reason_of.get(patient, "no probability was requested") for patient in without]
    stages.append(Stage("patients stand behind these", len(patients)))
    return [
        *stages,
        Stage(f"patients have a probability of {run.marker}", len(patients & predicted), _count(reasons)),
    ]


def _validation_stages(run: Run, patients: int) -> list[Stage]:
    """Return the stages of the EGFR validation, if it used these features and its counts add up."""
    left_out = run.validation.get("left_out")
    count = run.validation.get("patients")
    if not run.is_own_validation or not isinstance(left_out, dict) or not isinstance(count, int):
        return []
    excluded = tuple(Exclusion(number, why) for why, number in left_out.items() if number and why != NO_CASE)
    # A validation of another table: its counts would not add up with the stages above.
    if count + sum(each.count for each in excluded) != patients:
        return []
    return [
        Stage("patients stand behind these", patients),
        Stage("patients were judged out of fold", count, excluded),
    ]


def _reason_not_segmented(row: Row, failed: str, segmented: Iterable[str], manifest: dict[str, Row]) -> str:
    """Return why a case was not segmented: it failed, or its split was not chosen."""
    splits = {manifest[case].get("split", "") for case in segmented if case in manifest}
    if failed:
        return failed
    split = row.get("split", "")
    return f"split “{split}” was not selected" if split and split not in splits else "not segmented"


def _count(reasons: Iterable[str]) -> tuple[Exclusion, ...]:
    """Count the reasons, the most frequent first; the rare ones together."""
    # Without the name a reason begins with, equal reasons of different cases are counted together.
    counts = Counter(LEADING_NAME.sub("", reason) for reason in reasons)
    counted = sorted(counts.items(), key=lambda each: (-each[1], each[0]))
    shown = [Exclusion(count, reason) for reason, count in counted[:MOST_REASONS]]
    rest = sum(count for _, count in counted[MOST_REASONS:])
    return (*shown, Exclusion(rest, "other reasons, in the table below")) if rest else tuple(shown)


@dataclass(frozen=True)
class FlowStep:
    """One verb of a run: its results, model, options, device and duration."""

    verb: str
    results: int
    version: str
    model: str
    options: str
    device: str
    seconds: float
    first: str
    seed: str


def count_steps(run: Run, folder: Path) -> list[FlowStep]:
    """Return the steps of a run that have a record, in the order of the workflow.

    Args:
        run: The run that was read.
        folder: The folder it was read from; a model in it gives its hash a name.
    """
    by_verb: dict[str, list[dict[str, Any]]] = {}
    for _, record in run.records:
        by_verb.setdefault(str(record.get("verb") or "unknown"), []).append(record)
    names = _model_names(folder)
    verbs = sorted(
        by_verb, key=lambda verb: (VERB_ORDER.index(verb) if verb in VERB_ORDER else len(VERB_ORDER), verb)
    )
    return [_step(verb, by_verb[verb], names) for verb in verbs]


def _step(verb: str, records: list[dict[str, Any]], names: dict[str, str]) -> FlowStep:
    options = [record["options"] for record in records if isinstance(record.get("options"), dict)]
    hashes = [each[:HASH_DIGITS] for each in _unique(record.get("model_hash") for record in records)]
    return FlowStep(
        verb=verb,
        results=len(records),
        version=", ".join(_unique(record.get("radiogen") for record in records)),
        model=", ".join(f"{names[each]} ({each})" if each in names else each for each in hashes),
        options=_options_line(options),
        device=", ".join(_unique(record.get("device") for record in records)),
        seconds=sum(float(record.get("wall_s") or 0) for record in records),
        first=min(_unique(record.get("started") for record in records), default=""),
        seed=", ".join(_unique(record.get("seed") for record in records)),
    )


def _options_line(options: Sequence[dict[str, Any]]) -> str:
    """Return the values of the reported options over all records of a verb."""
    parts = []
    for name in REPORTED_OPTIONS:
        # A group of settings would fill the cell; the run record holds it.
        values = _unique(each.get(name) for each in options if not isinstance(each.get(name), dict))
        if values:
            parts.append(f"{name} {' or '.join(values)}")
    return "; ".join(parts)


def _unique(values: Iterable[Any]) -> list[str]:
    """Return the different values that are set, in their order.

    >>> _unique(["cpu", None, "cpu", ""])
    ['cpu']
    """
    return list(dict.fromkeys(str(value) for value in values if value not in (None, "", False)))


def _model_names(folder: Path) -> dict[str, str]:
    """Return the names of models that are shipped or lie in the run, by the hash that run records carry.

    The hash is that of `radiogen.model.folder.model_hash`, not imported, since it would import torch.
    """
    shipped = data_folder("models")
    places = [each for each in sorted(shipped.iterdir()) if each.is_dir()] if shipped.is_dir() else []
    names = {}
    for place in (*places, folder / "model", cohort_setting(folder, "model")):
        if place and (place / WEIGHTS).is_file() and (place / CONFIG).is_file():
            digest = files_hash(place / WEIGHTS, place / CONFIG)
            names[digest] = place.name
    return names
