"""Prune RA-Seg before it is trained: score its weights at the start, keep the highest."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, cast

import torch
from pydantic import Field
from torch.utils.data import default_collate

from radiogen.config import Settings
from radiogen.distributed import barrier, broadcast_state, is_rank_zero, process_group
from radiogen.errors import OutputError, PruningError
from radiogen.io.cases import find_cases
from radiogen.io.tensors import save_tensors
from radiogen.networks.raseg import RASeg, build_raseg
from radiogen.provenance import RunRecord, record_path, remove_if_refused, write_csv, write_json
from radiogen.pruning.channel_choice import ChannelSettings
from radiogen.pruning.channel_pruning import ChannelPruned, ChannelRow, prune_channels
from radiogen.pruning.controls import CONTROLS, ControlName
from radiogen.pruning.criteria import CRITERIA, score_weights
from radiogen.pruning.layers import LayerRow, check_collapse, layer_table
from radiogen.pruning.prunable import prunable
from radiogen.pruning.settings import Batch, CriterionSettings, WeightMasks
from radiogen.pruning.warmup import WarmUpSettings, warm_up
from radiogen.pruning.weight_masks import apply_weight_masks, check_sparsity, save_weight_masks, weight_masks
from radiogen.runtime import Progress, no_progress
from radiogen.training.patches import Patch, PatchDataset, epoch_draws
from radiogen.training.prepared import learnable, prepare
from radiogen.training.pruned_folder import (
    CHANNELS,
    CONFIG,
    LAYERS,
    MASKS,
    START,
    PrunedConfig,
    start_hash,
    uses_of,
)
from radiogen.training.raseg_channels import raseg_channels
from radiogen.training.settings import RunSettings
from radiogen.training.step import segmentation_loss


class ScoringSet:
    """Patches one at a time, the same on every pass: the draws of a first epoch as long as it needs to be."""

    def __init__(self, patches: PatchDataset, samples: int, device: torch.device, progress: Progress) -> None:
        self.patches, self.samples, self.device, self.progress = patches, samples, device, progress

    def __len__(self) -> int:
        return self.samples

    def __iter__(self) -> Iterator[Batch]:
        return (self[number] for number in range(self.samples))

    def __getitem__(self, number: int) -> Batch:
        patch: Patch = self.patches[0, number]
        self.progress("score", number + 1, self.samples)
        return tuple(tensor[None].to(self.device) for tensor in patch)


class TrainingSet:
    """The mini-batches of the first epoch of training, in its order."""

    def __init__(
        self, patches: PatchDataset, batch_size: int, seed: int, device: torch.device, progress: Progress
    ) -> None:
        self.patches, self.batch_size, self.seed = patches, batch_size, seed
        self.device, self.progress = device, progress

    def __iter__(self) -> Iterator[Batch]:
        draws = epoch_draws(len(self.patches), self.seed)
        for start in range(0, len(draws), self.batch_size):
            some: list[Patch] = [self.patches[draw] for draw in draws[start : start + self.batch_size]]
            yield tuple(tensor.to(self.device) for tensor in default_collate(some))
            self.progress("warm up", min(start + self.batch_size, len(draws)), len(draws))


CACHE = "prepared"


class PruneOptions(Settings):
    """What is pruned, how it is scored, and on how many patches."""

    preset: str = "modern"
    seed: int = 0
    criterion: CriterionSettings = CriterionSettings()
    warmup: WarmUpSettings = WarmUpSettings()
    samples: int = Field(32, ge=1, description="patches that are scored, one at a time as in the paper")
    control: ControlName = "none"
    allow_collapse: bool = False
    channels: ChannelSettings | None = None
    """Take out whole channels instead; sparsity, scope and control of single weights do not count then."""
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


def prune(
    cases: Path,
    out: Path,
    settings: RunSettings,
    options: PruneOptions,
    device: torch.device,
    progress: Progress = no_progress,
) -> PrunedNetwork:
    """Score RA-Seg at its start on patches of the cases and write the weight masks of what is kept.

    Args:
        cases: A case folder; cases without an outline or of the split `test` are left out.
        out: The pruned folder to write.
        settings: Network and preprocessing, as the training will have them.
        options: Criterion, sparsity, scope, warm-up, seed.
        device: Where to score.
        progress: Called with what is done and how much there is.

    Raises:
        CaseError: No case has an outline.
        PruningError: Scores are not finite, or a layer has collapsed.
        OutputError: The folder holds something already.
    """
    _check_room(out, options)
    usable, left_out = learnable(find_cases(cases), need_outline=not settings.training.synthetic_lesions)
    record = RunRecord(
        "prune", options=options.model_dump(mode="json"), seed=options.seed, device=str(device)
    )
    with process_group(device), remove_if_refused(out), _scratch(out / CACHE) as cache:
        if not is_rank_zero():
            barrier()  # then the cache is full
        prepared = prepare(usable, settings.preprocessing, cache, progress)
        if is_rank_zero():
            barrier()
        patches = PatchDataset(prepared, settings.preprocessing, settings.training, options.seed)
        network = build_raseg(settings.network, options.seed).to(device)
        chosen = _choose(network, patches, settings, options, device, progress)
        barrier()  # before the cache goes
    small = chosen.small
    config = PrunedConfig(
        preset=options.preset,
        seed=options.seed,
        sparsity=0.0 if small else options.criterion.sparsity,
        warmup=options.warmup.kind,
        control=options.channels.control if options.channels else options.control,
        start_hash=start_hash(chosen.network),
        network=chosen.network.settings if small else None,
        patients_seen=tuple(sorted({case.patient_id for case in usable})),
        settings=settings,
    )
    if is_rank_zero():
        _write(out, chosen, config, options)
        record.decisions += [*left_out, *(small.totals() if small else ()), *chosen.notes]
        made = [out / CHANNELS, out / START] if small else [out / MASKS]
        record.finish(out, [*made, out / LAYERS, out / CONFIG])
    if small:
        removed = 1 - small.after.weights / small.before.weights
        return PrunedNetwork(out, [], removed, chosen.notes, small)
    kept, weights = (sum(getattr(row, part) for row in chosen.layers) for part in ("kept", "weights"))
    return PrunedNetwork(out, chosen.layers, 1 - kept / weights, chosen.notes)


@dataclass(frozen=True)
class _Chosen:
    """What scoring led to."""

    network: RASeg  # at its masked start, or the smaller one
    masks: WeightMasks  # or what is kept of each group of channels
    layers: list[LayerRow]
    samples: int
    is_redrawn: bool  # the start is not the one that the seed draws
    notes: tuple[str, ...]
    small: ChannelPruned | None = None


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    try:
        yield folder
    finally:
        if is_rank_zero():
            shutil.rmtree(folder, ignore_errors=True)


def _choose(
    network: RASeg,
    patches: PatchDataset,
    settings: RunSettings,
    options: PruneOptions,
    device: torch.device,
    progress: Progress,
) -> _Chosen:
    loss, criterion = segmentation_loss(), options.criterion
    rng = torch.Generator().manual_seed(options.seed)
    training_set = TrainingSet(patches, settings.training.batch_size, options.seed, device, progress)
    warmed = warm_up(network, training_set, loss, options.warmup, rng)
    broadcast_state(network)
    batches = ScoringSet(patches, options.samples, device, progress)
    if options.channels:
        channels = raseg_channels(network)
        small = prune_channels(network, batches, loss, channels, options.channels, criterion, rng)
        said = [warmed.note, *small.scoring.notes(criterion.moments.settle)]
        said += _control_note(options.channels.control, criterion.criterion)
        smaller = cast(RASeg, small.network)
        return _Chosen(smaller, small.kept, [], small.scoring.samples, True, tuple(said), small)
    scoring = score_weights(network, batches, loss, criterion, rng, exclude=network.output_layers)
    masks = weight_masks(scoring.scores, criterion.sparsity, criterion.scope, criterion.reference)
    masks = CONTROLS[options.control](network, masks, rng)
    layers = layer_table(network, masks, batches, loss, uses_of(settings))
    by_type = prunable(network)  # slopes and norms, pruned by the published names, may be empty
    check_collapse([row for row in layers if row.name in by_type], options.allow_collapse)
    apply_weight_masks(network, masks)
    notes = [f"{sum(r.kept for r in layers)} of {sum(r.weights for r in layers)} prunable weights kept"]
    notes += [warmed.note, *scoring.notes(criterion.moments.settle)]
    notes += _control_note(options.control, criterion.criterion)
    is_redrawn = warmed.batches > 0 or options.control == "reinit"
    return _Chosen(network, masks, layers, scoring.samples, is_redrawn, tuple(notes))


def _control_note(control: str, criterion: str) -> list[str]:
    return [] if control == "none" else [f"control {control}: not what {criterion} chose"]


def _write(out: Path, chosen: _Chosen, config: PrunedConfig, options: PruneOptions) -> None:
    for name in (record_path(out), *(out / file for file in (MASKS, CHANNELS, START, LAYERS, CONFIG))):
        name.unlink(missing_ok=True)
    criterion = options.criterion.model_dump(mode="json")
    about = {**criterion, "seed": options.seed, "samples": chosen.samples, "control": options.control}
    if options.channels:
        about["channels"] = options.channels.model_dump(mode="json")
    kept = {name: mask.cpu() for name, mask in chosen.masks.items()}
    save_weight_masks(out / (CHANNELS if chosen.small else MASKS), kept, about)
    if chosen.is_redrawn:
        save_tensors(out / START, chosen.network.state_dict())
    write_layers(chosen.small.layers if chosen.small else chosen.layers, out / LAYERS)
    write_json(out / CONFIG, config.model_dump(mode="json"))


def write_layers(layers: Sequence[LayerRow | ChannelRow], path: Path) -> None:
    """The table of what is kept, one row a layer."""
    rows = [
        {**asdict(row), "share": round(row.share, 6), "macs": row.macs}
        if isinstance(row, LayerRow)
        else asdict(row)
        for row in layers
    ]
    write_csv(path, list(rows[0]), rows)


def _check_room(out: Path, options: PruneOptions) -> None:
    if not out.is_dir() or not any(out.iterdir()):
        return
    ours = [record_path(out), out / MASKS, out / CHANNELS, out / CACHE]
    if not any(path.exists() for path in ours):
        raise OutputError(out, "holds something else", "choose another folder")
    if options.existing == "fail" and record_path(out).is_file():
        raise OutputError(out, "holds a pruned network", "choose another folder or --existing overwrite")
