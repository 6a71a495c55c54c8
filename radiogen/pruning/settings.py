"""What a criterion is given: settings, mini-batches, a loss, and a network that it leaves as it was found."""

import itertools
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from radiogen.config import Settings
from radiogen.errors import PruningError

Batch = tuple[Tensor, ...]
"""Inputs of a mini-batch, the target last; the first axis of each tensor counts the samples."""

Loss = Callable[[nn.Module, Batch], Tensor]
"""Mean loss of a mini-batch, a scalar; it calls the network itself."""

Scores = dict[str, Tensor]
"""One number a weight by parameter name; higher means keep."""

WeightMasks = dict[str, Tensor]
"""Booleans by parameter name, of the shape of the parameter; true means kept."""

Scope = Literal["global", "layer"]
EngineName = Literal["auto", "hooks", "loop"]
FisherScale = Literal["batch", "dataset"] | Annotated[float, Field(gt=0, allow_inf_nan=False)]

GRASP_TEMPERATURE = 200.0  # Wang et al. 2020
SYNFLOW_ROUNDS = 100  # Tanaka et al. 2020


class MomentSettings(Settings):
    """How the moments of the gradients are measured; only `settle` changes more than the last digits."""

    engine: EngineName = "auto"
    """`loop` takes one backward pass a mini-batch, `hooks` one over several and is checked against the loop
    first; `auto` takes hooks where they agree with the loop, else the loop."""
    memory_mb: int = Field(512, ge=1)
    """Memory for the mini-batches that are worked on together, in MiB."""
    settle: float | None = Field(None, gt=0, lt=1)
    """Stop when a doubling of the mini-batches changed less than this share of the kept weights."""

    @field_validator("engine", mode="before")
    @classmethod
    def _former_name(cls, name: Any) -> Any:
        """Read the former name of the hooks, and say what replaces the engine that was removed."""
        if name == "func":
            raise ValueError("engine func was removed, it was slower than the loop; take auto, hooks or loop")
        return "hooks" if name == "native" else name


class CriterionSettings(Settings):
    """How weights are scored; the defaults are the published values."""

    criterion: str = "fts"
    """A name of `radiogen.pruning.criteria.CRITERIA`; an unknown one is refused when weights are scored."""
    sparsity: float = Field(0.9, ge=0, lt=1)
    """Share of the prunable weights that is removed; scores themselves depend on it in rounds only."""
    scope: Scope = "global"
    fisher_scale: FisherScale = "batch"
    """What the Fisher term of fts and fbss is multiplied by: the mini-batch size (the paper), the number of
    samples, or a number (1 in the successor)."""
    temperature: float | None = Field(None, gt=0)
    """What grasp divides the network's output by; 200 unless given, and 1 in the published FTS code."""
    probes: int = Field(10, ge=1)
    """Rademacher probes of the Hutchinson criteria."""
    rounds: int | None = Field(None, ge=1)
    """Score, prune a part, score again; 100 for synflow unless given, 1 for all others."""
    moments: MomentSettings = MomentSettings()
    reference: bool = False
    """Reproduce the published code: its rule by names, its signs, its counting, its order among ties."""

    @property
    def round_count(self) -> int:
        """Number of rounds, given or usual for the criterion."""
        return self.rounds or (SYNFLOW_ROUNDS if self.criterion == "synflow" else 1)


@dataclass(frozen=True)
class ScoringTask:
    """One network to score: what every criterion is given."""

    model: nn.Module
    batches: Iterable[Batch]
    loss: Loss
    weights: dict[str, nn.Parameter]  # the prunable ones
    settings: CriterionSettings = field(default_factory=CriterionSettings)
    rng: torch.Generator = field(default_factory=torch.Generator)
    pool: Callable[[Scores], Scores] | None = None  # sums over channels; Taylor terms then keep their signs


def sample_count(batch: Batch) -> int:
    """Return how many samples a mini-batch holds."""
    return int(batch[-1].shape[0])


class FirstBatches:
    """The first mini-batches of a scoring set; `samples` and `batches` count those of the last pass."""

    def __init__(self, batches: Iterable[Batch], count: int) -> None:
        self._all = batches
        self._count = count
        self.samples = 0
        self.batches = 0

    def __iter__(self) -> Iterator[Batch]:
        self.samples = 0
        self.batches = 0
        for batch in itertools.islice(self._all, self._count):
            self.samples += sample_count(batch)
            self.batches += 1
            yield batch


def read_batches(batches: Iterable[Batch]) -> Iterator[Batch]:
    """Yield the mini-batches of one pass.

    Raises:
        PruningError: They are an iterator, which a second pass would find empty, or there are none.
    """
    if isinstance(batches, Iterator):
        raise PruningError("scoring set", "can be read only once", "give a list or a loader of mini-batches")
    is_empty = True
    for batch in batches:
        is_empty = False
        yield batch
    if is_empty:
        raise PruningError("scoring set", "holds no mini-batch", "give at least one sample")


def loss_of(model: nn.Module, batch: Batch, loss: Loss) -> Tensor:
    """Return the loss of one mini-batch, checked to be a scalar.

    Raises:
        PruningError: It is not a scalar tensor.
    """
    value = loss(model, batch)
    if value.dim() != 0:
        raise PruningError(
            "loss", f"has the shape {tuple(value.shape)}", "return the mean over the mini-batch, a scalar"
        )
    return value


def refuse_non_finite(values: Scores, kind: str) -> None:
    """Refuse numbers that are infinite or NaN.

    Raises:
        PruningError: Some are; the first such layer is named.
    """
    for name, value in values.items():
        bad = int((~value.isfinite()).sum())
        if bad:
            raise PruningError(
                name,
                f"{bad} of {value.numel()} {kind} are not finite",
                "look for infinite inputs or a loss that overflows; score in float32 or float64",
            )


@contextmanager
def scoring_state(
    model: nn.Module, differentiate: Collection[Tensor] | None = None, restore_buffers: bool = True
) -> Iterator[None]:
    """Put a network into evaluation mode for scoring, and restore all of it afterwards, also on errors.

    Inside, gradients are enabled whatever the caller set. Weights are not copied: what runs inside must not
    change them.

    Args:
        model: The network.
        differentiate: The parameters to differentiate by; all others are frozen meanwhile. Default: all.
        restore_buffers: Whether buffers are restored; a warm-up changes them on purpose.
    """
    modes = [(module, module.training) for module in model.modules()]
    parameters = [(p, p.requires_grad, p.grad) for p in model.parameters()]
    buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers() if restore_buffers]
    wanted = None if differentiate is None else {id(p) for p in differentiate}
    # Dropout and the like may draw; what the caller draws afterwards must not depend on scoring.
    with torch.random.fork_rng(devices=_cuda_devices(model)), torch.enable_grad():
        try:
            model.eval()
            for parameter, _, _ in parameters:
                parameter.grad = None
                parameter.requires_grad_(wanted is None or id(parameter) in wanted)
            yield
        finally:
            for module, training in modes:
                module.training = training
            for parameter, requires_grad, grad in parameters:
                parameter.requires_grad_(requires_grad)
                parameter.grad = grad
            with torch.no_grad():
                for buffer, before in buffers:
                    buffer.copy_(before)


def _cuda_devices(model: nn.Module) -> list[int]:
    indices = {p.device.index for p in model.parameters() if p.device.type == "cuda"}
    return sorted(index for index in indices if index is not None)
