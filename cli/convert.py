"""The command convert."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from .console import say
from .options import Quiet


def convert(
    source: Annotated[Path, typer.Argument(help="Mask: NIfTI, NRRD, MHA, DICOM SEG or RTSTRUCT.")],
    out: Annotated[
        Path, typer.Option("--output", "-o", help="File to write: .nii.gz, .nii, .nrrd, .mha or .dcm.")
    ],
    to: Annotated[
        Literal["nifti", "dicom-seg", "rtstruct"] | None,
        typer.Option(help="The format; needed for .dcm, else the ending says it."),
    ] = None,
    reference: Annotated[
        Path | None, typer.Option(help="Its CT: a case, a volume file, or (for DICOM) the DICOM folder.")
    ] = None,
    roi: Annotated[str | None, typer.Option(help="Only ROIs of this name or pattern.")] = None,
    segment: Annotated[
        str | None, typer.Option(help="Only segments of this name, pattern or number.")
    ] = None,
    series: Annotated[str | None, typer.Option(help="SeriesInstanceUID of the CT.")] = None,
    made_by: Annotated[
        str, typer.Option(help="Program that made the mask, for DICOM; else it counts as drawn by hand.")
    ] = "",
    code: Annotated[
        Literal["neoplasm", "tissue"] | None,
        typer.Option(
            help="What a SEG calls them; else neoplasm for a mask file, tissue for other structures."
        ),
    ] = None,
    keep_patient: Annotated[
        bool, typer.Option("--keep-patient", help="Copy the patient's identity into DICOM output.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Convert a mask to another format; reads it back and says how well it is found."""
    from radiogen.ingestion.convert import convert as convert_mask

    done = convert_mask(source, out, to, reference, roi, segment, series, made_by, keep_patient, code)
    for decision in done.decisions:
        say(decision, quiet)
    names = ", ".join(f"{label} {name}" for label, name in done.names.items())
    say(f"{done.reader} finds the same {done.voxels} voxels, centroids within {done.centre_mm:.3f} mm", quiet)
    typer.echo(f"{out}\t{names}")
