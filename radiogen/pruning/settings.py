"""The settings of a criterion, and the task that each criterion is given."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Annotated, Literal

import torch
from pydantic import Field
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


def sample_count(batch: Batch) -> int:
    """How many samples a mini-batch holds."""
    return int(batch[-1].shape[0])


class FirstOf:
    """The first so many mini-batches of a scoring set, counted as they are read; the last pass counts."""

    def __init__(self, batches: Iterable[Batch], count: int) -> None:
        self._batches, self._count = batches, count
        self.samples = self.batches = 0

    def __iter__(self) -> Iterator[Batch]:
        self.samples = self.batches = 0
        for batch in itertools.islice(self._batches, self._count):
            self.samples += sample_count(batch)
            self.batches += 1
            yield batch


def read_batches(batches: Iterable[Batch]) -> Iterator[Batch]:
    """One pass over the mini-batches.

    Raises:
        PruningError: They are an iterator, which a second pass would find empty, or there are none.
    """
    if isinstance(batches, Iterator):
        raise PruningError("scoring set", "can be read only once", "give a list or a loader of mini-batches")
    found = False
    for batch in batches:
        found = True
        yield batch
    if not found:
        raise PruningError("scoring set", "holds no mini-batch", "give at least one sample")


def loss_of(model: nn.Module, batch: Batch, loss: Loss) -> Tensor:
    """The loss of one mini-batch, checked to be a scalar.

    Raises:
        PruningError: It is not a scalar tensor.
    """
    value = loss(model, batch)
    if value.dim() != 0:
        raise PruningError(
            "loss", f"has the shape {tuple(value.shape)}", "return the mean over the mini-batch, a scalar"
        )
    return value


def refuse_not_finite(values: Scores, kind: str) -> None:
    """Check that all numbers are finite.

    Raises:
        PruningError: Some are not; the first such layer is named.
    """
    for name, value in values.items():
        bad = int((~value.isfinite()).sum())
        if bad:
            raise PruningError(
                name,
                f"{bad} of {value.numel()} {kind} are not finite",
                "look for infinite inputs or a loss that overflows; score in float32 or float64",
            )


Scope = Literal["global", "layer"]
CriterionName = Literal[
    "random",
    "magnitude",
    "grad-norm",
    "snip",
    "grasp",
    "synflow",
    "fisher-diag",
    "fisher-pruning",
    "fts",
    "fbss",
    "hutch-diag",
    "hutch-pruning",
    "hts",
]
EngineName = Literal["auto", "native", "func", "loop"]
FisherScale = Literal["batch", "dataset"] | Annotated[float, Field(gt=0, allow_inf_nan=False)]

GRASP_TEMPERATURE = 200.0  # Wang et al. 2020
SYNFLOW_ROUNDS = 100  # Tanaka et al. 2020


class MomentSettings(Settings):
    """How the moments of the gradients are measured; only `settle` changes more than the last digits."""

    engine: EngineName = "auto"
    """`loop` is the plain loop; the others are checked against it first, and `auto` takes the first of native
    and func that agrees, or the loop."""
    jobs: int = Field(1, ge=1)
    """Processes that part the mini-batches, each with its share of the threads."""
    memory_mb: int = Field(512, ge=1)
    """What the mini-batches that are worked on together may take in each process, in MiB."""
    settle: float | None = Field(None, gt=0, lt=1)
    """Stop when a doubling of the mini-batches changed less than this share of the kept weights."""


class CriterionSettings(Settings):
    """How weights are scored; the defaults are the published values."""

    criterion: CriterionName = "fts"
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
        """How many rounds there are, given or usual for the criterion."""
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
