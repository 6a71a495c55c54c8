"""Options that several commands share."""

from pathlib import Path
from typing import Annotated, Literal

import typer

Existing = Annotated[
    Literal["skip", "overwrite", "fail"], typer.Option(help="What happens to results that are there.")
]
Cases = Annotated[Path, typer.Argument(help="Folder of cases, made by radiogen ingest.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
Engine = Annotated[
    Literal["torch", "compile", "openvino"],
    typer.Option(help="What computes on a CPU; compile and openvino first prepare, up to a minute."),
]
Seed = Annotated[int, typer.Option(help="Seed of everything drawn by chance.", min=0)]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors and results.")]
AsJson = Annotated[bool, typer.Option("--json", help="Answer as JSON.")]
Preset = Annotated[Literal["paper", "modern", "small"], typer.Option(help="Settings of the network.")]
Config = Annotated[Path | None, typer.Option(help="YAML laid over the preset.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", help="key=value over the preset, such as training.epochs=50."),
]
PriorName = Literal["auto", "lungs", "box", "mask", "none"]
Prior = Annotated[
    PriorName | None,
    typer.Option(help="Where to look; else box if one is given, auto if the model can, or lungs."),
]
Box = Annotated[str | None, typer.Option(help="x0,y0,z0,x1,y1,z1 in LPS millimetres.")]
BoxFrom = Annotated[Path | None, typer.Option(help="Outline whose box (or mask) is the prior.")]
Roi = Annotated[str | None, typer.Option(help="Pattern of the ROI of that outline.")]
ModelFolder = Annotated[Path, typer.Option("--model", "-m", help="Model folder of radiogen train.")]
Models = Annotated[
    list[Path] | None,
    typer.Option(
        "--model", "-m", help="Model or ensemble folder; several are averaged. Else the shipped one."
    ),
]
SegmentOverrides = Annotated[
    list[str] | None, typer.Option("--set", help="key=value, such as auto.least_score=0.6 or batch=4.")
]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Say how long it will take.")]
