"""The commands train-egfr and classify-egfr."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from .console import progress_bar, say
from .options import Box, BoxFrom, Device, Prior, Quiet, Roi, Seed

if TYPE_CHECKING:
    from radiogen.egfr.settings import EgfrSettings

Clinical = Annotated[Path | None, typer.Option(help="Clinical table, or the manifest.csv of the cases.")]
Mapping = Annotated[Path | None, typer.Option(help="YAML that names its columns.")]


def train_egfr(
    out: Annotated[
        Path, typer.Option("--output", "-o", help="Folder of the EGFR model; with --audit a JSON file.")
    ],
    features: Annotated[Path | None, typer.Option(help="Feature table; without one, clinical only.")] = None,
    clinical: Clinical = None,
    clinical_mapping: Mapping = None,
    classifier: Annotated[
        Literal["qda", "tree", "forest", "svc", "logistic", "elasticnet", "boosting", "mlp", "attention"],
        typer.Option(help="Classifier."),
    ] = "logistic",
    reduction: Annotated[
        Literal["lda", "paper", "pca", "pls", "none"] | None,
        typer.Option(help="Else the usual one."),
    ] = None,
    inputs: Annotated[
        Literal["features", "clinical", "clinical+features"] | None,
        typer.Option(help="What the model looks at; else features, without them clinical."),
    ] = None,
    folds: Annotated[int, typer.Option(min=2, help="Folds of patients; each is held out once.")] = 5,
    repeats: Annotated[int, typer.Option(min=1, help="Times that the folds are drawn anew.")] = 5,
    permutations: Annotated[int, typer.Option(min=0, help="Shuffled labels for the p-value.")] = 200,
    id_column: Annotated[str | None, typer.Option(help="Id column of a foreign table.")] = None,
    label_column: Annotated[str | None, typer.Option(help="Label column of a foreign table.")] = None,
    positive: Annotated[str, typer.Option(help="The label that is sought.")] = "mutant",
    lesion: Annotated[
        Literal["largest", "mean", "bag"],
        typer.Option(help="What stands for a patient of several lesions; bag: all, for attention."),
    ] = "largest",
    stable: Annotated[
        float,
        typer.Option(min=0, max=1, help="Leave out features below this ICC (extract with --perturb)."),
    ] = 0.0,
    harmonise: Annotated[
        bool, typer.Option("--harmonise", help="ComBat by hospital, learned inside the folds.")
    ] = False,
    external: Annotated[
        Path | None, typer.Option(help="Feature table of a second cohort; for a clinical model its table.")
    ] = None,
    external_clinical: Annotated[Path | None, typer.Option(help="Clinical table of it.")] = None,
    audit: Annotated[bool, typer.Option("--audit", help="Look at the tables and fit nothing.")] = False,
    allow_overlap: Annotated[
        bool, typer.Option(help="Accept patients the segmentation has seen; marks the report.")
    ] = False,
    jobs: Annotated[int, typer.Option(help="Processes; -1 for all processors.")] = 1,
    seed: Seed = 0,
    device: Device = "cpu",
    quiet: Quiet = False,
) -> None:
    """Train a classifier of EGFR status and judge it out of fold beside its baselines."""
    from radiogen.config import check_settings
    from radiogen.egfr.settings import EgfrSettings
    from radiogen.egfr.train import ExternalCohort
    from radiogen.egfr.train import train_egfr as train

    inputs = inputs or ("features" if features else "clinical")
    values = dict(
        classifier=classifier, reduction=reduction, inputs=inputs, folds=folds, repeats=repeats,
        permutations=permutations, lesion=lesion, stable=stable, harmonise=harmonise, id_column=id_column,
        label_column=label_column, positive=positive,
        allow_overlap=allow_overlap, jobs=jobs, seed=seed, device=device, clinical_mapping=clinical_mapping,
    )  # fmt: skip
    settings = check_settings(EgfrSettings, values, source="train-egfr")
    if audit:
        _audit(features, out, clinical, settings)
        return
    second = None
    if external or external_clinical:
        second = ExternalCohort(
            external if features else None, external_clinical or (None if features else external)
        )
    with progress_bar(quiet) as progress:
        trained = train(features, out, clinical, settings, progress, second)
    for note in trained.notes:
        say(note, quiet)
    typer.echo(f"patients\t{trained.patients}, {trained.positives} {positive}")
    typer.echo(f"AUC out of fold\t{_interval(trained.auc)}")
    for name, judged in trained.validation["candidates"].items():
        auc = judged["auc"]
        typer.echo(f"  {name}\t{auc['value']:.3f} ({auc['low']:.3f} to {auc['high']:.3f})")
    if trained.increment:
        typer.echo(f"increment over clinical\t{_interval(trained.increment)}")
    if trained.permutation_p is not None:
        typer.echo(f"p by shuffled labels\t{trained.permutation_p:.3f}")
    if trained.external:
        typer.echo(f"AUC on the second cohort\t{_interval(trained.external.auc)}")
    typer.echo(out)


def _audit(features: Path | None, out: Path, clinical: Path | None, settings: "EgfrSettings") -> None:
    from radiogen.egfr.audit import audit_egfr, audit_lines

    place = out if out.suffix == ".json" else out / "audit.json"
    found = audit_egfr(features, place, clinical, settings)
    for line in audit_lines(found.findings):
        typer.echo(line)
    typer.echo(place)


def _interval(estimate: object) -> str:
    low, value, high = (float(getattr(estimate, name)) for name in ("low", "value", "high"))
    return f"{value:.3f} (95 % interval {low:.3f} to {high:.3f})"


def classify_egfr(
    source: Annotated[Path, typer.Argument(help="Feature table, case folder, or scan.")],
    out: Annotated[Path, typer.Option("--output", "-o", help="predictions.csv; for scans a folder.")],
    egfr: Annotated[Path, typer.Option("--model", "-m", help="Folder of radiogen train-egfr.")],
    segmentation: Annotated[
        Path | None, typer.Option(help="Model folder of radiogen train; for cases and scans.")
    ] = None,
    prior: Prior = None,
    box: Box = None,
    box_from: BoxFrom = None,
    roi: Roi = None,
    clinical: Clinical = None,
    clinical_mapping: Mapping = None,
    abstain: Annotated[float, typer.Option(help="No class within this distance of the threshold.")] = 0.0,
    device: Device = "auto",
    quiet: Quiet = False,
) -> None:
    """A probability of EGFR mutation for every patient, with its interval over the folds' models."""
    from radiogen.errors import ConfigError

    with progress_bar(quiet) as progress:
        if source.is_file() and source.suffix.lower() in (".csv", ".parquet", ".tsv"):
            from radiogen.egfr.classify import classify_egfr as classify

            answer = classify(source, egfr, out, clinical, clinical_mapping, abstain, progress=progress)
        else:
            from radiogen.pipeline import examine
            from radiogen.segmentation.segment import SegmentOptions

            if segmentation is None:
                hint = "add --segmentation MODEL, or give a feature table"
                raise ConfigError(source, "is no feature table and there is no network to make one", hint)
            options = SegmentOptions(prior=prior, box=box, outline=box_from, roi=roi)
            answer = examine(
                source,
                out,
                segmentation,
                egfr,
                options,
                clinical,
                clinical_mapping,
                abstain,
                device,
                progress,
            )
    for note in answer.notes:
        say(note, quiet)
    for patient, found in answer.predictions.items():
        typer.echo(f"{patient}\t{found.probability:.3f}\t({found.low:.3f} to {found.high:.3f})")
    typer.echo(answer.out)
