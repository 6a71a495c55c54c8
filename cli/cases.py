"""Commands that make and divide cases: ingest, split."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from .console import finish, progress_bar, say
from .options import AsJson, Existing, Quiet, Seed

if TYPE_CHECKING:
    from radiogen.ingestion.options import IngestOptions

Resample = Literal["refuse", "resample"]


def ingest(
    source: Annotated[
        Path,
        typer.Argument(help="Folder or .zip of DICOM, volume file (NIfTI, NRRD, MHA), or folder of them."),
    ],
    out: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for the cases and manifest.csv.")
    ] = None,
    list_only: Annotated[
        bool, typer.Option("--list", help="Show the CT series, which would be taken and why; write nothing.")
    ] = False,
    as_json: AsJson = False,
    outline: Annotated[
        Path | None, typer.Option(help="RTSTRUCT, DICOM SEG, LIDC XML or mask; else those in the source.")
    ] = None,
    clinical: Annotated[Path | None, typer.Option(help="Table of patients with EGFR status.")] = None,
    clinical_mapping: Annotated[Path | None, typer.Option(help="YAML that names its columns.")] = None,
    cohort: Annotated[str | None, typer.Option(help="Cohort whose rules hold, or its .yaml.")] = None,
    id_from: Annotated[Literal["hash", "patient-id"], typer.Option(help="Where ids come from.")] = "hash",
    roi: Annotated[str | None, typer.Option(help="Pattern of the tumour's ROI in an RTSTRUCT.")] = None,
    segment: Annotated[str | None, typer.Option(help="Segment of a SEG: name, number or largest.")] = None,
    agreement: Annotated[float, typer.Option(help="Share of LIDC readers who must agree.")] = 0.5,
    series: Annotated[str | None, typer.Option(help="SeriesInstanceUID to take, as --list shows it.")] = None,
    series_rule: Annotated[
        Literal["most-slices", "thinnest", "thickest"] | None,
        typer.Option(help="Which of several series; else that of the outline, or the one with most slices."),
    ] = None,
    kernel: Annotated[str | None, typer.Option(help="Pattern of the convolution kernel to take.")] = None,
    contrast: Annotated[Literal["yes", "no"] | None, typer.Option(help="With or without contrast.")] = None,
    gaps: Annotated[Resample, typer.Option(help="Uneven or single missing slices.")] = "refuse",
    tilt: Annotated[Resample, typer.Option(help="Slices sheared by a tilted gantry.")] = "refuse",
    keep_dates: Annotated[
        bool, typer.Option("--keep-dates", help="Keep the date of a scan; else only its year.")
    ] = False,
    lungs: Annotated[Literal["threshold", "lungmask"], typer.Option(help="How to find lungs.")] = "threshold",
    existing: Existing = "skip",
    jobs: Annotated[int, typer.Option(help="Cases prepared at the same time.", min=1)] = 1,
    quiet: Quiet = False,
) -> None:
    """Turn scans and outlines into checked case folders; prints each case and where it came from."""
    from radiogen.config import check_settings
    from radiogen.ingestion.options import IngestOptions

    values = dict(
        outline=outline, clinical=clinical, clinical_mapping=clinical_mapping, cohort=cohort,
        id_from=id_from, roi=roi, segment=segment, agreement=agreement, series=series,
        series_rule=series_rule, kernel=kernel, contrast=contrast, gaps=gaps, tilt=tilt,
        keep_dates=keep_dates, lungs=lungs, existing=existing, jobs=jobs,
    )  # fmt: skip
    options = check_settings(IngestOptions, values, source="ingest")
    if list_only:
        _show(source, out, options, as_json, quiet)
    elif out is None:
        raise typer.BadParameter("give the folder for the cases with -o, or only look with --list")
    else:
        make_cases(source, out, options, quiet)


def make_cases(source: Path, out: Path, options: "IngestOptions", quiet: bool) -> None:
    """Ingest, and say what came of it: each case and where it came from, decisions, failures."""
    from radiogen.ingestion.ingest import ingest as ingest_source

    with progress_bar(quiet) as progress:
        made = ingest_source(source, out, options, progress)
    for kind, count in made.ignored.items():
        say(f"left out: {count} {kind}", quiet)
    for case in made.cases:
        for decision in case.decisions:
            say(f"{case.case_id}: {decision}", quiet)
        typer.echo(f"{case.case_id}\t{case.where}")
    for failure in made.failures:
        say(f"{failure.where}: {failure.reason} ({failure.hint})")
    finish(len(made.failures), out / "failures.csv")


def _show(source: Path, out: Path | None, options: "IngestOptions", as_json: bool, quiet: bool) -> None:
    from dataclasses import asdict

    from radiogen.ingestion.listing import list_sources

    with progress_bar(quiet) as progress:
        listing = list_sources(source, options, out, progress)
    if as_json:
        typer.echo(json.dumps(asdict(listing), indent=2, default=str))
        return
    for kind, count in listing.ignored.items():
        say(f"left out: {count} {kind}", quiet)
    for one in listing.candidates:
        spacing = " x ".join(f"{v:.2f}" for v in one.spacing_mm or ())
        size = (
            f"{one.slices} slices, {one.size[0]} x {one.size[1]}, {spacing} mm" if one.size else "volume file"
        )
        about = [size, one.kernel and f"kernel {one.kernel}", one.contrast and "contrast", one.outline]
        typer.echo(f"{'+' if one.taken else '-'} {one.case_id}  {one.series}")
        typer.echo(f"    {one.folder}")
        typer.echo(f"    {', '.join(part for part in about if part)}")
        typer.echo(f"    {'taken' if one.taken else 'not taken'}: {one.why}")


def split(
    cases: Annotated[Path, typer.Argument(help="Folder of cases.")],
    test: Annotated[float, typer.Option(help="Share of the patients that training must not see.")] = 0.3,
    seed: Seed = 0,
    existing: Annotated[
        Literal["skip", "overwrite"],
        typer.Option(help="Whether to draw anew where the cases have changed since."),
    ] = "skip",
) -> None:
    """Mark patients as train or test in manifest.csv, stratified by EGFR status and hospital."""
    from radiogen.cohorts.split import draw_split

    drawn = draw_split(cases, test, seed, existing)
    for same in drawn.twins:
        say(f"one scan under the ids {', '.join(same)}: taken for one patient")
    typer.echo("\n".join(f"{name}\t{count}" for name, count in drawn.counts.items()))
