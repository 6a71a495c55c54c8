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
from radiogen.pruning.settings import MomentSettings
from radiogen.pruning.signatures import Batch, Loss

Weights = Mapping[str, nn.Parameter]
Engine = Callable[[MomentSums, nn.Module, list[Batch], Loss, Weights], None]

ENGINES: dict[str, Engine] = {"native": native_chunk, "func": functional_chunk, "loop": loop_chunk}
"""By name, the one that `auto` tries first at the front."""
LARGEST_CHUNK = 32
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
    """Do the first mini-batches with the loop, and find an engine that gives the same.

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
    wanted = list(ENGINES) if settings.engine == "auto" else [settings.engine]
    reasons = []
    for name in wanted:
        chunk = _chunk_size(name, sum(saved.values()), weights, settings)
        objection = "" if name == "loop" else _objection(name, sums, model, first, loss, weights)
        if not objection:
            return Plan(name, ENGINES[name], chunk)
        reasons.append(objection)
    raise PruningError(f"engine {settings.engine}", "; ".join(reasons), "take engine auto or loop")


def _objection(
    name: str, truth: MomentSums, model: nn.Module, first: list[Batch], loss: Loss, weights: Weights
) -> str:
    trial = MomentSums(weights)
    try:
        ENGINES[name](trial, model, first, loss, weights)
    except PruningError as error:
        return f"{error.what} {error.wrong}"
    except (RuntimeError, TypeError, ValueError) as error:
        return f"fails: {error}"
    return "" if agree(trial, truth) else "does not agree with the loop"


def agree(found: MomentSums, truth: MomentSums) -> bool:
    """Whether sums of gradients are the same in every layer, beside the size of its gradients.

    Not to the last digit: where an activation lies within rounding of a kink of ReLU, two kernels may take
    two sides. Gradients that went to a wrong sample or layer are off by as much as they are large.
    """
    overall = max(float(s.sum()) for s in truth.squares.values()) ** 0.5
    for name, squares in truth.squares.items():
        tolerance = 100 * torch.finfo(squares.dtype).eps ** 0.5
        size = max(float(squares.sum()) ** 0.5, 1e-3 * overall)
        size_squared = max(float(squares.norm()), 1e-6 * overall**2)
        gradient_off = float((found.total[name] - truth.total[name]).norm())
        squares_off = float((found.squares[name] - squares).norm())
        if not (gradient_off <= tolerance * size and squares_off <= tolerance * size_squared):
            return False
    return True


def _chunk_size(name: str, saved: int, weights: Weights, settings: MomentSettings) -> int:
    if name == "loop":
        return 1
    each = _BESIDE_THE_SAVED * saved
    if name == "func":
        each += 2 * sum(w.numel() * w.element_size() for w in weights.values())
    return max(1, min(LARGEST_CHUNK, settings.memory_mb * 2**20 // max(1, each) // settings.jobs))


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
