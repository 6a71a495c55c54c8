"""Commands that run whole cohorts: cohort ingest, run, status, retry."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .console import finish, progress, say
from .options import AsJson, Device, PriorName, Quiet

if TYPE_CHECKING:
    from radiogen.cohorts.run import CohortReport, Spread

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
    from radiogen.preprocess.ingest import ingest as ingest_source
    from radiogen.preprocess.options import IngestOptions
    from radiogen.resources import cohort_card

    source = source or cohort_card(name).source_folder
    if source is None:
        raise typer.BadParameter("give the folder of the scans with --source; the card names none")
    options = IngestOptions(cohort=name, clinical=clinical, jobs=jobs)
    with progress(quiet) as tick:
        made = ingest_source(source, out, options, tick)
    for kind, count in made.ignored.items():
        say(f"left out: {count} {kind}", quiet)
    for failure in made.failures:
        say(f"{failure.case_id}: {failure.reason} ({failure.way_out})")
    typer.echo(f"{out}\t{len(made.cases)} cases")
    finish(len(made.failures), out / "failures.csv")


def run(
    source: Annotated[Path, typer.Argument(help="Folder of cases, or of scans.")],
    out: Annotated[Path, typer.Option("--output", "-o", help="Folder of the run.")],
    steps: Annotated[
        str | None, typer.Option(help=f"Some of {STEPS}; else all that the options allow.")
    ] = None,
    model: Annotated[
        Path | None, typer.Option("--model", "-m", help="Model folder of radiogen train.")
    ] = None,
    egfr: Annotated[Path | None, typer.Option(help="EGFR model folder of radiogen train-egfr.")] = None,
    clinical: Annotated[Path | None, typer.Option(help="Clinical table; else the manifest.")] = None,
    clinical_mapping: Annotated[Path | None, typer.Option(help="YAML that names its columns.")] = None,
    cohort: Annotated[str | None, typer.Option(help="For scans: cohort whose rules hold.")] = None,
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

    chosen = steps.split(",") if steps else _steps_for(is_case_source(source), model, egfr)
    given: dict[str, object] = dict(
        source=source, steps=chosen, model=model, egfr=egfr, clinical=clinical, split=split,
        clinical_mapping=clinical_mapping, threads=threads, device=device, ingest={"cohort": cohort},
        segment={"prior": prior},
    )  # fmt: skip
    settings = load_settings(CohortSettings, given, config, overrides or ())
    with progress(quiet) as tick:
        report = run_cohort(
            settings, out, _spread(jobs, scheduler, part), tick, lambda line: say(line, quiet)
        )
    _tell(report)


def retry(
    out: Annotated[Path, typer.Argument(help="Folder of the run.")],
    jobs: Jobs = 1,
    scheduler: Scheduler = None,
    quiet: Quiet = False,
) -> None:
    """Try the failed cases of a run again, and what is left of it."""
    from radiogen.cohorts.run import remembered, run_cohort

    settings = remembered(out)
    with progress(quiet) as tick:
        report = run_cohort(
            settings, out, _spread(jobs, scheduler, None), tick, lambda line: say(line, quiet), retry=True
        )
    _tell(report)


def status(
    out: Annotated[Path, typer.Argument(help="Folder of the run.")],
    as_json: AsJson = False,
) -> None:
    """How far a run is, while it runs and after."""
    from radiogen.cohorts.status import cohort_status

    found = cohort_status(out)
    if as_json:
        typer.echo(json.dumps(asdict(found), indent=2))
        return
    typer.echo("\t".join(f"{name} {count}" for name, count in found.counts.items()))
    typer.echo("running" if found.is_running else "not running")
    if found.seconds_a_case is not None:
        typer.echo(f"{found.seconds_a_case} s a case, at most {found.peak_mb:.0f} MB a worker")
    for failure in found.failures:
        typer.echo(f"{failure['case_id']}\t{failure['step']}\t{failure['reason']} ({failure['way_out']})")
    for same in found.twins:
        typer.echo(f"one scan under the ids {', '.join(same)}")
    for change in found.changed:
        typer.echo(f"since the split was drawn: {change}")


def _steps_for(are_cases: bool, model: Path | None, egfr: Path | None) -> list[str]:
    """All steps that source and models allow."""
    wanted = [] if are_cases else ["ingest"]
    wanted += ["segment", "extract-features"] if model else []
    wanted += ["classify-egfr"] if egfr else []
    return [*wanted, "report"]


def _spread(jobs: int, scheduler: str | None, part: str | None) -> "Spread":
    from radiogen.cohorts.run import Spread
    from radiogen.errors import ConfigError

    if part is None:
        return Spread(jobs, scheduler)
    number, slash, count = part.partition("/")
    if not (slash and number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise ConfigError(f"--part {part}", "is not i/n with i from 1 to n", "write --part 3/16")
    return Spread(jobs, scheduler, (int(number), int(count)))


def _tell(report: "CohortReport") -> None:
    for failure in report.failures:
        say(f"{failure['case_id']}: {failure['reason']} ({failure['way_out']})")
    typer.echo(f"{report.run}\t{report.done} cases done now\t{report.kept} settled before")
    if report.missing:
        say(f"{report.missing} cases are left to other parts; the last one writes the tables")
    finish(len(report.failures), report.run / "failures.csv")
