"""Options that several commands share."""

from pathlib import Path
from typing import Annotated, Literal

import typer

Existing = Annotated[
    Literal["skip", "overwrite", "fail"], typer.Option(help="What happens to results that are there.")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
Seed = Annotated[int, typer.Option(help="Seed of everything drawn by chance.", min=0)]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors and results.")]
AsJson = Annotated[bool, typer.Option("--json", help="Answer as JSON.")]
Preset = Annotated[Literal["paper", "modern", "small"], typer.Option(help="Settings of the network.")]
Config = Annotated[Path | None, typer.Option(help="YAML laid over the preset.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", help="key=value over the preset, such as training.epochs=50."),
]
ModelFolder = Annotated[Path, typer.Option("--model", "-m", help="Model folder of radiogen train.")]
