"""What each switch of RA-Seg is worth: the preset `small` with one turned back, on the phantom cohort.

    radiogen phantoms -o PHANTOMS --patients 48 --first 5001 --spacing 3,3,5 --seed 31
    radiogen ingest PHANTOMS/dicom -o CASES --cohort phantoms --clinical PHANTOMS/clinical.csv
    radiogen split CASES --test 0.35 --seed 1
    python benchmarks/raseg_ablation.py CASES RUNS --seeds 0,1

Every variant is trained alike on the cases that are not of the split `test`, and asked for the lesions of
that split: with the box of the outline (`oracle`), with the lungs, with nothing. Stopped, it goes on.
"""

import argparse
from pathlib import Path
from statistics import mean, stdev

import torch

from radiogen.io.cases import find_cases
from radiogen.model.folder import load_model
from radiogen.networks.raseg import build_raseg, weight_count
from radiogen.runtime import keep_large_blocks
from radiogen.training.prepared import prepare
from radiogen.training.settings import RunSettings, TrainOptions, load_preset
from radiogen.training.train import train
from radiogen.training.validation import validate

PRIORS = ("box", "lungs", "none")
COARSE = ("preprocessing.spacing_mm=[3, 3, 5]", "preprocessing.size=[32, 48, 48]")
VARIANTS: dict[str, tuple[str, ...]] = {
    "small": (),
    "one window, -200 to 250 HU": (
        "network.in_channels=1",
        "preprocessing.windows=[{low_hu: -200, high_hu: 250}]",
    ),
    "no block after the join": ("network.joint=false",),
    "no stage at full resolution": ("network.joint=false", "network.full_width=0"),
    "recurrence one way": ("network.both_ways=false",),
    "gate that can only boost": ("network.gate=boost",),
    "batch norm in the gate": ("network.gate_norm=batch",),
    "boxes in voxels as they are": ("preprocessing.box_fills=null",),
    "prior read at single points": ("network.prior_resize=trilinear",),
    "no predicted prior": ("network.prior_head=false",),
    "no deep supervision": ("network.deep_supervision=0",),
    "no augmentation but flips": (
        "training.augmentation="
        "{affine: 0, elastic: 0, kernel: 0, thick: 0, dose: 0, noise_hu: 0, shift_hu: 0, slope: 0}",
    ),
    "no average of the weights": ("training.ema_decay=0",),
}

Scores = dict[str, float]  # mean Dice by prior


def settings_of(variant: str, epochs: int) -> RunSettings:
    """The preset `small` on coarse voxels, with the switches of a variant."""
    length = (
        f"training.epochs={epochs}",
        "training.patches_per_case=4",
        "training.ema_decay=0.99",
        "training.amp_cpu=true",
    )
    return load_preset("small", overrides=[*COARSE, *length, *VARIANTS[variant]])


def measure(cases: Path, out: Path, settings: RunSettings, seed: int) -> Scores:
    """Train one variant (or take what is there), and give its mean Dice over the test split."""
    device = torch.device("cpu")
    train(cases, out, settings, TrainOptions(preset="small", seed=seed), device)
    held_out = [case for case in find_cases(cases) if case.split == "test" and case.has_lesion]
    prepared = prepare(held_out, settings.preprocessing, out.parent / "prepared")
    network = load_model(out, device).network
    rows = validate(network, prepared, settings.preprocessing, PRIORS, device)
    return {prior: mean(row["dice"] for row in rows if row["prior"] == prior) for prior in PRIORS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", type=Path)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--only", choices=VARIANTS, action="append")
    options = parser.parse_args()
    keep_large_blocks()
    seeds = [int(seed) for seed in options.seeds.split(",")]
    print("| variant | weights | box (oracle) | lungs | nothing |\n| --- | --- | --- | --- | --- |")
    for number, variant in enumerate(VARIANTS):
        if options.only and variant not in options.only:
            continue
        settings = settings_of(variant, options.epochs)
        runs = [
            measure(options.cases, options.runs / f"{number:02d}-{seed}", settings, seed) for seed in seeds
        ]
        cells = [" ± ".join(f"{value:.3f}" for value in _spread([run[p] for run in runs])) for p in PRIORS]
        weights = weight_count(build_raseg(settings.network, 0))
        print(f"| {variant} | {weights:,} | {' | '.join(cells)} |", flush=True)


def _spread(values: list[float]) -> list[float]:
    return [mean(values), stdev(values)] if len(values) > 1 else values


if __name__ == "__main__":
    main()
