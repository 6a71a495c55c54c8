"""The command extract-features."""

from pathlib import Path
from typing import Annotated

import typer

from .console import exit_if_failed, progress_bar
from .options import Device, Existing, ModelFolder, Quiet, Seed, Split, advanced

GPU_BATCH = 8  # windows at once on a GPU; a CPU gains nothing from more than one


def extract_features(
    cases: Annotated[Path, typer.Argument(help="Folder of cases, made by radiogen ingest")],
    out: Annotated[
        Path,
        typer.Option("--output", "-o", help="Feature table to write, CSV or Parquet, one row per lesion"),
    ],
    model: ModelFolder,
    masks: Annotated[
        Path | None, typer.Option(help="Output of radiogen segment; default: the outlines of the cases")
    ] = None,
    split: Split = None,
    level: Annotated[
        list[str] | None,
        advanced(help="Stage of the network, repeatable; default: encoder2, decoder3, decoder2"),
    ] = None,
    ring: Annotated[
        str | None,
        typer.Option(
            help="Also features of the lung around the lesion: 2,10 for 2 to 10 mm from its surface"
        ),
    ] = None,
    lungs: Annotated[bool, advanced("--lungs", help="Also features of both lungs")] = False,
    outside: Annotated[
        bool, advanced(help="Also features of lung far from the lesion, as a negative control")
    ] = True,
    radiomics: Annotated[bool, typer.Option("--radiomics", help="Also PyRadiomics features")] = False,
    radiomics_parameters: Annotated[
        Path | None, advanced(help="Parameter file of PyRadiomics; implies --radiomics")
    ] = None,
    perturb: Annotated[
        int, typer.Option(min=0, help="Number of repeats with perturbed masks, for the ICC of each feature")
    ] = 0,
    patches: Annotated[
        int, advanced(min=0, help="Number of patches per lesion, written to a table of their own")
    ] = 0,
    paper: Annotated[
        bool, typer.Option("--paper", help="The published features, of a model of the preset paper")
    ] = False,
    batch: Annotated[
        int | None, advanced(min=1, help=f"Number of windows at once; default: 1, on a GPU {GPU_BATCH}")
    ] = None,
    existing: Existing = "skip",
    seed: Seed = 0,
    device: Device = "auto",
    quiet: Quiet = False,
) -> None:
    """Compute deep, shape and intensity features of every lesion."""
    from radiogen.config import check_settings
    from radiogen.features.extract import extract_features as extract
    from radiogen.features.settings import FeatureOptions, parse_ring
    from radiogen.model.folder import load_model
    from radiogen.runtime import keep_large_blocks, pick_device

    keep_large_blocks()
    where = pick_device(device)
    values: dict[str, object] = dict(
        ring_mm=parse_ring(ring) if ring else None, lungs=lungs, outside=outside, paper=paper, split=split,
        radiomics=radiomics or radiomics_parameters is not None, radiomics_parameters=radiomics_parameters,
        perturb=perturb, patches=patches, seed=seed, existing=existing,
        batch=batch or (1 if where.type == "cpu" else GPU_BATCH),
    )  # fmt: skip
    if level:
        values["levels"] = tuple(level)
    options = check_settings(FeatureOptions, values, source="extract-features")
    loaded = load_model(model, where)
    with progress_bar(quiet) as progress:
        table = extract(cases, out, loaded, options, masks, progress)
    typer.echo(f"{out}\t{len(table.rows)} lesions\t{len(table.columns)} features")
    if table.stable is not None:
        typer.echo(f"{table.stable} of {len(table.columns)} features have an ICC of 0.75 or more")
    exit_if_failed(table.failures, out.with_name(f"{out.stem}.failures.csv"))
