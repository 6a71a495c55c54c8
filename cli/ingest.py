"""Commands that make and divide cases: ingest, split."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from .console import exit_if_failed, print_message, progress_bar
from .options import Existing, Quiet, Seed, advanced

if TYPE_CHECKING:
    from radiogen.ingestion.listing import ListedSeries, Listing
    from radiogen.ingestion.options import IngestOptions

RefuseOrResample = Literal["refuse", "resample"]


def ingest(
    source: Annotated[
        Path,
        typer.Argument(help="Folder or .zip of DICOM, volume file (NIfTI, NRRD, MHA), or folder of them"),
    ],
    out: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for the cases and manifest.csv")
    ] = None,
    list_only: Annotated[
        bool,
        typer.Option("--list", help="List the CT series, which ones would be taken and why; write nothing"),
    ] = False,
    as_json: Annotated[bool, advanced("--json", help="Print the list of --list as JSON")] = False,
    outline: Annotated[
        Path | None,
        typer.Option(help="RTSTRUCT, DICOM SEG, LIDC XML or mask; default: the outlines found in the source"),
    ] = None,
    clinical: Annotated[Path | None, typer.Option(help="Clinical table with EGFR status")] = None,
    clinical_mapping: Annotated[
        Path | None, advanced(help="YAML that names the columns of the clinical table")
    ] = None,
    cohort: Annotated[
        str | None, typer.Option(help="Cohort whose rules apply, by name or by its .yaml card")
    ] = None,
    id_from: Annotated[
        Literal["hash", "patient-id"], typer.Option(help="Case ids: hashes, or the PatientID as it is")
    ] = "hash",
    patient_pattern: Annotated[
        str | None,
        advanced(help="Pattern of the names of volume files whose first group is the patient: '(.+)_R_\\d+'"),
    ] = None,
    roi: Annotated[
        str | None, typer.Option(help="Name or pattern of the tumour's ROI in an RTSTRUCT")
    ] = None,
    segment: Annotated[
        str | None, typer.Option(help="Segment of a DICOM SEG: its name, its number or largest")
    ] = None,
    agreement: Annotated[
        float, advanced(help="Share of the LIDC readers who must have outlined a voxel")
    ] = 0.5,
    series: Annotated[str | None, typer.Option(help="SeriesInstanceUID to take, as --list shows it")] = None,
    series_rule: Annotated[
        Literal["most-slices", "thinnest", "thickest"] | None,
        advanced(help="Choice among several series; default: the outlined one, else most slices"),
    ] = None,
    kernel: Annotated[str | None, advanced(help="Pattern of the convolution kernel to take")] = None,
    contrast: Annotated[
        Literal["yes", "no"] | None, advanced(help="Only series with, or without, contrast medium")
    ] = None,
    gaps: Annotated[
        RefuseOrResample, advanced(help="If slices are uneven or single ones are missing: refuse or resample")
    ] = "refuse",
    tilt: Annotated[
        RefuseOrResample, advanced(help="If the gantry was tilted: refuse or resample")
    ] = "refuse",
    keep_dates: Annotated[
        bool, advanced("--keep-dates", help="Keep the date of the scan; default: its year only")
    ] = False,
    lungs: Annotated[
        Literal["threshold", "lungmask", "whole"],
        typer.Option(help="Lung segmentation: threshold, lungmask, or whole for a crop round a lesion"),
    ] = "threshold",
    existing: Existing = "skip",
    jobs: Annotated[int, typer.Option(help="Number of cases prepared in parallel", min=1)] = 1,
    quiet: Quiet = False,
) -> None:
    """Turn scans and outlines into checked case folders; prints each case and where it came from."""
    from radiogen.config import check_settings
    from radiogen.ingestion.options import IngestOptions

    values = dict(
        outline=outline, clinical=clinical, clinical_mapping=clinical_mapping, cohort=cohort,
        id_from=id_from, patient_pattern=patient_pattern, roi=roi, segment=segment, agreement=agreement,
        series=series, series_rule=series_rule, kernel=kernel, contrast=contrast, gaps=gaps, tilt=tilt,
        keep_dates=keep_dates, lungs=lungs, existing=existing, jobs=jobs,
    )  # fmt: skip
    options = check_settings(IngestOptions, values, source="ingest")
    if list_only:
        _list_series(source, out, options, as_json, quiet)
    elif out is None:
        raise typer.BadParameter("give the folder for the cases with -o, or only list the series with --list")
    else:
        ingest_and_print(source, out, options, quiet)


def ingest_and_print(source: Path, out: Path, options: "IngestOptions", quiet: bool) -> None:
    """Ingest, and print each case, where it came from, what was decided and what failed."""
    from radiogen.ingestion.ingest import ingest as ingest_source

    with progress_bar(quiet) as progress:
        report = ingest_source(source, out, options, progress)
    for kind, count in report.ignored.items():
        print_message(f"left out: {count} {kind}", quiet)
    for case in report.cases:
        for decision in case.decisions:
            print_message(f"{case.case_id}: {decision}", quiet)
        typer.echo(f"{case.case_id}\t{case.where}")
    failures = [(failure.where, failure.reason, failure.hint) for failure in report.failures]
    exit_if_failed(failures, out / "failures.csv")


def _list_series(
    source: Path, out: Path | None, options: "IngestOptions", as_json: bool, quiet: bool
) -> None:
    from dataclasses import asdict

    from radiogen.ingestion.listing import list_sources

    with progress_bar(quiet) as progress:
        listing = list_sources(source, options, out, progress)
    if as_json:
        typer.echo(json.dumps(asdict(listing), indent=2, default=str))
        return
    for kind, count in listing.ignored.items():
        print_message(f"left out: {count} {kind}", quiet)
    for line in _listing_lines(listing):
        typer.echo(line)


def _listing_lines(listing: "Listing") -> Iterator[str]:
    for series in listing.candidates:
        facts = [_size_of(series)]
        if series.kernel:
            facts.append(f"kernel {series.kernel}")
        if series.contrast:
            facts.append("contrast")
        if series.outline:
            facts.append(series.outline)
        yield f"{'+' if series.taken else '-'} {series.case_id}  {series.series}"
        yield f"    {series.folder}"
        yield f"    {', '.join(facts)}"
        yield f"    {'taken' if series.taken else 'not taken'}: {series.why}"


def _size_of(series: "ListedSeries") -> str:
    if not series.size:
        return "volume file"
    spacing = " x ".join(f"{mm:.2f}" for mm in series.spacing_mm or ())
    return f"{series.slices} slices, {series.size[0]} x {series.size[1]}, {spacing} mm"


def split(
    cases: Annotated[Path, typer.Argument(help="Folder of cases")],
    test: Annotated[float, typer.Option(help="Share of the patients kept for testing")] = 0.3,
    seed: Seed = 0,
    existing: Annotated[
        Literal["skip", "overwrite"],
        typer.Option(help="If the cases have changed since the last split: skip or overwrite it"),
    ] = "skip",
) -> None:
    """Mark patients as train or test in manifest.csv, stratified by EGFR status and hospital."""
    from radiogen.cohorts.split import draw_split

    drawn = draw_split(cases, test, seed, existing)
    for ids in drawn.twins:
        print_message(f"one scan under the ids {', '.join(ids)}: taken for one patient")
    typer.echo("\n".join(f"{name}\t{count}" for name, count in drawn.counts.items()))
