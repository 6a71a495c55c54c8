"""Dice on synthetic lesions with a box, by size and threshold: how that of the starter model was chosen.

    python benchmarks/synthetic_lesions.py models/raseg-starter build/starter/cases models/starter.yaml

Patches are drawn as in training but with another seed, without augmentation, each with a synthetic lesion and
a box whose faces are off by up to 5 % of its size and moved out by up to 10 % more. No true lesion is seen.
"""

import argparse
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from radiogen.io.cases import find_cases
from radiogen.model.folder import load_model
from radiogen.runtime import keep_large_blocks
from radiogen.training.patches import PatchDataset
from radiogen.training.prepared import learnable, prepare
from radiogen.training.settings import load_preset

THRESHOLDS = (0.3, 0.5, 0.6, 0.7, 0.8, 0.9)
BINS = (0, 500, 2000, 5000, 20000, np.inf)  # voxels of the patch, which are finer for a small lesion
PLAIN = (
    "{flip: false, affine: 0, elastic: 0, kernel: 0, thick: 0, dose: 0, noise_hu: 0, shift_hu: 0, slope: 0}"
)
BOXED = (
    "training.priors=[box]",
    "training.synthetic_lesions=1",
    f"training.augmentation={PLAIN}",
    "training.box_jitter=0.05",
    "training.box_loosen=0.1",
    "training.box_careless=0",
    "training.cohort_draws={}",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("cases", type=Path)
    parser.add_argument("config", type=Path)
    parser.add_argument("--patches", type=int, default=200)
    parser.add_argument("--seed", type=int, default=99)
    options = parser.parse_args()
    keep_large_blocks()
    settings = load_preset("small", options.config, BOXED)
    cases, _ = learnable(find_cases(options.cases))
    lungs_only = [case for case in cases if case.cohort in settings.training.lungs_only_cohorts]
    prepared = prepare(lungs_only, settings.preprocessing, options.cases.parent / "prepared")
    patches = PatchDataset(prepared, settings.preprocessing, settings.training, options.seed)
    network = load_model(options.model, torch.device("cpu")).network
    rows = []
    for number in range(options.patches):
        image, prior, target = patches[(number, number % len(patches))]
        if not target.any():
            continue
        with torch.inference_mode():
            probability = torch.sigmoid(network(image[None], prior[None]))[0]
        lesion = target > 0.5
        found = [probability >= threshold for threshold in THRESHOLDS]
        dice = [float(2 * (f & lesion).sum() / (f.sum() + lesion.sum())) for f in found]
        rows.append([float(lesion.sum()), *dice])
    table = np.array(rows)
    print(f"| voxels | lesions | {' | '.join(f'{t:g}' for t in THRESHOLDS)} |")
    print("| --- | --- |" + " --- |" * len(THRESHOLDS))
    for low, high in [*pairwise(BINS), (0, np.inf)]:
        inside = table[(table[:, 0] >= low) & (table[:, 0] < high)]
        if len(inside):
            cells = " | ".join(f"{value:.3f}" for value in inside[:, 1:].mean(axis=0))
            print(f"| {low:g} to {high:g} | {len(inside)} | {cells} |")


if __name__ == "__main__":
    main()
