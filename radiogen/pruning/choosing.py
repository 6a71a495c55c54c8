"""Choose the weights of any network to keep before it is trained, and hold the others at zero."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils._pytree import tree_leaves

from radiogen.config import check_settings
from radiogen.errors import PruningError
from radiogen.pruning.controls import CONTROLS, ControlName
from radiogen.pruning.costs import weight_uses
from radiogen.pruning.criteria import find_criterion, score_weights
from radiogen.pruning.layers import LayerRow, bypassed, layer_lines, layer_table
from radiogen.pruning.paths import Paths, find_paths
from radiogen.pruning.prunable import PRUNABLE_MODULES, prunable
from radiogen.pruning.scoring import Scoring
from radiogen.pruning.settings import (
    Batch,
    CriterionSettings,
    Loss,
    Scope,
    WeightMasks,
    read_batches,
    scoring_state,
)
from radiogen.pruning.weight_masks import (
    MaskHooks,
    apply_weight_masks,
    check_masks_held,
    check_sparsity,
    hold_weight_masks,
    save_weight_masks,
    weight_masks,
)

OutputLoss = Callable[[Any, Tensor], Tensor]
"""Mean loss of a mini-batch, of what the network returns and the target."""


@dataclass(frozen=True)
class WeightChoice:
    """The weights of a network that pruning keeps, with the table of its layers, which `print` shows."""

    model: nn.Module = field(repr=False)
    masks: WeightMasks = field(repr=False)  # booleans by parameter name, true means kept
    layers: list[LayerRow] = field(repr=False)
    scoring: Scoring = field(repr=False)
    settings: CriterionSettings
    notes: tuple[str, ...]  # what was decided, in sentences

    def hold(self, optimizer: Optimizer) -> MaskHooks:
        """Keep the removed weights at zero through every step of an optimiser, until `remove()` is called."""
        return hold_weight_masks(self.model, self.masks, optimizer)

    def check(self) -> None:
        """Refuse the network if a removed weight is not zero; for use before saving.

        Raises:
            PruningError: Some are not; the layer is named.
        """
        check_masks_held(self.model, self.masks)

    def save(self, path: str | Path) -> None:
        """Write the weight masks to a safetensors file, one bit a weight."""
        save_weight_masks(Path(path), self.masks, self.settings.model_dump(mode="json"))

    def __str__(self) -> str:
        return "\n".join([*layer_lines(self.layers), *self.notes])


def prune_model(
    model: nn.Module,
    batches: Iterable[Any],
    loss: OutputLoss,
    sparsity: float = 0.9,
    criterion: str = "fts",
    scope: Scope = "global",
    exclude: Collection[str] | None = None,
    seed: int = 0,
) -> WeightChoice:
    """Score the weights of any network, and set all but the highest to zero; then train with `hold`.

    The face offers it as `radiogen.prune`, whose documentation describes the arguments. By default the last
    layer before each output is left alone, and so are layers that no output depends on in evaluation, such as
    heads for deep supervision.

    Raises:
        PruningError: Nothing to prune, a mini-batch that is no tuple of tensors, scores that are not finite,
            or no path is left from the input to the output.
    """
    find_criterion(criterion)
    check_sparsity(sparsity)
    values = {"criterion": criterion, "sparsity": sparsity, "scope": scope}
    settings = check_settings(CriterionSettings, values, source="prune")
    device = next(iter(prunable(model).values())).device
    tuples = _BatchesOnDevice(batches, device)

    def loss_of_batch(network: nn.Module, batch: Batch) -> Tensor:
        return loss(network(*batch[:-1]), batch[-1])

    one_sample = [t[:1] for t in next(iter(tuples))[:-1]]
    with scoring_state(model):
        uses = weight_uses(model, one_sample)
        alone = _left_alone(model, one_sample) if exclude is None else tuple(exclude)
    rng = torch.Generator().manual_seed(seed)
    choice = choose_weights(model, tuples, loss_of_batch, settings, rng, alone, uses=uses)
    apply_weight_masks(model, choice.masks)
    return choice


def choose_weights(
    model: nn.Module,
    batches: Iterable[Batch],
    loss: Loss,
    settings: CriterionSettings,
    rng: torch.Generator,
    exclude: Collection[str] = (),
    control: ControlName = "none",
    allow_collapse: bool = False,
    uses: Mapping[str, int] | None = None,
) -> WeightChoice:
    """Score the weights of a network and choose those to keep; the network keeps all of them for now.

    Args:
        model: The network at its start.
        batches: Mini-batches.
        loss: Mean loss of a mini-batch.
        settings: Criterion, sparsity and scope.
        rng: For criteria and controls that draw.
        exclude: Parameters or modules that are never pruned.
        control: Replaces the choice by a random one (`reinit` draws the weights of the network anew).
        allow_collapse: Accept a network in which no path is left from the input to the output.
        uses: How often one pass multiplies each weight, for the table.

    Raises:
        PruningError: As `scores`, or no path is left; the error names a sparsity at which one is.
    """
    scoring = score_weights(model, batches, loss, settings, rng, exclude)
    state = rng.get_state()

    def masks_at(sparsity: float) -> WeightMasks:
        rng.set_state(state)
        chosen = weight_masks(scoring.scores, sparsity, settings.scope, settings.reference)
        return CONTROLS[control](model, chosen, rng)

    masks = masks_at(settings.sparsity)
    paths = find_paths(model, masks, batches, loss)
    if not paths.is_open and not allow_collapse:
        raise PruningError(
            f"sparsity {settings.sparsity:g}",
            "leaves no path from the input of the network to its output",
            _way_out(settings, lambda s: find_paths(model, masks_at(s), batches, loss)),
        )
    layers = layer_table(model, masks, paths.cut, uses)
    kept, weights = sum(row.kept for row in layers), sum(row.weights for row in layers)
    notes = [f"{kept} of {weights} prunable weights kept, the highest {_PLACES[settings.scope]}"]
    if not paths.is_open:
        notes.append("no path is left from the input to the output")
    elif paths.cut:
        notes.append(bypassed(layers))
        notes += [f"the output does not depend on the {name} any more" for name in paths.lost_inputs]
    notes += scoring.notes(settings.moments.settle)
    if control != "none":
        notes.append(f"control {control}: not what {settings.criterion} chose")
    return WeightChoice(model, masks, layers, scoring, settings, tuple(notes))


_PLACES: dict[Scope, str] = {"global": "of all layers together", "layer": "of each layer"}


def _way_out(settings: CriterionSettings, paths_at: Callable[[float], Paths]) -> str:
    """Return the hint with the first lower sparsity that was tried and leaves a path."""
    if settings.round_count > 1:  # other rounds would score otherwise
        return "lower the sparsity"
    sparsity = settings.sparsity
    while True:
        # Twice as many weights, or half as many fewer: few tries both near 1 and near 0.
        sparsity = round(max(1 - 2 * (1 - sparsity), sparsity / 2), 6)
        if paths_at(sparsity).is_open:
            return f"take sparsity {sparsity:g}, at which a path is left"


class _BatchesOnDevice(Iterable[Batch]):
    """Mini-batches of a loader as tuples on the device of the network, in as many passes as wanted."""

    def __init__(self, batches: Iterable[Any], device: torch.device) -> None:
        self._batches, self._device = batches, device

    def __iter__(self) -> Iterator[Batch]:
        for batch in read_batches(self._batches):
            is_sequence = isinstance(batch, list | tuple)
            if not is_sequence or len(batch) < 2 or not all(isinstance(t, Tensor) for t in batch):
                raise PruningError(
                    "scoring set",
                    f"has a mini-batch that is {type(batch).__name__}, not a tuple of tensors",
                    "give (inputs, ..., target), such as [(b['image'], b['label']) for b in loader]",
                )
            yield tuple(t.to(self._device) for t in batch)


def _left_alone(model: nn.Module, inputs: list[Tensor]) -> tuple[str, ...]:
    """Return the weights of the last layer before each output, and of layers that no output depends on."""
    parameters = {id(p): name for name, p in model.named_parameters()}
    order: dict[Any, tuple[int, str]] = {}  # by the node of the autograd graph that a layer made

    def note(layer: nn.Module, _inputs: Any, output: Tensor) -> None:
        order[output.grad_fn] = (len(order), parameters[id(layer.weight)])

    layers = [m for m in model.modules() if isinstance(m, PRUNABLE_MODULES) and id(m.weight) in parameters]
    handles = [layer.register_forward_hook(note) for layer in layers]
    try:
        outputs = [t for t in tree_leaves(model(*inputs)) if isinstance(t, Tensor) and t.requires_grad]
    finally:
        for handle in handles:
            handle.remove()
    behind = [[order[node] for node in _walk_back(t.grad_fn) if node in order] for t in outputs]
    last = {max(found)[1] for found in behind if found}
    used = {name for found in behind for _, name in found}
    return tuple(name for name in prunable(model) if name in last or name not in used)


def _walk_back(end: Any) -> Iterator[Any]:
    """Yield every node of the autograd graph behind one, each once."""
    waiting, visited = [end], {end}
    while waiting:
        node = waiting.pop()
        yield node
        for before, _ in node.next_functions:
            if before is not None and before not in visited:
                visited.add(before)
                waiting.append(before)
