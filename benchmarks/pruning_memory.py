"""Peak memory of scoring the published RA-Seg of 70.6 million weights, and the size of its pruned checkpoint.

    python benchmarks/pruning_memory.py [--samples 6] [--settle 0.1] [--preset paper]

Prints resident memory in units of the network's weights: the peak of the process, and the peak beyond what
was there before the network was made. Then, at sparsity 0.9, the bytes of a model and of weight masks beside
the dense model.
"""

import argparse
import tempfile
from pathlib import Path

import torch
from pruning_moments import raseg_case

from radiogen.io.tensors import save_tensors
from radiogen.pruning.criteria import score_weights
from radiogen.pruning.layers import layer_table
from radiogen.pruning.paths import find_paths
from radiogen.pruning.settings import CriterionSettings, MomentSettings
from radiogen.pruning.weight_masks import apply_weight_masks, save_weight_masks, weight_masks
from radiogen.runtime import keep_large_blocks, peak_memory_mb


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=6)
    parser.add_argument("--settle", type=float)
    parser.add_argument("--preset", default="paper")
    chosen = parser.parse_args()
    keep_large_blocks()
    torch.set_num_threads(1)
    before = peak_memory_mb()
    model, batches, loss = raseg_case(chosen.preset, chosen.samples)
    weights = sum(p.numel() * p.element_size() for p in model.parameters()) / 2**20
    print(f"torch {torch.__version__}, weights {weights:.0f} MiB, process before them {before:.0f} MiB")

    def report(what: str) -> None:
        peak = peak_memory_mb()
        print(
            f"{what:10} peak {peak:6.0f} MiB: {(peak - before) / weights:.2f} weights, "
            f"{peak / weights:.2f} with the interpreter and its libraries",
            flush=True,
        )

    report("network")
    settings = CriterionSettings(moments=MomentSettings(settle=chosen.settle))
    scoring = score_weights(model, batches, loss, settings, exclude=model.output_layers)
    report("scores")
    masks = weight_masks(scoring.scores, 0.9)
    del scoring
    report("masks")
    layer_table(model, masks, find_paths(model, masks, batches, loss).cut)
    report("table")
    with tempfile.TemporaryDirectory() as folder:
        sizes = []
        for name in ("dense", "pruned"):
            save_tensors(Path(folder) / name, model.state_dict())
            sizes.append((Path(folder) / name).stat().st_size)
            apply_weight_masks(model, masks)
        save_weight_masks(Path(folder) / "masks", masks, {})
        sizes.append((Path(folder) / "masks").stat().st_size)
    dense, pruned, packed = sizes
    print(f"on disk: dense {dense}, pruned {pruned} bytes ({pruned / dense:.4f}), masks {packed / dense:.4f}")


if __name__ == "__main__":
    main()
