"""The road of one patient, from a CT to an EGFR probability: the table of contents of radiogen."""

from pathlib import Path

import torch

from radiogen.egfr.classify import Classification, classify_egfr
from radiogen.egfr.persistence import load_model as load_egfr
from radiogen.features.extract import extract_features
from radiogen.features.settings import FeatureOptions
from radiogen.io.cases import is_case_source
from radiogen.model.folder import load_model
from radiogen.report.page import ReportOptions, report
from radiogen.runtime import AnyPath, Progress, no_progress
from radiogen.segmentation.segment import CASES, SegmentOptions, segment


def examine(
    source: AnyPath,
    out: AnyPath,
    model: AnyPath,
    egfr: AnyPath,
    options: SegmentOptions | None = None,
    clinical: AnyPath | None = None,
    clinical_mapping: AnyPath | None = None,
    abstain: float = 0.0,
    device: str | torch.device = "auto",
    progress: Progress = no_progress,
    call_all: bool = False,
) -> Classification:
    """Segment a scan (or cases), extract features, classify EGFR status, and write the page.

    Args:
        source: A scan (DICOM folder, NIfTI, NRRD or MHA file), a case folder or a folder of cases.
        out: Gets `segmented/`, `features.csv`, `predictions.csv` and `report.html`.
        model: Model folder of `train`.
        egfr: EGFR model folder of `train_egfr`.
        options: Prior, box, and what to do with what is there.
        clinical: Clinical table; needed where the EGFR model has clinical inputs.
        clinical_mapping: YAML that names its columns.
        abstain: No class is called within this distance of the threshold.
        device: Where the network computes: `auto`, `cpu`, `cuda`, `cuda:N`, `mps` or a device.
        progress: Called with what is done and how much there is.
        call_all: Call a class for patients out of distribution too.

    Raises:
        RadiogenError: The scan, the models and the tables do not go together.
    """
    source, out, egfr = Path(source), Path(out), Path(egfr)
    options = options or SegmentOptions()
    network = load_model(model, device)
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
        call_all=call_all,
    )
    report(out, out / "report.html", ReportOptions(cases=cases, egfr=egfr))
    return answer
