"""Prune RA-Seg before it is trained: score its weights or channels at the start, keep the highest."""

import shutil
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast, overload

import torch
from pydantic import Field
from torch import nn
from torch.utils.data import default_collate

from radiogen.config import Settings
from radiogen.distributed import barrier, broadcast_state, is_rank_zero, process_group
from radiogen.errors import OutputError
from radiogen.io.cases import find_cases
from radiogen.io.tensors import save_tensors
from radiogen.networks.raseg import RASeg, build_raseg
from radiogen.provenance import RunRecord, record_path, remove_if_refused, write_csv, write_json
from radiogen.pruning.channel_choice import ChannelSettings
from radiogen.pruning.channel_pruning import ChannelPruningResult, prune_channels
from radiogen.pruning.choosing import OutputLoss, WeightChoice, choose_weights, prune_model
from radiogen.pruning.controls import ControlName
from radiogen.pruning.criteria import find_criterion
from radiogen.pruning.layers import LayerRow
from radiogen.pruning.settings import Batch, CriterionSettings, Scope, WeightMasks
from radiogen.pruning.warmup import WarmUpSettings, warm_up
from radiogen.pruning.weight_masks import apply_weight_masks, check_sparsity, save_weight_masks
from radiogen.runtime import AnyPath, Progress, no_progress, pick_device
from radiogen.training.batches import epoch_draws
from radiogen.training.patches import Patch, PatchDataset
from radiogen.training.prepared import learnable, prepare
from radiogen.training.pruned_folder import (
    CHANNELS,
    CONFIG,
    LAYERS,
    MASKS,
    START,
    PrunedConfig,
    count_uses,
    start_hash,
)
from radiogen.training.raseg_channels import raseg_channels
from radiogen.training.settings import RunSettings, load_preset
from radiogen.training.step import segmentation_loss

CACHE = "prepared"


@dataclass(frozen=True)
class ScoringSet:
    """Patches one at a time, the same on every pass: the draws of a first epoch as long as it needs to be."""

    patches: PatchDataset
    samples: int
    device: torch.device
    progress: Progress

    def __len__(self) -> int:
        return self.samples

    def __iter__(self) -> Iterator[Batch]:
        return (self[number] for number in range(self.samples))

    def __getitem__(self, number: int) -> Batch:
        patch: Patch = self.patches[0, number]
        self.progress("score", number + 1, self.samples)
        return tuple(tensor[None].to(self.device) for tensor in patch)


@dataclass(frozen=True)
class TrainingSet:
    """The mini-batches of the first epoch of training, in its order."""

    patches: PatchDataset
    batch_size: int
    seed: int
    device: torch.device
    progress: Progress

    def __iter__(self) -> Iterator[Batch]:
        draws = epoch_draws(len(self.patches), self.seed)
        for start in range(0, len(draws), self.batch_size):
            some: list[Patch] = [self.patches[draw] for draw in draws[start : start + self.batch_size]]
            yield tuple(tensor.to(self.device) for tensor in default_collate(some))
            self.progress("warm up", min(start + self.batch_size, len(draws)), len(draws))


class PruneOptions(Settings):
    """Options of `prune`: network, criterion, warm-up and patches."""

    preset: str = "modern"
    seed: int = 0
    criterion: CriterionSettings = CriterionSettings()
    warmup: WarmUpSettings = WarmUpSettings()
    samples: int = Field(32, ge=1, description="patches that are scored, one at a time as in the paper")
    control: ControlName = "none"
    allow_collapse: bool = False
    """Accept a network in which no path is left from the image to the logits."""
    channels: ChannelSettings | None = None
    """Remove whole channels instead; sparsity, scope and control of single weights do not count then."""
    existing: Literal["overwrite", "fail"] = "overwrite"


@dataclass(frozen=True)
class PrunedNetwork:
    """A pruned folder that was written, with its table of layers."""

    folder: Path
    layers: list[LayerRow]
    sparsity: float
    notes: tuple[str, ...]
    channels: ChannelPruningResult | None = None  # the smaller network; `layers` is empty then


def check_scoring(criterion: str, sparsity: float) -> None:
    """Refuse an unknown criterion or a sparsity that keeps nothing, before any work is done.

    Raises:
        PruningError: With the right names, or the range.
    """
    find_criterion(criterion)
    check_sparsity(sparsity)


