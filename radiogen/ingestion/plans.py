"""Give the cases of a source their ids, and join them with the clinical table before names are hashed.

A PatientID from a hospital may be a name, and a case id becomes a folder name and a line of a log. So an id
is taken over only where it is known to be a pseudonym; others are hashed. Afterwards nobody could join a
table.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from radiogen.errors import CaseError, TableError
from radiogen.ingestion.case_folder import CasePlan
from radiogen.ingestion.options import IngestOptions
from radiogen.ingestion.outline_choice import OutlineChoice
from radiogen.ingestion.sources import CaseSource
from radiogen.io.cases import CASE_ID
from radiogen.io.clinical import CLINICAL_COLUMNS, read_clinical
from radiogen.provenance import short_hash
from radiogen.resources import CohortCard, OutlineRule

Clinical = dict[str, dict[str, str]]  # by PatientID or scan name; values by column


def read_patients(options: IngestOptions, card: CohortCard | None = None) -> Clinical:
    """Read the clinical table of the options, or of the card, by PatientID; empty without one.

    Raises:
        TableError: It does not fit.
    """
    path = options.clinical or (card.clinical_table if card else None)
    if path is None:
        return {}
    table = read_clinical(path, options.clinical_mapping or (card.clinical.mapping if card else None))
    rows = table.astype(object).where(table.notna(), "").to_dict("records")
    return {row["patient_id"]: {name: _cell(row[name]) for name in CLINICAL_COLUMNS[1:]} for row in rows}


def _cell(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def plan_cases(
    sources: Sequence[CaseSource], options: IngestOptions, card: CohortCard | None, clinical: Clinical
) -> list[CasePlan]:
    """Give every source its ids and its EGFR status; two that would share an id get a problem instead.

    Raises:
        TableError: A clinical table was given and names none of the patients.
    """
    if clinical and not any(source.patient in clinical for source in sources):
        wrong = f"names none of the {len(sources)} patients"
        raise TableError(options.clinical or (card and card.clinical_table), wrong, "check its column of ids")
    choice = OutlineChoice(
        roi=options.roi,
        segment=options.segment,
        agreement=options.agreement,
        rule=card.outline if card else OutlineRule(),
    )
    # Paths stay out of the record: folders are often named after patients.
    paths = {"outline", "clinical", "clinical_mapping"}
    recorded = options.model_dump(mode="json", exclude={*paths, "jobs", "existing"})
    recorded |= {name: getattr(options, name) is not None for name in sorted(paths)}
    if card is not None:
        recorded |= {"cohort": card.name, "cohort_rule": card.outline.model_dump(mode="json")}
    plans = []
    for source in sources:
        plan = CasePlan(
            case_id=_case_id(source, _is_kept(source.scan or source.patient, options, card)),
            patient_id=source.patient
            if _is_kept(source.patient, options, card)
            else short_hash(source.patient),
            cohort=card.name if card else "",
            egfr=clinical.get(source.patient, {}).get("egfr", ""),
            source=source,
            choice=_with_known_faults(choice, source, card),
            lungs=options.lungs,
            needs_outline=options.outline is not None,
            rules=options.rules,
            keep_dates=options.keep_dates,
            options=recorded,
        )
        plans.append(plan)
    return _without_collisions(plans)


def _is_kept(name: str, options: IngestOptions, card: CohortCard | None) -> bool:
    """Return whether a name is known to be a pseudonym: by the user or by the cohort's card."""
    return options.id_from == "patient-id" or (card is not None and card.names_pseudonym(name))


def _with_known_faults(choice: OutlineChoice, source: CaseSource, card: CohortCard | None) -> OutlineChoice:
    if card is None or source.outline is None:
        return choice
    return choice.model_copy(update={"known": card.known_of(source.patient, source.outline.kind)})


def _case_id(source: CaseSource, keep: bool) -> str:
    if keep:
        # No DICOM string becomes a path as it stands.
        words = re.sub(r"[^A-Za-z0-9_-]+", "-", source.scan or source.patient).strip("-")[:64]
        if CASE_ID.fullmatch(words):
            return words
    return source.id


def _without_collisions(plans: list[CasePlan]) -> list[CasePlan]:
    counts = Counter(plan.case_id for plan in plans)
    kept: list[CasePlan] = []
    for plan in plans:
        n = counts[plan.case_id]
        if n > 1:
            problem = CaseError(
                plan.source.where,
                f"{n} scans would be case {plan.case_id}",
                "take --id-from hash, or one scan each",
            )
            unique = f"{plan.case_id[:48]}-{len(kept)}"
            plan = replace(plan, case_id=unique, source=replace(plan.source, problem=problem))
        kept.append(plan)
    return kept
