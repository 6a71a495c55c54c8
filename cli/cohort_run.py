"""Commands that run whole cohorts: cohort ingest, run, status, retry."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .console import exit_if_failed, print_message, progress_bar
from .ingest import ingest_and_print
from .options import AsJson, Device, Models, Overrides, PriorName, Quiet, Split, advanced

if TYPE_CHECKING:
    from radiogen.cohorts.run import CohortReport
    from radiogen.cohorts.settings import CohortSettings
    from radiogen.cohorts.workers import WorkerOptions

STEPS = "ingest,segment,extract-features,classify-egfr,report"
Jobs = Annotated[int, typer.Option(min=1, help="Number of cases in parallel on this machine")]
Scheduler = Annotated[
    str | None, advanced(help="Address of the Dask scheduler that runs the cases, tcp://HOST:8786")
]


def ingest(
    name: Annotated[
        str,
        typer.Argument(help="Cohort whose rules apply, as radiogen cohort list shows it, or a .yaml card"),
    ],
    out: Annotated[Path, typer.Option("--output", "-o", help="Folder for the cases and manifest.csv")],
    source: Annotated[
        Path | None,
        typer.Option(help="Folder of the downloaded scans; default: the folder that the card names"),
    ] = None,
    clinical: Annotated[Path | None, typer.Option(help="Clinical table with EGFR status")] = None,
    jobs: Jobs = 1,
    quiet: Quiet = False,
) -> None:
    """Turn the scans of a cohort into checked case folders, by its own rules."""
    from radiogen.ingestion.options import IngestOptions

    ingest_and_print(
        _scans_of(name, source), out, IngestOptions(cohort=name, clinical=clinical, jobs=jobs), quiet
    )


def run(
    name: Annotated[
        str, typer.Argument(help="Cohort, its .yaml card, folder of cases, or folder or .zip of scans")
    ],
    out: Annotated[Path, typer.Option("--output", "-o", help="Folder of the run")],
    steps: Annotated[
        str | None, typer.Option(help=f"Steps to run, some of {STEPS}; default: all that the options allow")
    ] = None,
    model: Models = None,
    egfr: Annotated[Path | None, typer.Option(help="EGFR model folder of radiogen train-egfr")] = None,
    clinical: Annotated[
        Path | None, typer.Option(help="Clinical table; default: the manifest of the cases")
    ] = None,
    clinical_mapping: Annotated[
        Path | None, advanced(help="YAML that names the columns of the clinical table")
    ] = None,
    cohort: Annotated[str | None, advanced(help="For scans: cohort whose rules apply")] = None,
    scans: Annotated[
        Path | None,
        typer.Option("--source", help="Scans of a named cohort; default: the folder that its card names"),
    ] = None,
    prior: Annotated[
        PriorName | None, typer.Option(help="Attention prior; default: auto if the model can, else lungs")
    ] = None,
    split: Split = None,
    jobs: Jobs = 1,
    scheduler: Scheduler = None,
    part: Annotated[str | None, advanced(help="Only part i of n, as i/n, for job arrays")] = None,
    threads: Annotated[
        int, advanced(min=1, help="Threads of the network in each worker; results depend on it")
    ] = 1,
    config: Annotated[Path | None, advanced(help="YAML file of settings of the steps")] = None,
    overrides: Overrides = None,
    device: Device = "auto",
    quiet: Quiet = False,
) -> None:
    """Run all steps on every case of a cohort; restartable, and one bad case never stops the others.

    Settings for --set: such as features.radiomics=true or ingest.gaps=resample.
    """
    from radiogen.cohorts.run import run_cohort
    from radiogen.cohorts.settings import CohortSettings
    from radiogen.config import load_settings
    from radiogen.io.cases import is_case_source
    from radiogen.model.folder import starter_model

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
    with progress_bar(quiet, _networks_message(settings, None if model else starter_model())) as progress:
        report = run_cohort(
            settings, out, _spread(jobs, scheduler, part), progress, lambda line: print_message(line, quiet)
        )
    _print_report(report)


def retry(
    out: Annotated[Path, typer.Argument(help="Folder of the run")],
    jobs: Jobs = 1,
    scheduler: Scheduler = None,
    quiet: Quiet = False,
) -> None:
    """Run the failed cases of a run again, and those that are left."""
    from radiogen.cohorts.run import run_cohort, settings_of_run

    settings = settings_of_run(out)
    with progress_bar(quiet) as progress:
        report = run_cohort(
            settings,
            out,
            _spread(jobs, scheduler, None),
            progress,
            lambda line: print_message(line, quiet),
            retry=True,
        )
    _print_report(report)


def status(
    out: Annotated[Path, typer.Argument(help="Folder of the run")],
    as_json: AsJson = False,
) -> None:
    """Show the progress of a run, while it runs and after."""
    from radiogen.cohorts.ledger import cohort_status

    progress = cohort_status(out)
    if as_json:
        typer.echo(json.dumps(asdict(progress), indent=2))
        return
    typer.echo("\t".join(f"{name} {count}" for name, count in progress.counts.items()))
    typer.echo("running" if progress.is_running else "not running")
    if progress.seconds_a_case is not None:
        left = "" if progress.hours_left is None else f", about {progress.hours_left:g} h left"
        typer.echo(f"{progress.seconds_a_case} s a case, at most {progress.peak_mb:.0f} MB a worker{left}")
    for failure in progress.failures:
        typer.echo(f"{failure['case_id']}\t{failure['step']}\t{failure['reason']} ({failure['way_out']})")
    for ids in progress.twins:
        typer.echo(f"one scan under the ids {', '.join(ids)}")
    for change in progress.changed:
        typer.echo(f"since the split was drawn: {change}")


def _scans_of(name: str, given: Path | None) -> Path:
    """Return the folder of the scans of a named cohort: the one given, else the one that its card names."""
    from radiogen.resources import cohort_card

    source = given or cohort_card(name).source_folder
    if source is None:
        raise typer.BadParameter("give the folder of the scans with --source; the card names none")
    return source


def _source(name: str, scans: Path | None, cohort: str | None) -> tuple[Path, str | None]:
    """Return the folder of cases or scans, and the cohort whose rules apply, if there is one."""
    from radiogen.resources import cohort_names

    is_named = name.endswith((".yaml", ".yml")) or (not Path(name).exists() and name in cohort_names())
    if is_named and cohort is None:
        return _scans_of(name, scans), name
    if is_named or scans is not None:
        raise typer.BadParameter("name the cohort once: NAME --source FOLDER, or FOLDER --cohort NAME")
    return Path(name), cohort


def _steps_for(are_cases: bool, egfr: Path | None) -> list[str]:
    """Return all steps that source and models allow."""
    steps = [] if are_cases else ["ingest"]
    steps += ["segment", "extract-features"]
    if egfr:
        steps.append("classify-egfr")
    return [*steps, "report"]


def _networks_message(settings: "CohortSettings", starter: Path | None) -> str:
    """Return a message about the networks that were chosen, if one is due."""
    from radiogen.model.folder import all_members

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


def _print_report(report: "CohortReport") -> None:
    typer.echo(f"{report.run}\t{report.done} cases done now\t{report.kept} settled before")
    if report.missing:
        print_message(f"{report.missing} cases are left to other parts; the last one writes the tables")
    failures = [(row["case_id"], row["reason"], row["way_out"]) for row in report.failures]
    exit_if_failed(failures, report.run / "failures.csv")