@overload
def prune(
    cases: AnyPath,
    out: AnyPath,
    settings: RunSettings | None = None,
    options: PruneOptions | None = None,
    device: str | torch.device = "auto",
    progress: Progress = no_progress,
) -> PrunedNetwork: ...


@overload
def prune(
    model: nn.Module,
    batches: Iterable[Any],
    loss: OutputLoss,
    sparsity: float = 0.9,
    criterion: str = "fts",
    scope: Scope = "global",
    exclude: Collection[str] | None = None,
    seed: int = 0,
) -> WeightChoice: ...


def prune(*args: Any, **kwargs: Any) -> PrunedNetwork | WeightChoice:
    """Choose the weights to keep before training: of RA-Seg for a case folder, or of any network.

    `prune(cases, out)` scores RA-Seg on patches of the cases and writes a pruned folder, as `radiogen prune`
    does. `prune(model, batches, loss, sparsity=0.9)` scores any torch network and sets the removed weights to
    zero, in place. What it returns shows the layer table when printed, and keeps the zeros in training with
    `hold(optimizer)`.

    Args:
        cases: A case folder; cases without an outline or of the split `test` are left out.
        out: The pruned folder to write.
        settings: Network and preprocessing, as the training will have them; else those of `options.preset`.
        options: Criterion, sparsity, scope, warm-up, seed.
        device: `auto`, `cpu`, `cuda`, `cuda:N`, `mps` or a device.
        progress: Called with what is done and how much there is.
        model: Any network at its start.
        batches: Mini-batches (inputs, ..., target) as a list or loader, of one sample each in the paper.
        loss: Mean loss of a mini-batch, called with what the network returns and the target.
        sparsity: Share of the prunable weights that is removed.
        criterion: Name of the pruning criterion.
        scope: `global` ranks all weights together, `layer` those of each layer.
        exclude: Layers or parameters that are left alone; by default those that make the output.
        seed: For criteria that draw.

    Raises:
        CaseError: No case has an outline.
        PruningError: Nothing to prune, scores that are not finite, or no path is left to the output.
        OutputError: The folder holds something already.
    """
    if "model" in kwargs or (args and isinstance(args[0], nn.Module)):
        return prune_model(*args, **kwargs)
    return prune_cases(*args, **kwargs)


def prune_cases(
    cases: AnyPath,
    out: AnyPath,
    settings: RunSettings | None = None,
    options: PruneOptions | None = None,
    device: str | torch.device = "auto",
    progress: Progress = no_progress,
) -> PrunedNetwork:
    """Score RA-Seg at its start on patches of the cases and write the weight masks of what is kept.

    The arguments and errors are those of `prune` for a case folder.
    """
    cases, out, device = Path(cases), Path(out), pick_device(device)
    options = options or PruneOptions()
    settings = settings or load_preset(options.preset)
    check_scoring(options.criterion.criterion, options.criterion.sparsity)
    _check_output_folder(out, options)
    usable, left_out = learnable(find_cases(cases), need_outline=not settings.training.synthetic_lesions)
    record = RunRecord(
        "prune", options=options.model_dump(mode="json"), seed=options.seed, device=str(device)
    )
    with process_group(device), remove_if_refused(out), _scratch(out / CACHE) as cache:
        # Rank 0 fills the cache; the others wait for it and read.
        if not is_rank_zero():
            barrier()
        prepared = prepare(usable, settings.preprocessing, cache, progress)
        if is_rank_zero():
            barrier()
        patches = PatchDataset(prepared, settings.preprocessing, settings.training, options.seed)
        network = build_raseg(settings.network, options.seed).to(device)
        selection = _select(network, patches, settings, options, device, progress)
        barrier()  # before the cache is removed
    patients = {case.patient_id for case in usable}
    if is_rank_zero():
        small = selection.small
        _write(out, selection, patients, settings, options)
        record.decisions += [*left_out, *(small.totals() if small else ()), *selection.notes]
        tensors = [out / CHANNELS, out / START] if small else [out / MASKS]
        record.finish(out, [*tensors, out / LAYERS, out / CONFIG])
    return PrunedNetwork(out, selection.layers, selection.removed, selection.notes, selection.small)


