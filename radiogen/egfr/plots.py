"""Draw the plots of an EGFR model folder from its oof.csv and validation.json."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from radiogen.drawing import egfr_plots
from radiogen.drawing.egfr_plots import CandidateCurve

TEXTS = {"patient_id": str, "status": str, "candidate": str, "called": str}


def plot_validation(folder: Path) -> list[Path]:
    """Draw the plots of a model folder.

    Curves are of the probabilities averaged over the repeats, one line a candidate: the model, clinical,
    clinical + features, volume, as far as they are there.

    Returns:
        roc.png, precision_recall.png, calibration.png, decision_curve.png, confusion.png.
    """
    validation = json.loads((folder / "validation.json").read_text(encoding="utf-8"))
    table = pd.read_csv(folder / "oof.csv", dtype=TEXTS, keep_default_na=False)
    names = dict.fromkeys([validation["model"], "clinical+features", "clinical", "volume"])
    curves = [_curve(table, validation, name) for name in names if name in validation["candidates"]]
    prevalence = validation["candidates"]["majority"]["prevalence"]
    net_benefit = dict(validation["decision_curve"])
    thresholds = net_benefit.pop("threshold")

    own = table[table["candidate"] == validation["model"]]
    classes = list(validation["classes"])
    counts = pd.crosstab(own["status"], own["called"]).reindex(index=classes, columns=classes, fill_value=0)
    means = counts.to_numpy(dtype=float) / validation["repeats"]
    title = f"{validation['model']}, mean of the repeats"
    return [
        egfr_plots.draw_roc(curves, folder / "roc.png"),
        egfr_plots.draw_precision_recall(curves, prevalence, folder / "precision_recall.png"),
        egfr_plots.draw_calibration(curves[:2], folder / "calibration.png"),
        egfr_plots.draw_decision_curve(thresholds, net_benefit, folder / "decision_curve.png"),
        egfr_plots.draw_confusion(means, classes, title, folder / "confusion.png"),
    ]


def _curve(table: pd.DataFrame, validation: dict[str, Any], name: str) -> CandidateCurve:
    own = table[table["candidate"] == name]
    means = {"status": "first", "score": "mean", "probability": "mean"}
    patients = own.groupby("patient_id").agg(means)
    candidate = validation["candidates"][name]
    return CandidateCurve(
        name=name,
        labels=np.array(patients["status"] == validation["positive"], dtype=np.float64),
        scores=np.array(patients["score"], dtype=np.float64),
        probabilities=np.array(patients["probability"], dtype=np.float64),
        auc=(candidate["auc"]["value"], candidate["auc"]["low"], candidate["auc"]["high"]),
        auprc=candidate["auprc"],
    )
