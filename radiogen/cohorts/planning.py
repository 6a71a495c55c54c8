"""From a source to the tasks of a run: one a case."""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path

from radiogen import __version__
from radiogen.cohorts.one_case import CASES, CaseTask, read_networks
from radiogen.cohorts.settings import CohortSettings
from radiogen.errors import ConfigError
from radiogen.ingestion.case_folder import CasePlan
from radiogen.ingestion.plans import Clinical, plan_cases, read_patients
from radiogen.ingestion.sources import find_sources
from radiogen.io.cases import cases_of_split, is_case_source
from radiogen.model.folder import check_prior
from radiogen.provenance import short_hash
from radiogen.resources import cohort_card
from radiogen.runtime import Progress
from radiogen.segmentation.segment import chosen_prior


@dataclass(frozen=True)
class Plan:
    """The tasks of a run by case id, sorted, and the clinical rows that go into the manifest."""

    tasks: dict[str, CaseTask]
    clinical: Clinical = field(default_factory=dict)


def plan_tasks(settings: CohortSettings, folder: Path, run: Path, token: str, progress: Progress) -> Plan:
    """Look through the source, and say what is to be done with each case.

    Args:
        settings: Of the run.
        folder: The source, or where it was unpacked.
        run: Folder of the run.
        token: Stands for this start of the head.
        progress: Told of headers read.

    Raises:
        RadiogenError: The source holds no case or scan, a manifest is damaged, or the model does not do what
            is asked of it.
    """
    key = _key(settings)
    if is_case_source(settings.source):
        if "ingest" in settings.steps:
            hint = "leave it out: --steps segment,extract-features,..."
            raise ConfigError("--steps ingest", f"is asked of cases: {settings.source}", hint)
        cases = sorted(cases_of_split(settings.source, settings.split), key=lambda case: case.case_id)
        tasks = {
            case.case_id: CaseTask(run, case.case_id, settings, short_hash(f"{key} {case}"), token, case=case)
            for case in cases
        }
        return Plan(tasks)
    if "ingest" not in settings.steps:
        raise ConfigError(settings.source, "holds no cases", "add the step ingest, or ingest it first")
    if settings.split:
        raise ConfigError(f"--split {settings.split}", "is given for scans", "ingest and split them first")
    plans, clinical = _plans(settings, folder, run, progress)
    archive = None if folder == settings.source else settings.source
    return Plan(
        {
            plan.case_id: CaseTask(
                run,
                plan.case_id,
                settings,
                short_hash(f"{key} {plan.source.id} {_problem(plan)} {plan.options.get('cohort_rule', '')}"),
                token,
                plan=plan,
                archive=archive,
            )
            for plan in sorted(plans, key=lambda plan: plan.case_id)
        },
        clinical,
    )


def _plans(
    settings: CohortSettings, folder: Path, run: Path, progress: Progress
) -> tuple[list[CasePlan], Clinical]:
    options = settings.ingest
    card = cohort_card(options.cohort) if options.cohort else None
    clinical = read_patients(options, card)
    kinds = card.outline.kinds if card else ()
    found = find_sources(folder, run / CASES, options, kinds, progress)
    plans = plan_cases(found.sources, options, card, clinical)
    if folder != settings.source:
        plans = [replace(plan, source=replace(plan.source, where=settings.source)) for plan in plans]
    return plans, clinical


def _problem(plan: CasePlan) -> str:
    return plan.source.problem.wrong if plan.source.problem else ""


def _key(settings: CohortSettings) -> str:
    """Hash of all that decides the results of every case; the model is checked on the way."""
    said = {"settings": settings.described(), "radiogen": __version__, "model": ""}
    if settings.model:
        config, said["model"] = read_networks(settings.model)
        if "segment" in settings.steps:
            check_prior(config, chosen_prior(settings.segment, config), settings.model[0])
    return short_hash(json.dumps(said, sort_keys=True))
