"""Choose how the moments are measured: which engine agrees with the loop, how much of the data at once."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from radiogen.errors import PruningError
from radiogen.pruning.functional_gradients import functional_chunk
from radiogen.pruning.moments import MomentSums, loop_chunk
from radiogen.pruning.native_gradients import native_chunk
from radiogen.pruning.settings import Batch, Loss, MomentSettings

Weights = Mapping[str, nn.Parameter]
Excerpts = dict[str, tuple[Tensor, Tensor]]  # sums of gradients and of their squares, some of each layer
Engine = Callable[[MomentSums, nn.Module, list[Batch], Loss, Weights], None]

ENGINES: dict[str, Engine] = {"native": native_chunk, "func": functional_chunk, "loop": loop_chunk}
"""By name, the one that `auto` tries first at the front."""
LARGEST_CHUNK = 32
EXCERPT = 2**16  # weights of a layer that are compared
_BESIDE_THE_SAVED = 2  # gradients and what comes between two layers, beside what autograd keeps


@dataclass(frozen=True)
class Plan:
    """An engine, and how many mini-batches it is given at once."""

    name: str
    engine: Engine
    chunk: int


def choose_plan(
    sums: MomentSums,
    model: nn.Module,
    first: list[Batch],
    loss: Loss,
    weights: Weights,
    settings: MomentSettings,
) -> Plan:
    """Find an engine that gives the same as the loop on the first mini-batches.

    Args:
        sums: Empty; receives the gradients of `first`.
        model: The network, in evaluation mode.
        first: A few mini-batches.
        loss: Mean loss of a mini-batch.
        weights: The parameters to differentiate by.
        settings: Which engine is wanted, and the memory that several mini-batches may take.

    Raises:
        PruningError: The engine that was asked for does not agree with the loop.
    """
    with _count_saved(model) as saved:
        loop_chunk(sums, model, first[:1], loss, weights)
    loop_chunk(sums, model, first[1:], loss, weights)
    truth = _excerpts(sums)
    reasons = []
    for name in ENGINES if settings.engine == "auto" else [settings.engine]:
        sums.clear()
        objection = _try(name, sums, model, first, loss, weights)
        if not (objection or name == "loop" or agree(_excerpts(sums), truth)):
            objection = "does not agree with the loop"
        if not objection:
            return Plan(name, ENGINES[name], _chunk_size(name, sum(saved.values()), weights, settings))
        reasons.append(objection)
    raise PruningError(f"engine {settings.engine}", "; ".join(reasons), "take engine auto or loop")


def _try(
    name: str, sums: MomentSums, model: nn.Module, first: list[Batch], loss: Loss, weights: Weights
) -> str:
    try:
        ENGINES[name](sums, model, first, loss, weights)
    except PruningError as error:
        return f"{error.thing} {error.wrong}"
    except (RuntimeError, TypeError, ValueError) as error:
        return f"fails: {error}"
    return ""


def _excerpts(sums: MomentSums) -> Excerpts:
    def some(value: Tensor) -> Tensor:
        flat = value.flatten()
        return flat[:: -(-flat.numel() // EXCERPT)].clone()

    return {name: (some(total), some(sums.squares[name])) for name, total in sums.total.items()}


def agree(found: Excerpts, truth: Excerpts) -> bool:
    """Whether sums of gradients are the same in every layer, beside the size of its gradients.

    Not to the last digit: where an activation lies within rounding of a kink of ReLU, two kernels may take
    two sides. Gradients that went to a wrong sample or layer are off by as much as they are large.
    """
    overall = max(float(squares.max()) for _, squares in truth.values())
    for name, (total, squares) in truth.items():
        tolerance = 100 * torch.finfo(squares.dtype).eps ** 0.5
        size = max(float(squares.sum()), 1e-6 * overall) ** 0.5
        squares_size = max(float(squares.norm()), 1e-6 * overall)
        total_off = float((found[name][0] - total).norm())
        squares_off = float((found[name][1] - squares).norm())
        if not (total_off <= tolerance * size and squares_off <= tolerance * squares_size):
            return False
    return True


def _chunk_size(name: str, saved: int, weights: Weights, settings: MomentSettings) -> int:
    if name == "loop":
        return 1
    each = _BESIDE_THE_SAVED * saved
    if name == "func":
        each += 2 * sum(w.numel() * w.element_size() for w in weights.values())
    return max(1, min(LARGEST_CHUNK, settings.memory_mb * 2**20 // max(1, each)))


@contextmanager
def _count_saved(model: nn.Module) -> Iterator[dict[int, int]]:
    """Bytes that autograd keeps for the backward pass, by the place of the storage; parameters left out."""
    saved: dict[int, int] = {}
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        yield saved
