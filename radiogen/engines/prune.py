"""Prune RA-Seg before it is trained: score its weights at the start, keep the highest."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field
from safetensors.torch import save_file
from torch import nn

from radiogen.config import Settings
from radiogen.engines.losses import segmentation_loss
from radiogen.engines.patches import Patch, PatchDataset
from radiogen.engines.prepared import learnable, prepare
from radiogen.engines.presets import RunSettings
from radiogen.engines.pruned_folder import CHANNELS, CONFIG, LAYERS, MASKS, START, PrunedConfig, start_hash
from radiogen.engines.raseg_channels import raseg_channels
from radiogen.errors import OutputError, PruningError
from radiogen.io.cases import find_cases
from radiogen.networks.raseg import RASeg, build_raseg
from radiogen.provenance import RunRecord, leave_no_trace, record_path, whole_file, write_csv, write_json
from radiogen.pruning.channel_choice import ChannelSettings
from radiogen.pruning.channel_pruning import ChannelPruned, ChannelRow, prune_channels
from radiogen.pruning.criteria import CRITERIA, Scoring, score_weights
from radiogen.pruning.layers import LayerRow, check_collapse, layer_table
from radiogen.pruning.mask_files import save_weight_masks
from radiogen.pruning.settings import CriterionSettings
from radiogen.pruning.signatures import Batch
from radiogen.pruning.warmup import WarmUp, WarmUpSettings, warm_up
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
    channels: ChannelSettings | None = None
    """Take out whole channels instead of single weights; the criterion's sparsity does not count then."""
    existing: Literal["overwrite", "fail"] = "overwrite"


@dataclass(frozen=True)
class PrunedNetwork:
    """What was kept of a network."""

    folder: Path
    layers: list[LayerRow]
    sparsity: float
    notes: tuple[str, ...]
    channels: ChannelPruned | None = None  # the smaller network; `layers` is empty then


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
        start = result.channels.network if result.channels else network
        config = PrunedConfig(
            preset=options.preset,
            seed=options.seed,
            sparsity=0.0 if result.channels else options.criterion.sparsity,
            warmup=options.warmup.kind,
            start_hash=start_hash(start),
            network=start.settings if result.channels and isinstance(start, RASeg) else None,
            patients_seen=tuple(sorted({case.patient_id for case in usable})),
            settings=settings,
        )
    write_json(out / CONFIG, config.model_dump(mode="json"))
    record.decisions += [*left_out, *result.notes]
    chosen = [out / CHANNELS, out / START] if result.channels else [out / MASKS]
    record.finish(out, [*chosen, out / LAYERS, out / CONFIG])
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
    if options.channels:
        channels = raseg_channels(network)
        small = prune_channels(network, batches, loss, channels, options.channels, criterion, generator)
        return _write_channels(small, options, out, warmed)
    scoring = score_weights(network, batches, loss, criterion, generator, exclude=[network.output_layer])
    masks = weight_masks(scoring.scores, criterion.sparsity, criterion.scope, criterion.reference)
    layers = layer_table(network, masks, batches, loss)
    check_collapse(layers, options.allow_collapse)
    kept, weights = sum(row.kept for row in layers), sum(row.weights for row in layers)
    _clear(out)
    cpu_masks = {name: mask.cpu() for name, mask in masks.items()}
    save_weight_masks(out / MASKS, cpu_masks, _about(options, scoring))
    if warmed.batches:
        _save_start(network, out)
    write_layers(layers, out / LAYERS)
    notes = [f"{kept} of {weights} prunable weights kept", *_notes(warmed, scoring)]
    return PrunedNetwork(out, layers, 1 - kept / weights, tuple(notes))


def _write_channels(small: ChannelPruned, options: PruneOptions, out: Path, warmed: WarmUp) -> PrunedNetwork:
    """Write the kept channels and the smaller network at its start."""
    _clear(out)
    about = _about(options, small.scoring)
    save_weight_masks(out / CHANNELS, {name: mask.cpu() for name, mask in small.kept.items()}, about)
    _save_start(small.network, out)
    write_layers(small.layers, out / LAYERS)
    notes = (*small.totals(), *_notes(warmed, small.scoring))
    return PrunedNetwork(out, [], 1 - small.after.weights / small.before.weights, notes, small)


def _clear(out: Path) -> None:
    for name in (MASKS, CHANNELS, START, LAYERS, CONFIG):
        (out / name).unlink(missing_ok=True)
    record_path(out).unlink(missing_ok=True)


def _about(options: PruneOptions, scoring: Scoring) -> dict[str, object]:
    """What made the choice, as it stands in the header of its file."""
    channels = {"channels": options.channels.model_dump(mode="json")} if options.channels else {}
    made_by = options.criterion.model_dump(mode="json")
    return {**made_by, **channels, "seed": options.seed, "samples": scoring.samples}


def _save_start(network: nn.Module, out: Path) -> None:
    with whole_file(out / START) as draft:
        save_file({name: t.detach().cpu().contiguous() for name, t in network.state_dict().items()}, draft)


def _notes(warmed: WarmUp, scoring: Scoring) -> list[str]:
    notes = [warmed.note]
    notes += [str(scoring.second_order)] if scoring.second_order else []
    return notes + ([f"gradients measured by {scoring.engine}"] if scoring.engine else [])


def write_layers(layers: Sequence[LayerRow | ChannelRow], path: Path) -> None:
    """The table of what is kept, one row a layer."""
    shares = [{"share": round(row.share, 6)} if isinstance(row, LayerRow) else {} for row in layers]
    rows = [{**asdict(row), **share} for row, share in zip(layers, shares, strict=True)]
    write_csv(path, list(rows[0]), rows)


def _check_room(out: Path, options: PruneOptions) -> None:
    if not out.is_dir() or not any(out.iterdir()):
        return
    ours = [record_path(out), out / MASKS, out / CHANNELS, out / CACHE]
    if not any(path.exists() for path in ours):
        raise OutputError(out, "holds something else", "choose another folder")
    if options.existing == "fail" and record_path(out).is_file():
        raise OutputError(out, "holds a pruned network", "choose another folder or --existing overwrite")
