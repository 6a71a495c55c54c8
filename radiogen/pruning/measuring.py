"""Measure the moments of the gradients: by hooks where they agree with the plain loop, in bounded memory."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from radiogen.distributed import share_of_rank
from radiogen.errors import PruningError
from radiogen.pruning.moments import Moments, MomentSums, Weights, add_by_hooks, add_by_loop
from radiogen.pruning.settings import Batch, Loss, MomentSettings, read_batches, scoring_state

Engine = Callable[[MomentSums, nn.Module, list[Batch], Loss, Weights], None]

ENGINES: dict[str, Engine] = {"hooks": add_by_hooks, "loop": add_by_loop}

SHORT_RUN = 4  # mini-batches that are not worth a check: the loop does them
CHECKED_ON = 2  # mini-batches that the hooks are compared on
FIRST_LOOK = 8  # mini-batches before the kept weights are compared for the first time
LARGEST_CHUNK = 32  # mini-batches in one pass of the hooks; more of them gain nothing
ACTIVATION_FACTOR = 2  # memory of a pass, beside what autograd keeps of it: gradients, and what lies between


def measure_moments(
    model: nn.Module,
    batches: Iterable[Batch],
    loss: Loss,
    weights: Weights,
    settings: MomentSettings | None = None,
    is_settled: Callable[[Moments], bool] | None = None,
) -> Moments:
    """Return the moments of `gradient_moments`, equal up to rounding, in less time.

    The loop and the hooks both do the first two mini-batches, and where they agree the hooks go on with the
    rest, several mini-batches a pass. Under torch.distributed every process takes its share of the
    mini-batches, and all of them get the moments of the whole.

    Args:
        model: The network; left as it was found.
        batches: Mini-batches.
        loss: Mean loss of a mini-batch.
        weights: The parameters to differentiate by.
        settings: Engine and memory.
        is_settled: Called with the moments so far after 8, 16, 32, ... mini-batches (of each process); when
            it returns true, the rest is left out.

    Raises:
        PruningError: As `gradient_moments`, or the engine `hooks` was given and does not agree with the loop.
    """
    settings = settings or MomentSettings()
    with scoring_state(model, weights.values()):
        stream = read_batches(share_of_rank(batches))
        first = list(itertools.islice(stream, SHORT_RUN + 1))
        if len(first) <= SHORT_RUN or settings.engine == "loop":
            plan = _MomentPlan("loop", 1, MomentSums(weights))
        else:
            plan = _check_hooks(model, first[:CHECKED_ON], loss, weights, settings)
        sums = plan.sums
        rest = itertools.chain(first[sums.batches :], stream)

        def add(part: Iterable[Batch]) -> None:
            for chunk in _chunks(part, plan.chunk):
                ENGINES[plan.engine](sums, model, chunk, loss, weights)

        if is_settled is None:
            add(rest)
            return sums.means(plan.engine)
        # All ranks see the moments of all, so they stop together; `before` notices that the data ran out.
        target, before = FIRST_LOOK, 0
        while True:
            add(itertools.islice(rest, target - sums.batches))
            moments = sums.means(plan.engine, keep_sums=True)
            if moments.batches == before or is_settled(moments):
                return sums.means(plan.engine)
            target, before = 2 * target, moments.batches


@dataclass(frozen=True)
class _MomentPlan:
    """An engine, how many mini-batches it is given at once, and the sums so far."""

    engine: str
    chunk: int
    sums: MomentSums


def _check_hooks(
    model: nn.Module, first: list[Batch], loss: Loss, weights: Weights, settings: MomentSettings
) -> _MomentPlan:
    """Compare the hooks with the loop on the first mini-batches, and take the loop where they disagree.

    No list of what hooks can do would be complete (samples that interact, weights used by hand, layers that
    reorder their rows), so they are tried on the network itself.

    Raises:
        PruningError: The engine `hooks` was given and does not agree with the loop.
    """
    # What autograd keeps of one mini-batch tells how many fit into the memory that may be taken.
    reference = MomentSums(weights)
    with _saved_bytes(model) as saved:
        add_by_loop(reference, model, first[:1], loss, weights)
    add_by_loop(reference, model, first[1:], loss, weights)
    by_hooks = MomentSums(weights)
    try:
        add_by_hooks(by_hooks, model, first, loss, weights)
        objection = "" if agree(by_hooks, reference) else "does not agree with the loop"
    except PruningError as error:
        objection = f"{error.thing} {error.wrong}"
    except (RuntimeError, TypeError, ValueError) as error:
        objection = f"fails: {error}"
    if not objection:
        each = ACTIVATION_FACTOR * sum(saved.values())
        chunk = max(1, min(LARGEST_CHUNK, settings.memory_mb * 2**20 // max(1, each)))
        return _MomentPlan("hooks", chunk, by_hooks)
    if settings.engine == "hooks":
        raise PruningError("engine hooks", objection, "take engine auto or loop")
    return _MomentPlan("loop", 1, reference)


def agree(found: MomentSums, reference: MomentSums) -> bool:
    """Return whether sums of gradients are the same in every layer, beside the size of its gradients.

    Not to the last digit: where an activation lies within rounding of a kink of ReLU, two kernels may take
    two sides. Gradients that went to a wrong sample or layer are off by as much as they are large.
    """
    # Layers whose gradients vanish beside the largest ones of the network are compared with those.
    largest = max(float(squares.max()) for squares in reference.squares.values())
    for name, squares in reference.squares.items():
        tolerance = 100 * torch.finfo(squares.dtype).eps ** 0.5
        size = max(float(squares.sum()), 1e-6 * largest) ** 0.5
        squares_size = max(float(squares.norm()), 1e-6 * largest)
        total_error = float((found.total[name] - reference.total[name]).norm())
        squares_error = float((found.squares[name] - squares).norm())
        # Written so that NaN, which compares as false, does not agree.
        if not (total_error <= tolerance * size and squares_error <= tolerance * squares_size):
            return False
    return True


@contextmanager
def _saved_bytes(model: nn.Module) -> Iterator[Mapping[int, int]]:
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


def _chunks(batches: Iterable[Batch], size: int) -> Iterator[list[Batch]]:
    """Yield lists of at most `size` neighbouring mini-batches of the same shapes."""

    def shapes(batch: Batch) -> list[tuple[torch.Size, torch.dtype]]:
        return [(tensor.shape, tensor.dtype) for tensor in batch]

    for _, same in itertools.groupby(batches, key=shapes):
        while chunk := list(itertools.islice(same, size)):
            yield chunk
