"""A made run folder: every file that radiogen commands write, small."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SCRIPT = "<script>alert('x')</script>"
CASES = ("R01-001", "R01-002", "R01-003")


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def write_content(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def draw_png(path: Path, size: tuple[int, int] = (90, 60), noise: bool = False) -> None:
    width, height = size
    y, x = np.mgrid[0:height, 0:width]
    gray = 90 + 90 * np.exp(-((x - width / 2) ** 2 + (y - height / 2) ** 2) / (0.02 * width * height))
    if noise:
        gray = np.random.default_rng(0).integers(0, 255, (height, width))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(gray.astype(np.uint8)).save(path)


def _estimate(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.1, "high": value + 0.1}


def _candidate(auc: float) -> dict[str, Any]:
    figures = {"auprc": 0.5, "prevalence": 0.25, "brier": 0.17, "calibration_slope": None, "sensitivity": 0.6}
    return {"auc": _estimate(auc), **figures, "specificity": 0.7, "f1_mutant": 0.5, "f1_wildtype": 0.8}


def _write_cases(run: Path) -> None:
    egfr = ("mutant", "wildtype", "")
    rows = [
        {"case_id": case, "patient_id": case, "cohort": "phantoms", "split": "", "egfr": status,
         "ct": f"{case}/ct.nii.gz", "lesion": "", "lungs": ""}
        for case, status in zip(CASES, egfr, strict=True)
    ]  # fmt: skip
    write_rows(run / "cases" / "manifest.csv", rows)
    failure = {"case_id": "R01-009", "reason": f"holds no CT {SCRIPT}", "way_out": "give a CT"}
    write_rows(run / "cases" / "failures.csv", [failure])
    for case in CASES:
        said = ["two series of the patient; the thinner was taken", f"named {SCRIPT}"]
        write_content(run / "cases" / case / "case.json", {"case_id": case, "decisions": said})
        write_content(run / "cases" / case / "case.run.json", {"verb": "ingest", "wall_s": 1.5})


def write_segmented(folder: Path, cases: tuple[str, ...] = CASES[:2]) -> Path:
    for number, case in enumerate(cases, start=1):
        draw_png(folder / case / "lesion.png", (330, 200))
        lesion = {"case_id": case, "lesion": 1, "volume_ml": 4.5678 * number, "longest_diameter_mm": 23.456}
        center = {"center_x_mm": -41.04, "center_y_mm": 12.0, "center_z_mm": -210.5}
        write_rows(folder / case / "lesions.csv", [{**lesion, **center}])
        record = {"verb": "segment", "options": {"prompt": "oracle", "prior": "box"}, "wall_s": 2.25,
                  "started": "2026-01-02T03:04:05Z", "decisions": ["the largest part was kept"]}  # fmt: skip
        write_content(folder / case / "lesion.run.json", record)
    return folder


def _write_models(run: Path) -> None:
    layers = [
        {"name": f"encoder.{level}.conv.weight", "weights": 1000 * 2**level, "kept": 200 + 50 * level,
         "share": (200 + 50 * level) / (1000 * 2**level), "channels_in": 8, "dead_in": 0,
         "channels_out": 16, "dead_out": level % 3}
        for level in range(8)
    ]  # fmt: skip
    write_rows(run / "pruned" / "layers.csv", layers)
    write_content(run / "pruned" / "config.json", {"criterion": "fts", "sparsity": 0.9})
    epochs = [{"epoch": each, "loss": 0.2 + 0.9 * 0.9**each, "learning_rate": 1e-3} for each in range(40)]
    validation = [
        {"epoch": each, "case_id": case, "prior": "box", "prompt": prompt, "dice": top - 0.6 * 0.9**each}
        for each in range(4, 40, 5)
        for prompt, top in (("oracle", 0.8), ("jitter", 0.72))
        for case in CASES[:2]
    ]
    write_content(run / "model" / "metrics.json", {"epochs": epochs, "validation": validation})
    write_content(run / "model" / "config.json", {"preset": "small", "patients_seen": ["R01-002", "R01-077"]})
    (run / "model" / "MODEL_CARD.md").write_text(f"# RA-Seg (small)\n{SCRIPT}\n", encoding="utf-8")


def _write_egfr(run: Path) -> None:
    content = {
        "patients": 117, "classes": {"wildtype": 91, "mutant": 26}, "positive": "mutant",
        "model": "clinical+features",
        "headline": {"value": 0.031, "low": -0.044, "high": 0.106, "p": 0.42},
        "candidates": {"clinical+features": _candidate(0.81), "clinical": _candidate(0.78),
                       "volume": _candidate(0.55)},
        "comparisons": [{"first": "clinical+features", "second": "clinical", "value": 0.031, "low": -0.044,
                         "high": 0.106, "p": 0.42}],
        "permutation": {"how": "one repeat", "auc": 0.8, "p": 0.005, "permutations": 200,
                        "shuffled_mean": 0.498},
        "notes": ["the smaller class has 26 patients: expect an interval of 0.1 or more either way"],
    }  # fmt: skip
    write_content(run / "egfr" / "validation.json", content)
    for name in ("roc", "calibration", "confusion"):
        draw_png(run / "egfr" / f"{name}.png", (300, 270))


def make_run(run: Path) -> Path:
    """Write a run with all parts."""
    _write_cases(run)
    write_segmented(run / "segmented")
    _write_models(run)
    _write_egfr(run)
    floors = {"floor_box": 0.43, "floor_ellipsoid": 0.61, "floor_threshold": 0.58}
    rows = [
        {"case_id": case, "prompt": prompt, "dice": dice, "surface_dice": 0.8, "hd95_mm": 3.24, **floors}
        for case, prompt, dice in (
            ("R01-001", "oracle", 0.7), ("R01-002", "oracle", 0.8), ("R01-001", "auto", 0.5),
            ("R01-002", "auto", ""),
        )
    ]  # fmt: skip
    write_rows(run / "evaluation.csv", rows)
    write_content(run / "evaluation.json", {"cases": 2})
    features = [
        {"case_id": case, "patient_id": case, "lesion": 1, "deep_0": 0.1, "deep_1": 0.2, "shape_volume_ml": 3}
        for case in CASES[:2]
    ]
    write_rows(run / "features.csv", features)
    write_content(
        run / "features.json", {"prompt": "oracle", "model_hash": "abc123", "extractor": {"seed": 0}}
    )
    predictions = [
        {"patient_id": case, "probability": probability, "low": probability - 0.1, "high": probability + 0.15,
         "class": called, "threshold": 0.31, "in_distribution": "yes", "distance": 0.4, "missing": 0,
         "moved_by": "clinical_smoking_never +0.90; deep_0 -0.20", "note": ""}
        for case, probability, called in (("R01-001", 0.62, "mutant"), ("R01-002", 0.12, "wildtype"))
    ]  # fmt: skip
    write_rows(run / "predictions.csv", predictions)
    return run
