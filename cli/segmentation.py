"""The command segment."""

from pathlib import Path
from typing import Annotated

import typer

from .console import finish, progress_bar, say
from .options import (
    Box,
    BoxFrom,
    Device,
    Engine,
    Existing,
    Models,
    Prior,
    Quiet,
    Roi,
    SegmentOverrides,
    Verbose,
)


def segment(
    source: Annotated[Path, typer.Argument(help="Cases, a DICOM folder, or a NIfTI, NRRD or MHA file.")],
    out: Annotated[Path, typer.Option("--output", "-o", help="Folder for masks, tables, pictures.")],
    model: Models = None,
    prior: Prior = None,
    box: Box = None,
    box_from: BoxFrom = None,
    roi: Roi = None,
    split: Annotated[str | None, typer.Option(help="Only cases of this split.")] = None,
    smallest_ml: Annotated[float, typer.Option(help="Smaller parts are left out.", min=0)] = 0.03,
    tta: Annotated[
        bool, typer.Option("--tta", help="Also look at the mirror images: 8 times as long.")
    ] = False,
    engine: Engine = "torch",
    save_probabilities: Annotated[
        bool, typer.Option("--save-probabilities", help="Write lesion_probability.nii.gz, 0 to 1.")
    ] = False,
    formats: Annotated[
        str, typer.Option("--format", help="nifti and, with commas, dicom-seg, rtstruct, sr beside it.")
    ] = "nifti",
    source_dicom: Annotated[
        Path | None,
        typer.Option("--source", help="DICOM the cases were ingested from, which DICOM output refers to."),
    ] = None,
    keep_patient: Annotated[
        bool, typer.Option("--keep-patient", help="Copy the patient's identity into DICOM output.")
    ] = False,
    picture: Annotated[bool, typer.Option(help="Draw lesion.png.")] = True,
    overrides: SegmentOverrides = None,
    device: Device = "auto",
    existing: Existing = "skip",
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Segment lesions on the scanner's grid; prints each lesion with its volume, diameter and score."""
    from radiogen.config import load_settings
    from radiogen.model.ensemble import load_models, starter_model
    from radiogen.runtime import keep_large_blocks, pick_device
    from radiogen.segmentation.formats import parse_formats
    from radiogen.segmentation.segment import SegmentOptions
    from radiogen.segmentation.segment import segment as segment_source
    from radiogen.segmentation.volume import SegmentationSettings

    given = {"smallest_ml": smallest_ml, "tta": tta, "engine": engine}
    options = SegmentOptions(
        prior=prior, box=box, outline=box_from, roi=roi, split=split,
        how=load_settings(SegmentationSettings, given, overrides=overrides or ()),
        save_probabilities=save_probabilities, picture=picture, existing=existing,
        formats=parse_formats(formats), dicom=source_dicom, keep_patient=keep_patient,
    )  # fmt: skip
    keep_large_blocks()
    folders = model or [starter_model()]
    loaded = load_models(folders, pick_device(device))
    opening = "" if model else f"no --model given: the shipped model {folders[0].name} is used"
    with progress_bar(quiet, opening) as progress:
        result = segment_source(
            source, out, loaded, options, progress,
            lambda effort: say(str(effort), quiet or not (verbose or effort.is_long)),
        )  # fmt: skip
    for case in result.done:
        for decision in case.decisions:
            say(f"{case.case_id}: {decision}", quiet)
        for lesion, row in zip(case.lesions, case.rows, strict=True):
            place = ", ".join(f"{mm:.0f}" for mm in lesion.center_mm)
            size = f"{lesion.volume_ml:.2f} ml\t{lesion.longest_diameter_mm:.0f} mm"
            about = f"score {float(row['score']):.2f}\t{row['origin']}"
            typer.echo(f"{case.case_id}\tlesion {lesion.label}\t{size}\tat {place}\t{about}")
        if not case.lesions:
            typer.echo(f"{case.case_id}\tno lesion")
    for case_id, reason, hint in result.failures:
        say(f"{case_id}: {reason} ({hint})")
    finish(len(result.failures), out / "failures.csv")
