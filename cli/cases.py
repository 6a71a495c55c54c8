"""Commands that make and divide cases: ingest, split."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from .console import finish, progress, say
from .options import Existing, Quiet, Seed


def ingest(
    source: Annotated[Path, typer.Argument(help="DICOM folder, volume file (NIfTI, NRRD, MHA), or folder.")],
    out: Annotated[Path, typer.Option("--output", "-o", help="Folder for the cases and manifest.csv.")],
    outline: Annotated[
        Path | None, typer.Option(help="RTSTRUCT, DICOM SEG, LIDC XML or mask; else those in the source.")
    ] = None,
    clinical: Annotated[Path | None, typer.Option(help="Table of patients with EGFR status.")] = None,
    clinical_mapping: Annotated[Path | None, typer.Option(help="YAML that names its columns.")] = None,
    cohort: Annotated[str | None, typer.Option(help="Cohort card whose rules hold.")] = None,
    id_from: Annotated[Literal["hash", "patient-id"], typer.Option(help="Where ids come from.")] = "hash",
    roi: Annotated[str | None, typer.Option(help="Pattern of the tumour's ROI in an RTSTRUCT.")] = None,
    segment: Annotated[str | None, typer.Option(help="Segment of a SEG: name, number or largest.")] = None,
    agreement: Annotated[float, typer.Option(help="Share of LIDC readers who must agree.")] = 0.5,
    series: Annotated[str | None, typer.Option(help="SeriesInstanceUID to take.")] = None,
    lungs: Annotated[Literal["threshold", "lungmask"], typer.Option(help="How to find lungs.")] = "threshold",
    existing: Existing = "skip",
    jobs: Annotated[int, typer.Option(help="Cases prepared at the same time.", min=1)] = 1,
    quiet: Quiet = False,
) -> None:
    """Turn scans and outlines into checked case folders; prints each case and where it came from."""
    from radiogen.config import check_settings
    from radiogen.preprocess.ingest import ingest as ingest_source
    from radiogen.preprocess.options import IngestOptions

    values = dict(
        outline=outline, clinical=clinical, clinical_mapping=clinical_mapping, cohort=cohort,
        id_from=id_from, roi=roi, segment=segment, agreement=agreement, series=series, lungs=lungs,
        existing=existing, jobs=jobs,
    )  # fmt: skip
    options = check_settings(IngestOptions, values, what="ingest")
    with progress(quiet) as tick:
        made = ingest_source(source, out, options, lambda done, total: tick("ingesting", done, total))
    for kind, count in made.ignored.items():
        say(f"left out: {count} {kind}", quiet)
    for case in made.cases:
        for decision in case.decisions:
            say(f"{case.case_id}: {decision}", quiet)
        typer.echo(f"{case.case_id}\t{case.where}")
    for failure in made.failures:
        say(f"{failure.where}: {failure.reason} ({failure.way_out})")
    finish(len(made.failures), out / "failures.csv")


def split(
    cases: Annotated[Path, typer.Argument(help="Folder of cases.")],
    test: Annotated[float, typer.Option(help="Share of the patients that training must not see.")] = 0.3,
    seed: Seed = 0,
) -> None:
    """Mark patients as train or test in manifest.csv, stratified by EGFR status."""
    from radiogen.cohorts.split import split_cases

    counts = split_cases(cases, test, seed)
    typer.echo("\n".join(f"{name}\t{count}" for name, count in counts.items()))
