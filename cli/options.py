"""Options that several commands share, and the panel of the help that holds the rarer ones."""

from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

ADVANCED = "Advanced"
advanced = partial(typer.Option, rich_help_panel=ADVANCED)  # an option of the second panel of --help

AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON")]
Box = Annotated[str | None, typer.Option(help="Box as x0,y0,z0,x1,y1,z1 in LPS millimetres")]
BoxFrom = Annotated[Path | None, typer.Option(help="Outline whose box (or mask) becomes the prior")]
Points = Annotated[
    list[str] | None,
    typer.Option("--point", help="Point in a lesion as x,y,z in LPS millimetres; repeatable"),
]
PointFrom = Annotated[Path | None, advanced(help="Outline of whose lesions a point each is taken")]
Cases = Annotated[Path, typer.Argument(help="Folder of cases, made by radiogen ingest")]
ClinicalMapping = Annotated[
    Path | None, typer.Option(help="YAML that names the columns of the clinical table")
]
Config = Annotated[Path | None, advanced(help="YAML file of settings, applied over the preset")]
Device = Annotated[str, typer.Option(help="Device: auto, cpu, cuda, cuda:N or mps")]
Existing = Annotated[
    Literal["skip", "overwrite", "fail"],
    typer.Option(help="If the output exists: skip, overwrite or fail"),
]
KeepPatient = Annotated[
    bool, advanced("--keep-patient", help="Copy the identity of the patient into DICOM output")
]
ModelFolder = Annotated[Path, typer.Option("--model", "-m", help="Model folder of radiogen train")]
Models = Annotated[
    list[Path] | None,
    typer.Option(
        "--model",
        "-m",
        help="Model or ensemble folder, repeatable: probabilities are averaged; default: the shipped model",
    ),
]
Overrides = Annotated[
    list[str] | None,
    advanced("--set", help="Set one setting, as key=value, such as training.epochs=50; repeatable"),
]
Preset = Annotated[Literal["paper", "modern", "small"], typer.Option(help="Preset of network and training")]
PriorName = Literal["auto", "lungs", "box", "points", "mask", "none"]
Prior = Annotated[
    PriorName | None,
    typer.Option(
        help="Attention prior; default: that of the box or point, else auto if the model can, else lungs"
    ),
]
Quiet = Annotated[bool, advanced("--quiet", "-q", help="Print errors and results only")]
Roi = Annotated[str | None, advanced(help="Name or pattern of the ROI in the outline of --box-from")]
Seed = Annotated[int, typer.Option(help="Seed of all random draws", min=0)]
Split = Annotated[str | None, typer.Option(help="Only the cases of this split")]
