"""The command extract-features."""

from pathlib import Path
from typing import Annotated

import typer

from .console import finish, progress_bar, say
from .options import Device, Existing, ModelFolder, Quiet, Seed


def extract_features(
    cases: Annotated[Path, typer.Argument(help="Folder of cases, made by radiogen ingest.")],
    out: Annotated[Path, typer.Option("--output", "-o", help="CSV or Parquet file, a row a lesion.")],
    model: ModelFolder,
    masks: Annotated[Path | None, typer.Option(help="Output of radiogen segment; else the outlines.")] = None,
    split: Annotated[str | None, typer.Option(help="Only cases of this split.")] = None,
    level: Annotated[
        list[str] | None,
        typer.Option(help="Stage of the network, repeatable; else encoder2, decoder3, decoder2."),
    ] = None,
    ring: Annotated[
        str | None, typer.Option(help="Lung round the lesion too, such as 2,10 mm from its surface.")
    ] = None,
    lungs: Annotated[bool, typer.Option("--lungs", help="Pool over both lungs too.")] = False,
    outside: Annotated[
        bool, typer.Option(help="The same of lung far from the lesion, as a negative control.")
    ] = True,
    radiomics: Annotated[bool, typer.Option("--radiomics", help="PyRadiomics features too.")] = False,
    radiomics_parameters: Annotated[
        Path | None, typer.Option(help="Parameter file of PyRadiomics; implies --radiomics.")
    ] = None,
    perturb: Annotated[int, typer.Option(min=0, help="Repeats with jittered and eroded masks: ICC.")] = 0,
    patches: Annotated[
        int, typer.Option(min=0, help="Cut each lesion into so many, in a table of their own.")
    ] = 0,
    paper: Annotated[bool, typer.Option("--paper", help="The published features (preset paper).")] = False,
    batch: Annotated[int | None, typer.Option(min=1, help="Windows at once; else 1, on a GPU 8.")] = None,
    existing: Existing = "skip",
    seed: Seed = 0,
    device: Device = "auto",
    quiet: Quiet = False,
) -> None:
    """Deep, shape and intensity features of every lesion."""
    from radiogen.config import check_settings
    from radiogen.features.extract import extract_features as extract
    from radiogen.features.settings import FeatureOptions, parse_ring
    from radiogen.model.folder import load_model
    from radiogen.runtime import keep_large_blocks, pick_device

    keep_large_blocks()
    where = pick_device(device)
    values = dict(
        ring_mm=parse_ring(ring) if ring else None, lungs=lungs, outside=outside, paper=paper, split=split,
        radiomics=radiomics or radiomics_parameters is not None, radiomics_parameters=radiomics_parameters,
        perturb=perturb, patches=patches, seed=seed,
        batch=batch or (1 if where.type == "cpu" else 8), existing=existing,
        **({"levels": tuple(level)} if level else {}),
    )  # fmt: skip
    options = check_settings(FeatureOptions, values, source="extract-features")
    loaded = load_model(model, where)
    with progress_bar(quiet) as progress:
        table = extract(cases, out, loaded, options, masks, progress)
    for case_id, reason, hint in table.failures:
        say(f"{case_id}: {reason} ({hint})")
    typer.echo(f"{out}\t{len(table.rows)} lesions\t{len(table.columns)} features")
    if table.stable is not None:
        typer.echo(f"{table.stable} of {len(table.columns)} features have an ICC of 0.75 or more")
    finish(len(table.failures), out.with_name(f"{out.stem}.failures.csv"))
