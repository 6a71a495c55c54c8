"""How many went in, how many came out at each step, and why the others left."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from radiogen.report.reading import Row, Run

MOST_REASONS = 4
NEVER_THERE = "in the clinical table without features"  # left out by the validation, but of no case
OF_WHAT = re.compile(r"^[\w.-]+: ")  # the file or case that a reason names first


@dataclass(frozen=True)
class Left:
    """Some that left: how many, and why."""

    count: int
    reason: str


@dataclass(frozen=True)
class Stage:
    """A box of the diagram: how many there are, of what, and who left on the way from the box above."""

    title: str
    count: int
    left: tuple[Left, ...] = ()

    @property
    def lost(self) -> int:
        return sum(each.count for each in self.left)


def draw_flow(run: Run) -> list[Stage]:
    """The stages that a run went through, in their order; empty where there is but one.

    Each stage counts cases, the last ones patients. The counts of a stage and of those who left before it add
    up to the stage above.
    """
    manifest = {row.get("case_id", ""): row for row in run.manifest}
    ingested = set(manifest) or set(run.ingest_decisions)
    of_step: dict[str, dict[str, str]] = {}
    for row in run.failures:
        of_step.setdefault(row.get("step", ""), {})[row["case_id"]] = row.get("reason", "")
    stages: list[Stage] = []
    if ingested:
        refused = {case: why for case, why in of_step.get("ingest", {}).items() if case not in ingested}
        stages += [
            Stage("scans were given", len(ingested) + len(refused)),
            Stage("became cases", len(ingested), _count(refused.values())),
        ]
    segmented = {case.case_id: case for case in run.segmented}
    if not ingested >= set(segmented):  # of cases that are not in the manifest: what left before is not known
        stages, ingested = [], set(segmented)
    if segmented:
        failed = of_step.get("segment", {})
        absent = sorted(ingested - set(segmented))
        why = [_why_not(manifest.get(case, {}), failed.get(case, ""), segmented, manifest) for case in absent]
        stages.append(Stage("were segmented", len(segmented), _count(why)))
        without = [name for name, case in segmented.items() if not case.lesions]
        stages.append(
            Stage(
                "have a lesion", len(segmented) - len(without), _count(["no lesion was found"] * len(without))
            )
        )
    stages += _features(run, set(segmented) or ingested, of_step)
    return stages if len(stages) > 1 else []


def _features(run: Run, before: set[str], of_step: dict[str, dict[str, str]]) -> list[Stage]:
    """Cases with features and patients with a probability."""
    if not run.features:
        return []
    there = {row.get("case_id", "") for row in run.features}
    found = {case.case_id for case in run.segmented if case.lesions} or before
    failed = of_step.get("extract-features", {})
    why = [failed.get(case, "features were not asked for") for case in sorted(found - there)]
    stages = [Stage("have features", len(there), _count(why))] if found >= there else []
    patients = {row.get("patient_id") or row.get("case_id", "") for row in run.features}
    if not run.predictions:
        return [*stages, *_judged(run, len(patients))]
    answered = {row.get("patient_id", "") for row in run.predictions}
    failed = of_step.get("classify-egfr", {})
    patient_of = {row.get("case_id", ""): row.get("patient_id") for row in run.features}
    lost = {patient_of.get(case): reason for case, reason in failed.items()}
    why = [lost.get(patient, "no probability was asked for") for patient in sorted(patients - answered)]
    stages.append(Stage("patients stand behind these", len(patients)))
    return [*stages, Stage("patients have an EGFR probability", len(patients & answered), _count(why))]


def _judged(run: Run, patients: int) -> list[Stage]:
    """Patients of the EGFR validation, where it was made of these features."""
    left = run.validation.get("left_out")
    count = run.validation.get("patients")
    if not run.is_own_validation or not isinstance(left, dict) or not isinstance(count, int):
        return []
    whys = tuple(Left(number, why) for why, number in left.items() if number and why != NEVER_THERE)
    if count + sum(each.count for each in whys) != patients:
        return []
    return [
        Stage("patients stand behind these", patients),
        Stage("patients were judged out of fold", count, whys),
    ]


def _why_not(row: Row, failed: str, segmented: Iterable[str], manifest: dict[str, Row]) -> str:
    """Why a case was not segmented: it failed, or its split was not asked for."""
    splits = {manifest[case].get("split", "") for case in segmented if case in manifest}
    if failed:
        return failed
    split = row.get("split", "")
    return f"split “{split}” was not asked for" if split and split not in splits else "not segmented"


def _count(reasons: Iterable[str]) -> tuple[Left, ...]:
    """The reasons with their counts, the most frequent first; the rare ones together."""
    found = Counter(OF_WHAT.sub("", reason) for reason in reasons)
    counted = sorted(found.items(), key=lambda each: (-each[1], each[0]))
    shown = [Left(count, reason) for reason, count in counted[:MOST_REASONS]]
    rest = sum(count for _, count in counted[MOST_REASONS:])
    return (*shown, Left(rest, "other reasons, in the table below")) if rest else tuple(shown)
