"""The command segment."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from .console import exit_if_failed, print_message, progress_bar
from .options import (
    Box,
    BoxFrom,
    Device,
    Existing,
    KeepPatient,
    Models,
    Overrides,
    PointFrom,
    Points,
    Prior,
    Quiet,
    Roi,
    Split,
    advanced,
)

if TYPE_CHECKING:
    from radiogen.segmentation.segment import SegmentedCase


def segment(
    source: Annotated[
        Path, typer.Argument(help="Case, folder of cases, DICOM folder, or NIfTI, NRRD or MHA file")
    ],
    out: Annotated[Path, typer.Option("--output", "-o", help="Folder for masks, tables and pictures")],
    model: Models = None,
    prior: Prior = None,
    box: Box = None,
    point: Points = None,
    box_from: BoxFrom = None,
    point_from: PointFrom = None,
    roi: Roi = None,
    split: Split = None,
    smallest_ml: Annotated[float, advanced(help="Smallest lesion that is kept, in ml", min=0)] = 0.03,
    tta: Annotated[
        bool,
        typer.Option("--tta", help="Test-time augmentation: average over mirror images, 8 times as long"),
    ] = False,
    engine: Annotated[
        Literal["torch", "compile", "openvino"],
        advanced(help="Inference engine on a CPU; compile and openvino first need up to a minute"),
    ] = "torch",
    save_probabilities: Annotated[
        bool, typer.Option("--save-probabilities", help="Write lesion_probability.nii.gz, values 0 to 1")
    ] = False,
    formats: Annotated[
        str,
        typer.Option("--format", help="Output formats, comma-separated: nifti, dicom-seg, rtstruct, sr"),
    ] = "nifti",
    source_dicom: Annotated[
        Path | None,
        advanced("--source", help="DICOM the cases were ingested from; DICOM output refers to it"),
    ] = None,
    keep_patient: KeepPatient = False,
    picture: Annotated[bool, advanced(help="Draw lesion.png")] = True,
    overrides: Overrides = None,
    device: Device = "auto",
    existing: Existing = "skip",
    verbose: Annotated[bool, advanced("--verbose", "-v", help="Print how long it will take")] = False,
    quiet: Quiet = False,
) -> None:
    """Segment lesions on the scanner's grid; prints each lesion with its volume, diameter and score.

    Settings for --set: such as auto.least_score=0.6 or batch=4.
    """
    from radiogen.config import load_settings
    from radiogen.model.folder import load_models, starter_model
    from radiogen.runtime import keep_large_blocks, pick_device
    from radiogen.segmentation.formats import parse_formats
    from radiogen.segmentation.segment import SegmentOptions
    from radiogen.segmentation.segment import segment as segment_source
    from radiogen.segmentation.volume import SegmentationSettings

    given = {"smallest_ml": smallest_ml, "tta": tta, "engine": engine}
    options = SegmentOptions(
        prior=prior, box=box, points=tuple(point or ()), outline=box_from, point_outline=point_from,
        roi=roi, split=split,
        how=load_settings(SegmentationSettings, given, overrides=overrides or ()),
        save_probabilities=save_probabilities, picture=picture, existing=existing,
        formats=parse_formats(formats), dicom=source_dicom, keep_patient=keep_patient,
    )  # fmt: skip
    keep_large_blocks()
    folders = model or [starter_model()]
    loaded = load_models(folders, pick_device(device))
    first_message = "" if model else f"no --model given: the shipped model {folders[0].name} is used"
    with progress_bar(quiet, first_message) as progress:
        report = segment_source(
            source, out, loaded, options, progress,
            lambda effort: print_message(str(effort), quiet or not (verbose or effort.is_long)),
        )  # fmt: skip
    for case in report.done:
        for decision in case.decisions:
            print_message(f"{case.case_id}: {decision}", quiet)
        _print_lesions(case)
    exit_if_failed(report.failures, out / "failures.csv")


def _print_lesions(case: "SegmentedCase") -> None:
    for lesion, row in zip(case.lesions, case.rows, strict=True):
        center = ", ".join(f"{mm:.0f}" for mm in lesion.center_mm)
        size = f"{lesion.volume_ml:.2f} ml\t{lesion.longest_diameter_mm:.0f} mm"
        score = f"score {float(row['score']):.2f}\t{row['origin']}"
        typer.echo(f"{case.case_id}\tlesion {lesion.label}\t{size}\tat {center}\t{score}")
    if not case.lesions:
        typer.echo(f"{case.case_id}\tno lesion")
