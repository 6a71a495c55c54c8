"""What a model is worth on crops of true nodules: a loosened box, a click, and the floors, by size.

    python benchmarks/nodules.py build/starter/held-out models/raseg-starter

The cases are crops of patients that the model has not seen. The box is that of the outline, loosened by 10 %
(`measures.floors.loosen_box`); the click lies at the deepest point, and once anywhere in the nodule. Prints a
table with intervals over patients, and writes one row a nodule beside it.
"""

import argparse
import csv
import itertools
from pathlib import Path

import numpy as np
import numpy.typing as npt

from radiogen.evaluation.jitter import box_mm
from radiogen.io.cases import Case, find_cases
from radiogen.measures.detection import number_lesions
from radiogen.measures.floors import FLOORS, exact_boxes, loosen_box, measure_floors
from radiogen.measures.intervals import bootstrap_by_patient
from radiogen.measures.overlap import dice_of
from radiogen.model.folder import load_models
from radiogen.model.priors import point_within
from radiogen.runtime import keep_large_blocks
from radiogen.segmentation.inference import Inference
from radiogen.segmentation.volume import Prompt, segment_crop
from radiogen.volume import array_of, voxel_ml

BINS_ML = (0.0, 0.1, 0.3, 1.0, 3.0, 1000.0)
ROW = dict[str, float | str]


def measure(case: Case, inference: Inference, loosen: float, seed: int) -> ROW:
    """Return the Dice of one nodule with each prompt, and of the floors."""
    ct, lungs, outline = case.ct(), case.lungs(), case.lesion()
    lesion = array_of(outline) == 1
    numbered = number_lesions(array_of(outline))
    (faces, *_) = [loosen_box(faces, loosen) for faces in exact_boxes(numbered)]
    rng = np.random.default_rng([seed, *case.case_id.encode()])
    inside = np.argwhere(lesion)[:, ::-1]
    anywhere = outline.TransformIndexToPhysicalPoint([int(n) for n in inside[rng.integers(len(inside))]])
    prompts = {
        "box": Prompt("box", boxes=(box_mm(faces, ct),)),
        "click": Prompt("points", points=(point_within(outline, 1),)),
        "click anywhere": Prompt("points", points=(anywhere,)),
    }
    row: ROW = {"case_id": case.case_id, "patient_id": case.patient_id}
    row["ml"] = float(lesion.sum()) * voxel_ml(outline)
    for name, prompt in prompts.items():
        if prompt.prior in inference.model.config.priors:
            found = segment_crop(inference.model, ct, lungs, prompt, inference=inference).lesion
            row[name] = dice_of(array_of(found) > 0, lesion)
    floors = measure_floors(numbered, [faces], array_of(ct))
    return row | {name: float(floors[name]) for name in FLOORS}


def table(rows: list[ROW]) -> list[str]:
    """Return one line a figure: all nodules with an interval, then by size."""
    names = [name for name in rows[0] if name not in ("case_id", "patient_id", "ml")]
    ml = np.array([float(row["ml"]) for row in rows])
    bins = [(low, high, (ml >= low) & (ml < high)) for low, high in itertools.pairwise(BINS_ML)]
    sizes = " | ".join(f"{low:g} to {high:g} ml (n={own.sum()})" for low, high, own in bins)
    lines = [f"| n = {len(rows)} | Dice (95 %) | {sizes} |", "| --- " * (len(bins) + 2) + "|"]
    for name in names:
        values: npt.NDArray[np.float64] = np.array([float(row[name]) for row in rows])
        patients = [str(row["patient_id"]) for row in rows]
        interval = bootstrap_by_patient(values.tolist(), patients, np.random.default_rng(0))
        by_size = " | ".join(f"{values[own].mean():.3f}" if own.any() else "" for _, _, own in bins)
        limits = "" if interval is None else f" ({interval.low:.3f} to {interval.high:.3f})"
        lines.append(f"| {name} | {values.mean():.3f}{limits} | {by_size} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", type=Path)
    parser.add_argument("model", type=Path, nargs="+")
    parser.add_argument("--rows", type=Path, default=Path("build/nodules.csv"))
    parser.add_argument("--loosen", type=float, default=0.1)
    parser.add_argument("--every", type=int, default=1, help="measure every n-th nodule only")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    keep_large_blocks()
    inference = Inference(load_models(options.model, "cpu"))
    cases = [case for case in find_cases(options.cases) if case.is_crop and case.has_lesion]
    rows = [measure(case, inference, options.loosen, options.seed) for case in cases[:: options.every]]
    options.rows.parent.mkdir(parents=True, exist_ok=True)
    with options.rows.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    print("\n".join(table(rows)))


if __name__ == "__main__":
    main()