@dataclass(frozen=True)
class _Selection:
    """The weights or channels that are kept, and the network that training starts from."""

    network: RASeg  # at its masked start, or the smaller one
    masks: WeightMasks  # or booleans over each group of channels
    layers: list[LayerRow]
    samples: int
    is_redrawn: bool  # the seed alone does not draw this start: it is written beside the masks
    notes: tuple[str, ...] = ()
    small: ChannelPruningResult | None = None

    @property
    def removed(self) -> float:
        """Share of the weights that is removed: of all if channels left, else of the prunable ones."""
        if self.small:
            return 1 - self.small.after.weights / self.small.before.weights
        return 1 - sum(row.kept for row in self.layers) / sum(row.weights for row in self.layers)


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    try:
        yield folder
    finally:
        if is_rank_zero():
            shutil.rmtree(folder, ignore_errors=True)


def _select(
    network: RASeg,
    patches: PatchDataset,
    settings: RunSettings,
    options: PruneOptions,
    device: torch.device,
    progress: Progress,
) -> _Selection:
    """Warm up, score, and keep what scores highest."""
    rng = torch.Generator().manual_seed(options.seed)
    training_set = TrainingSet(patches, settings.training.batch_size, options.seed, device, progress)
    warmed = warm_up(network, training_set, segmentation_loss(), options.warmup, rng)
    broadcast_state(network)  # processes may have computed the warm-up with other rounding
    batches = ScoringSet(patches, options.samples, device, progress)
    loss, criterion = segmentation_loss(), options.criterion
    if options.channels:
        channels = raseg_channels(network)
        small = prune_channels(network, batches, loss, channels, options.channels, criterion, rng)
        samples = small.scoring.samples
        selection = _Selection(cast(RASeg, small.network), small.kept, [], samples, True, small=small)
        notes = [warmed.note, *small.scoring.notes(criterion.moments.settle)]
        if options.channels.control != "none":
            notes.append(f"control {options.channels.control}: not what {criterion.criterion} chose")
    else:
        uses = count_uses(settings.network, settings.preprocessing.size)
        outputs = network.output_layers
        choice = choose_weights(
            network, batches, loss, criterion, rng, outputs, options.control, options.allow_collapse, uses
        )
        apply_weight_masks(network, choice.masks)
        is_redrawn = warmed.batches > 0 or options.control == "reinit"
        selection = _Selection(network, choice.masks, choice.layers, choice.scoring.samples, is_redrawn)
        notes = [*choice.notes, warmed.note]
    return replace(selection, notes=tuple(notes))


def _write(
    out: Path, selection: _Selection, patients: set[str], settings: RunSettings, options: PruneOptions
) -> None:
    # The record first: without it a folder does not count as finished.
    for path in (record_path(out), *(out / file for file in (MASKS, CHANNELS, START, LAYERS, CONFIG))):
        path.unlink(missing_ok=True)
    criterion = options.criterion.model_dump(mode="json")
    about = {**criterion, "seed": options.seed, "samples": selection.samples, "control": options.control}
    if options.channels:
        about["channels"] = options.channels.model_dump(mode="json")
    kept = {name: mask.cpu() for name, mask in selection.masks.items()}
    save_weight_masks(out / (CHANNELS if selection.small else MASKS), kept, about)
    if selection.is_redrawn:
        save_tensors(out / START, selection.network.state_dict())
    if selection.small:
        rows = [asdict(row) for row in selection.small.layers]
    else:
        rows = [{**asdict(row), "share": round(row.share, 6), "macs": row.macs} for row in selection.layers]
    write_csv(out / LAYERS, list(rows[0]), rows)
    config = PrunedConfig(
        preset=options.preset,
        seed=options.seed,
        sparsity=0.0 if selection.small else options.criterion.sparsity,
        warmup=options.warmup.kind,
        control=options.channels.control if options.channels else options.control,
        start_hash=start_hash(selection.network),
        network=selection.network.settings if selection.small else None,
        patients_seen=tuple(sorted(patients)),
        settings=settings,
    )
    write_json(out / CONFIG, config.model_dump(mode="json"))


def _check_output_folder(out: Path, options: PruneOptions) -> None:
    if not out.is_dir() or not any(out.iterdir()):
        return
    of_prune = [record_path(out), out / MASKS, out / CHANNELS, out / CACHE]
    if not any(path.exists() for path in of_prune):
        raise OutputError(out, "holds something else", "choose another folder")
    if options.existing == "fail" and record_path(out).is_file():
        raise OutputError(out, "holds a pruned network", "choose another folder or --existing overwrite")
