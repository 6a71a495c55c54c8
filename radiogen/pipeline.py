"""The road of one patient, from a CT to an EGFR probability: the table of contents of radiogen."""

from pathlib import Path

from radiogen.egfr.classify import Classification, classify_egfr
from radiogen.egfr.persistence import load_model as load_egfr
from radiogen.features.extract import extract_features
from radiogen.features.settings import FeatureOptions
from radiogen.io.cases import is_case_source
from radiogen.model.folder import load_model
from radiogen.report.page import ReportOptions, report
from radiogen.runtime import Progress, no_progress, pick_device
from radiogen.segmentation.segment import CASES, SegmentOptions, segment


def examine(
    source: Path,
    out: Path,
    model: Path,
    egfr: Path,
    options: SegmentOptions,
    clinical: Path | None = None,
    clinical_mapping: Path | None = None,
    abstain: float = 0.0,
    device: str = "auto",
    progress: Progress = no_progress,
) -> Classification:
    """Segment a scan (or cases), extract features, classify EGFR status, and write the page.

    Everything lies under `out`: `segmented/`, `features.csv`, `predictions.csv`, `report.html`.

    Raises:
        RadiogenError: The scan, the models and the tables do not go together.
    """
    network = load_model(model, pick_device(device))
    wanted = load_egfr(egfr).config["extractor"] or {}  # refused before the work, not after it
    segment(source, out / "segmented", network, options, progress)
    cases = source if is_case_source(source) else out / "segmented" / CASES
    features = FeatureOptions.like(wanted, outside=False, split=options.split)
    extract_features(cases, out / "features.csv", network, features, out / "segmented", progress)
    answer = classify_egfr(
        out / "features.csv",
        egfr,
        out / "predictions.csv",
        clinical,
        clinical_mapping,
        abstain,
        progress=progress,
    )
    report(out, out / "report.html", ReportOptions(cases=cases, egfr=egfr))
    return answer
