"""The settings of a criterion, and the task that each criterion is given."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import nn

from radiogen.config import Settings
from radiogen.pruning.signatures import Batch, Loss, Scores

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
    generator: torch.Generator = field(default_factory=torch.Generator)
    pool: Callable[[Scores], Scores] | None = None  # sums over channels; Taylor terms then keep their signs
