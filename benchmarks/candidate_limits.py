"""Lesions found and false ones, by the limit of a candidate: how that of the starter model is chosen.

    python benchmarks/candidate_limits.py models/raseg-starter build/limits build/held-out build/made

Each folder of cases is segmented without a box and with a low limit, once; then what a higher limit leaves
is counted from `candidate_score` of lesions.csv. A lesion is found where any of its voxels is in a lesion of
the mask, which is false where it holds none of any. Dice is that of the scan. What lies in a case's
`own_lesion.nii.gz`, see `synthetic_scans.py`, is left out. Dice with the box of each outline is told first.
"""

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from radiogen.io.cases import Case, find_cases
from radiogen.io.nifti import read_mask
from radiogen.measures.overlap import dice_of
from radiogen.model.folder import AnyModel, load_model
from radiogen.runtime import keep_large_blocks
from radiogen.segmentation.segment import SegmentOptions, segment
from radiogen.segmentation.volume import SegmentationSettings
from radiogen.volume import array_of, voxel_ml

LIMITS = (0.5, 0.6, 0.65, 0.7, 0.74, 0.76, 0.78, 0.8, 0.82, 0.83, 0.84, 0.86, 0.88, 0.9)
LARGE_ML = 20.0


def count(case: Case, folder: Path, limits: Sequence[float]) -> list[dict[str, float]]:
    """Lesions, those found, those of them that are large, false ones, and Dice: for each limit."""
    outline, found = array_of(case.lesion()), array_of(read_mask(folder / "lesion.nii.gz")).copy()
    if (case.folder / "own_lesion.nii.gz").is_file():
        own = array_of(read_mask(case.folder / "own_lesion.nii.gz")) > 0
        found[np.isin(found, np.unique(found[own]))] = 0
    with (folder / "lesions.csv").open(encoding="utf-8") as file:
        scores = {int(row["lesion"]): float(row["candidate_score"] or 1) for row in csv.DictReader(file)}
    labels, sizes = np.unique(outline[outline > 0], return_counts=True)
    large = sizes * voxel_ml(case.lesion()) >= LARGE_ML
    counts = []
    for limit in limits:
        kept = [label for label in np.unique(found) if label and scores[label] >= limit]
        mask = np.isin(found, kept)
        hit = np.array([bool(mask[outline == label].any()) for label in labels], dtype=bool)
        counts.append(
            {
                "lesions": len(labels),
                "large": int(large.sum()),
                "found": int(hit.sum()),
                "large found": int((hit & large).sum()),
                "false": sum(not outline[found == label].any() for label in kept),
                "dice": dice_of(mask, outline > 0),
            }
        )
    return counts


def dice_in_boxes(cases: Path, work: Path, model: AnyModel, outlined: list[Case]) -> list[float]:
    """Dice of each lesion in the box of its outline."""
    how = SegmentOptions(prior="box", picture=False)
    segment(cases, work, model, how)
    dice = []
    for case in outlined:
        outline = array_of(case.lesion())
        mask = array_of(read_mask(work / case.case_id / "lesion.nii.gz"))
        for label in np.unique(outline[outline > 0]):
            there, own = outline == label, np.bincount(mask[outline == label], minlength=1)
            named = 1 + int(np.argmax(own[1:])) if own[1:].any() else 0
            drawn = mask == named if named else np.zeros_like(there)
            dice.append(dice_of(drawn, there))
    return dice


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("cases", type=Path, nargs="+")
    parser.add_argument("--limits", type=float, nargs="+", default=LIMITS, help="the first is segmented with")
    options = parser.parse_args()
    keep_large_blocks()
    model = load_model(options.model, torch.device("cpu"))
    how = SegmentationSettings.model_validate({"auto": {"least_candidate": options.limits[0]}})
    for cases in options.cases:
        work = options.work / cases.name
        segment(cases, work / "auto", model, SegmentOptions(prior="auto", how=how, picture=False))
        outlined = [case for case in find_cases(cases) if case.has_lesion]
        each = [count(case, work / "auto" / case.case_id, options.limits) for case in outlined]
        boxed = dice_in_boxes(cases, work / "box", model, outlined)
        print(
            f"{cases.name}: {len(each)} scans; Dice in the boxes {np.mean(boxed):.3f} ({len(boxed)} lesions)"
        )
        print(f"| limit | found | of {LARGE_ML:g} ml and more | false a scan | Dice of the scan |")
        print("| --- | --- | --- | --- | --- |")
        for number, limit in enumerate(options.limits):
            at = {name: [counts[number][name] for counts in each] for name in each[0][0]}
            found = (
                f"{sum(at['found'])} of {sum(at['lesions'])} | {sum(at['large found'])} of {sum(at['large'])}"
            )
            print(f"| {limit:g} | {found} | {np.mean(at['false']):.2f} | {np.mean(at['dice']):.3f} |")


if __name__ == "__main__":
    main()
