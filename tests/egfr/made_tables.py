"""Small made tables with a signal in the features and another one in the clinical variables."""

import csv
from pathlib import Path

import numpy as np

from radiogen.egfr.settings import EgfrSettings

PATIENTS = 30
COLUMNS = ("shape_volume_ml", *(f"intensity_{n}" for n in range(4)), *(f"deep_{n}" for n in range(7)))
QUICK = EgfrSettings(folds=3, repeats=1, inner_folds=2, permutations=5, bootstraps=200)
ABOUT = {
    "schema_version": 1,
    "extractor": {"name": "pooled", "levels": [1, 2]},
    "columns": list(COLUMNS),
    "model_hash": "a1b2",
    "patients_seen": ["somebody else"],
    "prompt": "oracle",
}


def write_rows(path: Path, rows: list[dict[str, object]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def make_rows(patients: int = PATIENTS, seed: int = 0) -> tuple[list[dict[str, object]], ...]:
    """Feature rows and clinical rows; every third patient is a mutant."""
    rng = np.random.default_rng(seed)
    features: list[dict[str, object]] = []
    clinical: list[dict[str, object]] = []
    for number in range(patients):
        mutant = number % 3 == 0
        values = rng.normal(size=len(COLUMNS)) + 1.5 * mutant * (np.arange(len(COLUMNS)) % 2)
        patient = f"P{number:02d}"
        measured = dict(zip(COLUMNS, (f"{value:.6f}" for value in values), strict=True))
        features.append({"case_id": f"c{number}", "patient_id": patient, "lesion": 1, **measured})
        clinical.append(
            {
                "patient_id": patient,
                "egfr": "mutant" if mutant else "wildtype",
                "site": ("here", "there")[int(rng.random() < 0.5)],
                "age": int(rng.integers(45, 80)),
                "sex": "female" if rng.random() < (0.7 if mutant else 0.4) else "male",
                "smoking": str(rng.choice(["never", "former", "current"])),
            }
        )
    return features, clinical
