"""Prune RA-Seg before it is trained: score its weights at the start, keep the highest."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field
from safetensors.torch import save_file

from radiogen.config import Settings
from radiogen.engines.losses import segmentation_loss
from radiogen.engines.patches import Patch, PatchDataset
from radiogen.engines.prepared import learnable, prepare
from radiogen.engines.presets import RunSettings
from radiogen.engines.pruned_folder import CONFIG, LAYERS, MASKS, START, PrunedConfig, start_hash
from radiogen.errors import OutputError, PruningError
from radiogen.io.cases import find_cases
from radiogen.networks.raseg import RASeg, build_raseg
from radiogen.provenance import RunRecord, leave_no_trace, record_path, whole_file, write_csv, write_json
from radiogen.pruning.criteria import CRITERIA, score_weights
from radiogen.pruning.layers import LayerRow, check_collapse, layer_table
from radiogen.pruning.mask_files import save_weight_masks
from radiogen.pruning.settings import CriterionSettings
from radiogen.pruning.signatures import Batch
from radiogen.pruning.warmup import WarmUpSettings, warm_up
from radiogen.pruning.weight_masks import check_sparsity, weight_masks
from radiogen.runtime import Tick, no_tick

CACHE = "prepared"


class PruneOptions(Settings):
    """What is pruned, how it is scored, and on how many patches."""

    preset: str = "modern"
    seed: int = 0
    criterion: CriterionSettings = CriterionSettings()
    warmup: WarmUpSettings = WarmUpSettings()
    samples: int = Field(32, ge=1, description="patches that are scored, one at a time as in the paper")
    allow_collapse: bool = False
    existing: Literal["overwrite", "fail"] = "overwrite"


@dataclass(frozen=True)
class PrunedNetwork:
    """What was kept of a network."""

    folder: Path
    layers: list[LayerRow]
    sparsity: float
    notes: tuple[str, ...]


def check_scoring(criterion: str, sparsity: float) -> None:
    """Refuse an unknown criterion or a sparsity that keeps nothing, before any work is done.

    Raises:
        PruningError: With the right names, or the range.
    """
    if criterion not in CRITERIA:
        raise PruningError(f"criterion {criterion}", "is unknown", f"there are {', '.join(CRITERIA)}")
    check_sparsity(sparsity)


class ScoringSet:
    """Patches one at a time, the same on every pass; their draws lie in an epoch of their own."""

    def __init__(self, patches: PatchDataset, samples: int, device: torch.device, tick: Tick) -> None:
        self.patches, self.samples, self.device, self.tick = patches, samples, device, tick

    def __iter__(self) -> Iterator[Batch]:
        for number in range(self.samples):
            patch: Patch = self.patches[0, number]
            yield tuple(tensor[None].to(self.device) for tensor in patch)
            self.tick("score", number + 1, self.samples)


def prune(
    cases: Path,
    out: Path,
    settings: RunSettings,
    options: PruneOptions,
    device: torch.device,
    tick: Tick = no_tick,
) -> PrunedNetwork:
    """Score RA-Seg at its start on patches of the cases and write the weight masks of what is kept.

    Args:
        cases: A case folder; cases without an outline or of the split `test` are left out.
        out: The pruned folder to write.
        settings: Network and preprocessing, as the training will have them.
        options: Criterion, sparsity, scope, warm-up, seed.
        device: Where to score.
        tick: Told of progress.

    Raises:
        CaseError: No case has an outline.
        PruningError: Scores are not finite, or a layer has collapsed.
        OutputError: The folder holds something already.
    """
    _check_room(out, options)
    usable, left_out = learnable(find_cases(cases))
    record = RunRecord(
        "prune", options=options.model_dump(mode="json"), seed=options.seed, device=str(device)
    )
    with leave_no_trace(out), _scratch(out / CACHE) as cache:
        prepared = prepare(usable, settings.preprocessing, cache, tick)
        patches = PatchDataset(prepared, settings.preprocessing, settings.training, options.seed)
        batches = ScoringSet(patches, options.samples, device, tick)
        network = build_raseg(settings.network, options.seed).to(device)
        result = _prune_network(network, batches, options, out)
        config = PrunedConfig(
            preset=options.preset,
            seed=options.seed,
            sparsity=options.criterion.sparsity,
            warmup=options.warmup.kind,
            start_hash=start_hash(network),
            patients_seen=tuple(sorted({case.patient_id for case in usable})),
            settings=settings,
        )
    write_json(out / CONFIG, config.model_dump(mode="json"))
    record.decisions += [*left_out, *result.notes]
    record.finish(out, [out / MASKS, out / LAYERS, out / CONFIG])
    return result


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _prune_network(network: RASeg, batches: ScoringSet, options: PruneOptions, out: Path) -> PrunedNetwork:
    loss, criterion = segmentation_loss(), options.criterion
    generator = torch.Generator().manual_seed(options.seed)
    warmed = warm_up(network, batches, loss, options.warmup, generator)
    scoring = score_weights(network, batches, loss, criterion, generator, exclude=[network.output_layer])
    masks = weight_masks(scoring.scores, criterion.sparsity, criterion.scope, criterion.reference)
    layers = layer_table(network, masks, batches, loss)
    check_collapse(layers, options.allow_collapse)
    kept, weights = sum(row.kept for row in layers), sum(row.weights for row in layers)
    about = {**criterion.model_dump(mode="json"), "seed": options.seed, "samples": scoring.samples}
    for name in (record_path(out), out / MASKS, out / START, out / LAYERS, out / CONFIG):
        name.unlink(missing_ok=True)
    save_weight_masks(out / MASKS, {name: mask.cpu() for name, mask in masks.items()}, about)
    if warmed.batches:
        with whole_file(out / START) as draft:
            save_file(
                {name: t.detach().cpu().contiguous() for name, t in network.state_dict().items()}, draft
            )
    write_layers(layers, out / LAYERS)
    notes = [f"{kept} of {weights} prunable weights kept", warmed.note]
    notes += [str(scoring.second_order)] if scoring.second_order else []
    notes += [f"gradients measured by {scoring.engine}"] if scoring.engine else []
    return PrunedNetwork(out, layers, 1 - kept / weights, tuple(notes))


def write_layers(layers: list[LayerRow], path: Path) -> None:
    """The table of what is kept, one row a layer."""
    rows = [{**asdict(row), "share": round(row.share, 6)} for row in layers]
    write_csv(path, list(rows[0]), rows)


def _check_room(out: Path, options: PruneOptions) -> None:
    if not out.is_dir() or not any(out.iterdir()):
        return
    if not (record_path(out).is_file() or (out / MASKS).is_file() or (out / CACHE).is_dir()):
        raise OutputError(out, "holds something else", "choose another folder")
    if options.existing == "fail" and record_path(out).is_file():
        raise OutputError(out, "holds a pruned network", "choose another folder or --existing overwrite")
