"""Commands that hand masks and cases to other programs: convert, export."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from .console import print_message
from .options import Cases, KeepPatient, Quiet, Seed


def convert(
    source: Annotated[Path, typer.Argument(help="Mask: NIfTI, NRRD, MHA, DICOM SEG or RTSTRUCT")],
    out: Annotated[
        Path, typer.Option("--output", "-o", help="File to write: .nii.gz, .nii, .nrrd, .mha or .dcm")
    ],
    to: Annotated[
        Literal["nifti", "dicom-seg", "rtstruct"] | None,
        typer.Option(help="Output format; default: from the file name, needed for .dcm"),
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option(help="CT of the mask: case, volume file, or (for DICOM output) DICOM folder"),
    ] = None,
    roi: Annotated[str | None, typer.Option(help="Only ROIs of this name or pattern")] = None,
    segment: Annotated[str | None, typer.Option(help="Only segments of this name, pattern or number")] = None,
    series: Annotated[str | None, typer.Option(help="SeriesInstanceUID of the CT")] = None,
    made_by: Annotated[
        str, typer.Option(help="Program that made the mask, for DICOM output; default: drawn by hand")
    ] = "",
    code: Annotated[
        Literal["neoplasm", "tissue"] | None,
        typer.Option(
            help="Code of the segments in a DICOM SEG; default: neoplasm for a mask file, else tissue"
        ),
    ] = None,
    keep_patient: KeepPatient = False,
    quiet: Quiet = False,
) -> None:
    """Convert a mask to another format, read it back and compare."""
    from radiogen.ingestion.convert import convert as convert_mask

    result = convert_mask(source, out, to, reference, roi, segment, series, made_by, keep_patient, code)
    for decision in result.decisions:
        print_message(decision, quiet)
    names = ", ".join(f"{label} {name}" for label, name in result.names.items())
    print_message(
        f"{result.reader} finds the same {result.voxels} voxels, centroids within {result.centre_mm:.3f} mm",
        quiet,
    )
    typer.echo(f"{out}\t{names}")


def export(
    cases: Cases,
    out: Annotated[Path, typer.Option("--output", "-o", help="New folder")],
    to: Annotated[
        Literal["monai-datalist", "nnunet", "bids-like"],
        typer.Option("--to", help="MONAI data list, raw data set of nnU-Net v2, or BIDS-like folders"),
    ],
    folds: Annotated[
        int, typer.Option(min=0, help="Number of folds, the same as of radiogen train --folds; 0: none")
    ] = 5,
    seed: Seed = 0,
    copy_files: Annotated[bool, typer.Option("--copy", help="Copy the volumes; default: hard links")] = False,
    dataset_id: Annotated[int, typer.Option(min=1, max=999, help="Id of the nnU-Net data set")] = 501,
    quiet: Quiet = False,
) -> None:
    """Export cases for MONAI, nnU-Net or readers of BIDS, with the folds that radiogen trains on."""
    from radiogen.cohorts.exports import ExportOptions, export_cases

    options = ExportOptions(folds=folds, seed=seed, copy_files=copy_files, dataset_id=dataset_id)
    exported = export_cases(cases, out, to, options)
    print_message(f"{exported.train} cases to train on, {exported.test} to test on", quiet)
    if exported.without_outline:
        names = ", ".join(exported.without_outline)
        print_message(f"without an outline, among the latter: {names}", quiet)
    for path in exported.files:
        typer.echo(path)
