"""Run every step of radiogen on a synthetic cohort: what `radiogen demo` does."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from radiogen.cohorts.split import draw_split
from radiogen.egfr.classify import classify_egfr
from radiogen.egfr.settings import EgfrSettings
from radiogen.egfr.train import EgfrTraining, train_egfr
from radiogen.errors import ConfigError, OutputError
from radiogen.evaluation.case import EvaluateOptions
from radiogen.evaluation.evaluate import Evaluation, evaluate
from radiogen.features.extract import extract_features
from radiogen.features.settings import FeatureOptions
from radiogen.ingestion.ingest import ingest
from radiogen.ingestion.options import IngestOptions
from radiogen.io.cases import MANIFEST
from radiogen.model.folder import load_model
from radiogen.phantoms.cohort import ensure_phantoms
from radiogen.provenance import RunRecord, record_path
from radiogen.pruning.settings import CriterionSettings
from radiogen.report.page import report
from radiogen.runtime import Progress, no_progress, pick_device
from radiogen.segmentation.segment import SegmentOptions, segment
from radiogen.training.prune import PruneOptions, prune
from radiogen.training.settings import RunSettings, TrainOptions, load_preset
from radiogen.training.train import train

FEWEST_PATIENTS = 8
SPARSITY = 0.8
TEST_SHARE = 0.65
SETTINGS = (  # coarse voxels, few epochs: minutes on two processors, not the best Dice
    "preprocessing.spacing_mm=[3.0, 3.0, 5.0]",
    "preprocessing.size=[32, 48, 48]",
)
EPOCHS, PATCHES = 25, 1200  # of the training, whatever the number of patients


@dataclass(frozen=True)
class Demo:
    """A finished demo: its page, the evaluation of the test patients, and the EGFR classifier, if any."""

    page: Path
    evaluation: Evaluation
    egfr: EgfrTraining | None


def demo(
    out: Path,
    patients: int = 40,
    seed: int = 0,
    device: str = "auto",
    existing: Literal["skip", "overwrite", "fail"] = "fail",
    progress: Progress = no_progress,
) -> Demo:
    """Make a phantom cohort and run every step of radiogen on it.

    A third of the patients teach the segmentation; the others, whom it has not seen, are segmented
    with the box of their outline as a prompt (`oracle`) and classified.

    Args:
        out: Folder of the run.
        patients: Size of the cohort, at least 8.
        seed: The same seed gives the same cohort.
        device: Where networks run.
        existing: What happens to a run that is there; `skip` goes on with it.
        progress: Called with what is done and how much there is.

    Raises:
        ConfigError: Too few patients.
        DeviceError: The device is not there.
        OutputError: The folder holds something else, or a run and `existing` is fail.
    """
    if patients < FEWEST_PATIENTS:
        raise ConfigError(f"--patients {patients}", "are too few", f"take at least {FEWEST_PATIENTS}")
    where = pick_device(device)
    _make_room(out, existing)
    record = RunRecord("demo", {"patients": patients, "seed": seed}, seed=seed)
    cases, segmented, phantoms = out / "cases", out / "segmented", out / "phantoms"
    ensure_phantoms(phantoms, patients, seed, progress=progress)
    options = IngestOptions(cohort="phantoms", clinical=phantoms / "clinical.csv")
    ingest(phantoms / "dicom", cases, options, progress)
    counts = draw_split(cases, TEST_SHARE, seed).counts
    settings = _settings(counts["train"])
    scoring = PruneOptions(
        preset="small", seed=seed, criterion=CriterionSettings(sparsity=SPARSITY, scope="layer")
    )
    prune(cases, out / "pruned", settings, scoring, where, progress)
    training = TrainOptions(preset="small", seed=seed, pruned=out / "pruned")
    train(cases, out / "model", settings, training, where, progress)
    model = load_model(out / "model", where)
    segment(cases, segmented, model, SegmentOptions(prior="box", split="test"), progress)
    evaluation = evaluate(segmented, cases, out / "evaluation.csv", EvaluateOptions(split="test"), progress)
    features = out / "features.csv"
    extract_features(cases, features, model, FeatureOptions(split="test"), segmented, progress)
    egfr = _classify(out, features, cases / MANIFEST, counts["test"], seed, progress)
    page = report(out, out / "report.html")
    record.device = str(where)
    record.finish(out, [page, features])
    return Demo(page, evaluation, egfr)


def _settings(learn: int) -> RunSettings:
    per_case = max(1, round(PATCHES / (EPOCHS * learn)))
    length = (f"training.epochs={EPOCHS}", f"training.patches_per_case={per_case}")
    return load_preset("small", overrides=[*SETTINGS, *length])


def _classify(
    out: Path, features: Path, clinical: Path, test: int, seed: int, progress: Progress
) -> EgfrTraining | None:
    """Train and apply the classifier; a cohort of a handful of patients holds too few mutants for it."""
    if test < 20:
        return None
    settings = EgfrSettings(repeats=3, permutations=100, seed=seed)
    trained = train_egfr(features, out / "egfr", clinical, settings, progress)
    classify_egfr(features, out / "egfr", out / "predictions.csv", clinical, progress=progress)
    return trained


def _make_room(out: Path, existing: str) -> None:
    """Refuse a folder of something else, and empty that of another demo with `overwrite`."""
    is_demo = (out / "phantoms").is_dir()
    if out.is_dir() and any(out.iterdir()) and not is_demo:
        raise OutputError(out, "holds something else", "choose another folder")
    if is_demo and existing == "fail":
        hint = "choose another folder, or --existing overwrite"
        raise OutputError(out, "holds a demo", hint)
    if is_demo and existing == "overwrite":
        shutil.rmtree(out)
    if out.is_dir():
        record_path(out).unlink(missing_ok=True)
