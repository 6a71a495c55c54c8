"""The command segment."""

from pathlib import Path
from typing import Annotated

import typer

from .console import finish, progress, say
from .options import (
    Box,
    BoxFrom,
    Device,
    Existing,
    ModelFolder,
    Prior,
    Quiet,
    Roi,
    chosen_prior,
)


def segment(
    source: Annotated[Path, typer.Argument(help="Cases, a DICOM folder, or a NIfTI, NRRD or MHA file.")],
    out: Annotated[Path, typer.Option("--output", "-o", help="Folder for masks, tables, pictures.")],
    model: ModelFolder,
    prior: Prior = None,
    box: Box = None,
    box_from: BoxFrom = None,
    roi: Roi = None,
    split: Annotated[str | None, typer.Option(help="Only cases of this split.")] = None,
    smallest_ml: Annotated[float, typer.Option(help="Smaller parts are left out.", min=0)] = 0.03,
    picture: Annotated[bool, typer.Option(help="Draw lesion.png.")] = True,
    device: Device = "auto",
    existing: Existing = "skip",
    quiet: Quiet = False,
) -> None:
    """Segment lesions on the scanner's grid; prints each lesion with its volume and diameter."""
    from radiogen.engines.model_folder import load_model
    from radiogen.engines.segment import SegmentOptions
    from radiogen.engines.segment import segment as segment_source
    from radiogen.runtime import keep_large_blocks, pick_device

    options = SegmentOptions(
        prior=chosen_prior(prior, box, box_from), box=box, outline=box_from, roi=roi, split=split,
        smallest_ml=smallest_ml, picture=picture, existing=existing,
    )  # fmt: skip
    keep_large_blocks()
    loaded = load_model(model, pick_device(device))
    with progress(quiet) as tick:
        result = segment_source(source, out, loaded, options, tick)
    for case in result.done:
        for decision in case.decisions:
            say(f"{case.case_id}: {decision}", quiet)
        for lesion in case.lesions:
            place = ", ".join(f"{mm:.0f}" for mm in lesion.center_mm)
            size = f"{lesion.volume_ml:.2f} ml\t{lesion.longest_diameter_mm:.0f} mm"
            typer.echo(f"{case.case_id}\tlesion {lesion.label}\t{size}\tat {place}")
        if not case.lesions:
            typer.echo(f"{case.case_id}\tno lesion")
    for case_id, reason, way_out in result.failures:
        say(f"{case_id}: {reason} ({way_out})")
    finish(len(result.failures), out / "failures.csv")
