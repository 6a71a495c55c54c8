"""Commands that need no data: demo and phantoms."""

from pathlib import Path
from typing import Annotated

import typer

from .console import print_message, progress_bar
from .options import Device, Existing, Quiet, Seed


def demo(
    out: Annotated[Path, typer.Option("--output", "-o", help="Folder of the run")],
    patients: Annotated[int, typer.Option(help="Number of phantom patients, at least 8")] = 40,
    seed: Seed = 0,
    device: Device = "auto",
    existing: Existing = "fail",
    quiet: Quiet = False,
) -> None:
    """Make a phantom cohort, run every step on it, and print the path of the report."""
    from radiogen.cohorts.demo import demo as run_demo
    from radiogen.runtime import keep_large_blocks

    keep_large_blocks()
    first_message = "a phantom cohort from CT to EGFR probability; about 3 minutes on 2 processors"
    with progress_bar(quiet, first_message) as progress:
        result = run_demo(out, patients, seed, device, existing, progress)
    for row in result.evaluation.summary:
        dice = f"Dice {row['dice_mean']} over {row['n']} patients, prompt {row['prompt']}"
        print_message(f"{dice}; the box filled would have {row['floor_box_mean']}", quiet)
    if result.egfr is None:
        print_message("too few patients for an EGFR classifier; take --patients 40", quiet)
    else:
        auc = result.egfr.auc
        print_message(f"EGFR AUC out of fold {auc.value:.2f} ({auc.low:.2f} to {auc.high:.2f})", quiet)
    typer.echo(result.page)


def phantoms(
    out: Annotated[Path, typer.Option("--output", "-o", help="Folder for dicom/ and clinical.csv")],
    patients: Annotated[
        int, typer.Option(help="Number of patients; from 4 on, some have faulty data", min=1)
    ] = 36,
    spacing: Annotated[str, typer.Option(help="Voxel spacing as x,y,z in mm")] = "3,3,5",
    first: Annotated[int, typer.Option(help="Number of the first patient", min=1)] = 1,
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Make a phantom cohort: DICOM CTs with outlines and a clinical table, to try things on."""
    from radiogen.config import parse_numbers
    from radiogen.phantoms.chest import ChestSize
    from radiogen.phantoms.cohort import ensure_phantoms

    x, y, z = parse_numbers(spacing, 3, "--spacing")
    with progress_bar(quiet) as progress:
        folder = ensure_phantoms(out, patients, seed, ChestSize.of_spacing((x, y, z)), first, progress)
    typer.echo(folder)
