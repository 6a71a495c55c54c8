"""The commands train-egfr and classify-egfr."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from .console import print_message, progress_bar
from .options import Box, BoxFrom, ClinicalMapping, Device, Prior, Quiet, Roi, Seed, advanced

if TYPE_CHECKING:
    from radiogen.egfr.settings import EgfrSettings
    from radiogen.egfr.statistics import Difference, Estimate
    from radiogen.egfr.train import EgfrTraining

Clinical = Annotated[Path | None, typer.Option(help="Clinical table, or the manifest.csv of the cases")]


def train_egfr(
    out: Annotated[
        Path, typer.Option("--output", "-o", help="EGFR model folder to write; with --audit a JSON file")
    ],
    features: Annotated[
        Path | None, typer.Option(help="Feature table; without it, a model of clinical variables alone")
    ] = None,
    clinical: Clinical = None,
    clinical_mapping: ClinicalMapping = None,
    classifier: Annotated[
        Literal["qda", "tree", "forest", "svc", "logistic", "elasticnet", "boosting", "mlp", "attention"],
        typer.Option(help="Classifier"),
    ] = "logistic",
    reduction: Annotated[
        Literal["lda", "paper", "pca", "pls", "none"] | None,
        advanced(help="Dimension reduction; default: the usual one of the classifier"),
    ] = None,
    inputs: Annotated[
        Literal["features", "clinical", "clinical+features"] | None,
        typer.Option(help="Inputs of the model; default: features if there are any, else clinical"),
    ] = None,
    folds: Annotated[int, typer.Option(min=2, help="Number of folds, by patient")] = 5,
    repeats: Annotated[
        int, advanced(min=1, help="Number of repeats of the cross-validation, each with new folds")
    ] = 5,
    permutations: Annotated[int, advanced(min=0, help="Number of label permutations for the p-value")] = 200,
    id_column: Annotated[
        str | None, advanced(help="Id column of a table that radiogen did not write")
    ] = None,
    id_pattern: Annotated[
        str | None,
        advanced(help="Regular expression of the id in that column, or in the path of Image or Mask"),
    ] = None,
    volume_column: Annotated[
        str | None, advanced(help="Column of the lesion's volume; radiogen's and PyRadiomics' are known")
    ] = None,
    allow_column: Annotated[
        list[str] | None,
        advanced(help="Feature that may separate the classes better than a feature should, repeatable"),
    ] = None,
    label_column: Annotated[
        str | None, advanced(help="Label column of a table that radiogen did not write")
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="Marker to predict, by its column of the clinical table; default: EGFR")
    ] = None,
    target_column: Annotated[
        str | None,
        advanced(help="Column of the marker in the clinical table, if its header does not name it"),
    ] = None,
    positive: Annotated[str, advanced(help="Label of the positive class")] = "mutant",
    lesion: Annotated[
        Literal["largest", "mean", "bag"],
        advanced(help="If a patient has several lesions: largest, mean, or bag (all, for attention)"),
    ] = "largest",
    stable: Annotated[
        float,
        advanced(min=0, max=1, help="Least ICC of the features used; extract them with --perturb"),
    ] = 0.0,
    harmonise: Annotated[
        bool, advanced("--harmonise", help="Harmonise hospitals by ComBat, fitted inside the folds")
    ] = False,
    external: Annotated[
        Path | None,
        typer.Option(help="Feature table of a second cohort; for a clinical model its clinical table"),
    ] = None,
    external_clinical: Annotated[
        Path | None, typer.Option(help="Clinical table of the second cohort")
    ] = None,
    audit: Annotated[bool, typer.Option("--audit", help="Check the tables and fit nothing")] = False,
    allow_overlap: Annotated[
        bool, advanced(help="Accept patients that the segmentation network was trained on; marks the report")
    ] = False,
    jobs: Annotated[int, advanced(help="Number of processes; -1 for all processors")] = 1,
    seed: Seed = 0,
    device: Annotated[
        str, advanced(help="Device of mlp and attention: auto, cpu, cuda, cuda:N or mps")
    ] = "cpu",
    quiet: Quiet = False,
) -> None:
    """Train a classifier of EGFR status and validate it out of fold, beside its baselines."""
    from radiogen.config import check_settings
    from radiogen.egfr.settings import EgfrSettings
    from radiogen.egfr.train import ExternalCohort
    from radiogen.egfr.train import train_egfr as train

    inputs = inputs or ("features" if features else "clinical")
    values = dict(
        classifier=classifier, reduction=reduction, inputs=inputs, folds=folds, repeats=repeats,
        permutations=permutations, lesion=lesion, stable=stable, harmonise=harmonise, id_column=id_column,
        id_pattern=id_pattern, volume_column=volume_column, allow_columns=tuple(allow_column or ()),
        label_column=label_column, positive=positive, target=target, target_column=target_column,
        allow_overlap=allow_overlap, jobs=jobs, seed=seed, device=device, clinical_mapping=clinical_mapping,
    )  # fmt: skip
    settings = check_settings(EgfrSettings, values, source="train-egfr")
    if audit:
        _audit(features, out, clinical, settings)
        return
    second = None
    if external or external_clinical:
        if features:
            second = ExternalCohort(external, external_clinical)
        else:
            second = ExternalCohort(None, external_clinical or external)
    with progress_bar(quiet) as progress:
        trained = train(features, out, clinical, settings, progress, second)
    for note in trained.notes:
        print_message(note, quiet)
    for line in _training_lines(trained, positive):
        typer.echo(line)
    typer.echo(out)


def _training_lines(trained: "EgfrTraining", positive: str) -> Iterator[str]:
    yield f"patients\t{trained.patients}, {trained.positives} {trained.validation['marker']} {positive}"
    yield f"AUC out of fold\t{_interval(trained.auc)}"
    for name, figures in trained.validation["candidates"].items():
        auc = figures["auc"]
        yield f"  {name}\t{auc['value']:.3f} ({auc['low']:.3f} to {auc['high']:.3f})"
    if trained.increment:
        yield f"increment over clinical\t{_interval(trained.increment)}"
    if trained.permutation_p is not None:
        yield f"p by shuffled labels\t{trained.permutation_p:.3f}"
    if trained.external:
        yield f"AUC on the second cohort\t{_interval(trained.external.auc)}"


def _audit(features: Path | None, out: Path, clinical: Path | None, settings: "EgfrSettings") -> None:
    from radiogen.egfr.audit import audit_egfr, audit_lines

    path = out if out.suffix == ".json" else out / "audit.json"
    audit = audit_egfr(features, path, clinical, settings)
    for line in audit_lines(audit.findings):
        typer.echo(line)
    typer.echo(path)


def _interval(estimate: "Estimate | Difference") -> str:
    return f"{estimate.value:.3f} (95 % interval {estimate.low:.3f} to {estimate.high:.3f})"


def classify_egfr(
    source: Annotated[Path, typer.Argument(help="Feature table, case, folder of cases, or scan")],
    out: Annotated[
        Path, typer.Option("--output", "-o", help="CSV of predictions to write; for cases and scans a folder")
    ],
    egfr: Annotated[Path, typer.Option("--model", "-m", help="EGFR model folder of radiogen train-egfr")],
    segmentation: Annotated[
        Path | None, typer.Option(help="Model folder of radiogen train, for cases and scans")
    ] = None,
    prior: Prior = None,
    box: Box = None,
    box_from: BoxFrom = None,
    roi: Roi = None,
    clinical: Clinical = None,
    clinical_mapping: ClinicalMapping = None,
    abstain: Annotated[float, typer.Option(help="Call no class within this distance of the threshold")] = 0.0,
    call_all: Annotated[
        bool, advanced("--call-all", help="Call a class for patients out of distribution too")
    ] = False,
    device: Device = "auto",
    quiet: Quiet = False,
) -> None:
    """Predict the probability of an EGFR mutation per patient, with its range over the folds' models."""
    from radiogen.errors import ConfigError

    with progress_bar(quiet) as progress:
        if source.is_file() and source.suffix.lower() in (".csv", ".parquet", ".tsv"):
            from radiogen.egfr.classify import classify_egfr as classify

            result = classify(
                source, egfr, out, clinical, clinical_mapping, abstain, progress=progress, call_all=call_all
            )
        else:
            from radiogen.pipeline import examine
            from radiogen.segmentation.segment import SegmentOptions

            if segmentation is None:
                hint = "add --segmentation MODEL, or give a feature table"
                raise ConfigError(source, "is no feature table and there is no network to make one", hint)
            options = SegmentOptions(prior=prior, box=box, outline=box_from, roi=roi)
            result = examine(
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
                call_all,
            )
    for note in result.notes:
        print_message(note, quiet)
    for patient, prediction in result.predictions.items():
        interval = f"({prediction.low:.3f} to {prediction.high:.3f})"
        stranger = f" ({prediction.strangeness})" if prediction.strangeness else ""
        called = (
            prediction.called if prediction.called == "abstained" else f"{result.marker} {prediction.called}"
        )
        typer.echo(f"{patient}\t{prediction.probability:.3f}\t{interval}\t{called}{stranger}")
    typer.echo(result.out)
