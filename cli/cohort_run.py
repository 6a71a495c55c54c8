"""Commands that run whole cohorts: cohort ingest, run, status, retry."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .cases import make_cases
from .console import finish, progress_bar, say
from .options import AsJson, Device, Models, PriorName, Quiet

if TYPE_CHECKING:
    from radiogen.cohorts.run import CohortReport
    from radiogen.cohorts.settings import CohortSettings
    from radiogen.cohorts.workers import WorkerOptions

STEPS = "ingest,segment,extract-features,classify-egfr,report"
Jobs = Annotated[int, typer.Option(min=1, help="Cases at the same time on this machine.")]
Scheduler = Annotated[str | None, typer.Option(help="Dask scheduler that does the work, tcp://HOST:8786.")]
Part = Annotated[str | None, typer.Option(help="i/n: only this part, for job arrays.")]


def ingest(
    name: Annotated[
        str, typer.Argument(help="Cohort whose rules hold, as radiogen cohort list shows it, or a .yaml.")
    ],
    out: Annotated[Path, typer.Option("--output", "-o", help="Folder for the cases and manifest.csv.")],
    source: Annotated[
        Path | None, typer.Option(help="Folder of the scans, as they were downloaded; else that of the card.")
    ] = None,
    clinical: Annotated[Path | None, typer.Option(help="Table of patients with EGFR status.")] = None,
    jobs: Jobs = 1,
    quiet: Quiet = False,
) -> None:
    """Turn the scans of a cohort into checked case folders, by its own rules."""
    from radiogen.ingestion.options import IngestOptions

    make_cases(_scans_of(name, source), out, IngestOptions(cohort=name, clinical=clinical, jobs=jobs), quiet)


def run(
    name: Annotated[
        str, typer.Argument(help="Cohort or .yaml, or a folder of cases, or a folder or .zip of scans.")
    ],
    out: Annotated[Path, typer.Option("--output", "-o", help="Folder of the run.")],
    steps: Annotated[
        str | None, typer.Option(help=f"Some of {STEPS}; else all that the options allow.")
    ] = None,
    model: Models = None,
    egfr: Annotated[Path | None, typer.Option(help="EGFR model folder of radiogen train-egfr.")] = None,
    clinical: Annotated[Path | None, typer.Option(help="Clinical table; else the manifest.")] = None,
    clinical_mapping: Annotated[Path | None, typer.Option(help="YAML that names its columns.")] = None,
    cohort: Annotated[str | None, typer.Option(help="For scans: cohort whose rules hold.")] = None,
    scans: Annotated[
        Path | None, typer.Option("--source", help="Scans of a named cohort; else the folder of its card.")
    ] = None,
    prior: Annotated[
        PriorName | None, typer.Option(help="Where to look; else the best without a box.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Only cases of this split.")] = None,
    jobs: Jobs = 1,
    scheduler: Scheduler = None,
    part: Part = None,
    threads: Annotated[
        int, typer.Option(min=1, help="Threads of the network in each worker; part of the result.")
    ] = 1,
    config: Annotated[Path | None, typer.Option(help="YAML of settings of the steps.")] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", help="key=value, such as features.radiomics=true or ingest.gaps=resample."),
    ] = None,
    device: Device = "auto",
    quiet: Quiet = False,
) -> None:
    """Take every case of a cohort the whole road, restartable; one bad case never stops the others."""
    from radiogen.cohorts.run import run_cohort
    from radiogen.cohorts.settings import CohortSettings
    from radiogen.config import load_settings
    from radiogen.io.cases import is_case_source
    from radiogen.model.ensemble import starter_model

    source, cohort = _source(name, scans, cohort)
    chosen = steps.split(",") if steps else _steps_for(is_case_source(source), egfr)
    needs_networks = bool({"segment", "extract-features"} & set(chosen))
    folders = model or ([starter_model()] if needs_networks else [])
    given: dict[str, object] = dict(
        source=source, steps=chosen, model=folders, egfr=egfr, clinical=clinical, split=split,
        clinical_mapping=clinical_mapping, threads=threads, device=device, ingest={"cohort": cohort},
        segment={"prior": prior},
    )  # fmt: skip
    settings = load_settings(CohortSettings, given, config, overrides or ())
    with progress_bar(quiet, _about_networks(settings, None if model else starter_model())) as progress:
        report = run_cohort(
            settings, out, _spread(jobs, scheduler, part), progress, lambda line: say(line, quiet)
        )
    _tell(report)


def retry(
    out: Annotated[Path, typer.Argument(help="Folder of the run.")],
    jobs: Jobs = 1,
    scheduler: Scheduler = None,
    quiet: Quiet = False,
) -> None:
    """Try the failed cases of a run again, and what is left of it."""
    from radiogen.cohorts.run import run_cohort, settings_of_run

    settings = settings_of_run(out)
    with progress_bar(quiet) as progress:
        report = run_cohort(
            settings, out, _spread(jobs, scheduler, None), progress, lambda line: say(line, quiet), retry=True
        )
    _tell(report)


def status(
    out: Annotated[Path, typer.Argument(help="Folder of the run.")],
    as_json: AsJson = False,
) -> None:
    """How far a run is, while it runs and after."""
    from radiogen.cohorts.ledger import cohort_status

    found = cohort_status(out)
    if as_json:
        typer.echo(json.dumps(asdict(found), indent=2))
        return
    typer.echo("\t".join(f"{name} {count}" for name, count in found.counts.items()))
    typer.echo("running" if found.is_running else "not running")
    if found.seconds_a_case is not None:
        left = "" if found.hours_left is None else f", about {found.hours_left:g} h left"
        typer.echo(f"{found.seconds_a_case} s a case, at most {found.peak_mb:.0f} MB a worker{left}")
    for failure in found.failures:
        typer.echo(f"{failure['case_id']}\t{failure['step']}\t{failure['reason']} ({failure['way_out']})")
    for same in found.twins:
        typer.echo(f"one scan under the ids {', '.join(same)}")
    for change in found.changed:
        typer.echo(f"since the split was drawn: {change}")


def _scans_of(name: str, given: Path | None) -> Path:
    """The scans of a named cohort: as given, or where its card says."""
    from radiogen.resources import cohort_card

    source = given or cohort_card(name).source_folder
    if source is None:
        raise typer.BadParameter("give the folder of the scans with --source; the card names none")
    return source


def _source(name: str, scans: Path | None, cohort: str | None) -> tuple[Path, str | None]:
    """Where cases or scans are, and the cohort whose rules hold, if there is one."""
    from radiogen.resources import cohort_names

    is_named = name.endswith((".yaml", ".yml")) or (not Path(name).exists() and name in cohort_names())
    if is_named and cohort is None:
        return _scans_of(name, scans), name
    if is_named or scans is not None:
        raise typer.BadParameter("name the cohort once: NAME --source FOLDER, or FOLDER --cohort NAME")
    return Path(name), cohort


def _steps_for(are_cases: bool, egfr: Path | None) -> list[str]:
    """All steps that source and models allow."""
    wanted = [] if are_cases else ["ingest"]
    wanted += ["segment", "extract-features"]
    wanted += ["classify-egfr"] if egfr else []
    return [*wanted, "report"]


def _about_networks(settings: "CohortSettings", starter: Path | None) -> str:
    """What has to be said of the choice of networks."""
    from radiogen.model.ensemble import all_members

    if starter is not None and settings.model == (starter,):
        return f"no --model given: the shipped model {starter.name} is used"
    members = all_members(settings.model)
    if len(members) > 1 and "extract-features" in settings.steps:
        return f"{len(members)} networks segment; features are those of the first, {members[0].name}"
    return ""


def _spread(jobs: int, scheduler: str | None, part: str | None) -> "WorkerOptions":
    from radiogen.cohorts.workers import WorkerOptions
    from radiogen.errors import ConfigError

    if part is None:
        return WorkerOptions(jobs, scheduler)
    number, slash, count = part.partition("/")
    if not (slash and number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise ConfigError(f"--part {part}", "is not i/n with i from 1 to n", "write --part 3/16")
    return WorkerOptions(jobs, scheduler, (int(number), int(count)))


def _tell(report: "CohortReport") -> None:
    for failure in report.failures:
        say(f"{failure['case_id']}: {failure['reason']} ({failure['way_out']})")
    typer.echo(f"{report.run}\t{report.done} cases done now\t{report.kept} settled before")
    if report.missing:
        say(f"{report.missing} cases are left to other parts; the last one writes the tables")
    finish(len(report.failures), report.run / "failures.csv")
