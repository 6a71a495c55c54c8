"""Plan the runs of a benchmark: criteria x sparsities x seeds, the dense network, the controls."""

from dataclasses import dataclass
from typing import Literal

from pydantic import Field, model_validator

from radiogen.config import Settings, check_settings
from radiogen.errors import ConfigError
from radiogen.pruning.controls import CONTROLS, ControlName
from radiogen.pruning.criteria import CRITERIA

DENSE = "dense"
PAPER_SEEDS = (0, 42, 123)


@dataclass(frozen=True, order=True)
class RunPlan:
    """One run: the dense network, a criterion, or a control of a criterion.

    Attributes:
        criterion: Name of the criterion, or `dense`.
        control: Control that replaces its weight masks; empty for none.
        sparsity: Share of the weights that is removed.
        seed: Of weights, mini-batches, scores and controls.
    """

    criterion: str
    control: ControlName | Literal[""]
    sparsity: float
    seed: int

    @property
    def name(self) -> str:
        """Name of its files: `fts-shuffle-0_95-42`, `dense-0`."""
        sparsity = f"{self.sparsity:g}".replace(".", "_") if self.sparsity else ""
        parts = (self.criterion, self.control, sparsity, str(self.seed))
        return "-".join(part for part in parts if part)


class BenchmarkGrid(Settings):
    """The runs that are compared; the defaults are the rows and seeds of arXiv:2502.11450 and controls."""

    criteria: tuple[str, ...] = Field(
        ("random", "magnitude", "snip", "grasp", "synflow", "fisher-pruning", "fts"), min_length=1
    )
    sparsities: tuple[float, ...] = Field((0.8, 0.9, 0.95, 0.98), min_length=1)
    seeds: tuple[int, ...] = Field(PAPER_SEEDS, min_length=1)
    # Frankle et al. 2021: `shuffle` and `random-layerwise` are one law, drawn twice; a criterion no further
    # from them than they from each other has shown nothing.
    controls: tuple[ControlName, ...] = ("shuffle", "random-layerwise", "reinit")
    controls_of: tuple[str, ...] = ("fts",)

    @model_validator(mode="after")
    def _usable(self) -> "BenchmarkGrid":
        for sparsity in self.sparsities:
            if not 0 < sparsity < 1:
                raise ValueError(f"sparsity {sparsity:g} is not a share to remove, between 0 and 1")
        if self.controls:
            for name in self.controls_of:
                if name not in self.criteria:
                    raise ValueError(f"controls of {name} need {name} among the criteria")
        if any(seed < 0 for seed in self.seeds):
            raise ValueError("seeds are 0 or more")
        return self


def plan_runs(grid: BenchmarkGrid) -> list[RunPlan]:
    """Return all runs of a grid, each once, those of a seed together."""
    plans = []
    for seed in grid.seeds:
        plans.append(RunPlan(DENSE, "", 0.0, seed))
        for sparsity in grid.sparsities:
            for criterion in grid.criteria:
                plans.append(RunPlan(criterion, "", sparsity, seed))
            for criterion in grid.controls_of:
                plans += [RunPlan(criterion, control, sparsity, seed) for control in grid.controls]
    # A sparsity or seed that is named twice is one run: two would write the same files.
    return list(dict.fromkeys(plans))


def parse_grid(
    criteria: str, sparsities: str, seeds: str, controls: str = "none", controls_of: str = ""
) -> BenchmarkGrid:
    """Build a grid from comma-separated lists, as options give them; `none` is no control.

    Raises:
        ConfigError: A word is no criterion, number or control; the right ones are named.
    """
    # Checked here, so that the error names the criteria or controls that exist.
    for name in [*_words(criteria), *_words(controls_of)]:
        if name not in CRITERIA:
            raise ConfigError(f"criterion {name}", "is unknown", f"there are {', '.join(CRITERIA)}")
    for name in _words(controls):
        if name not in CONTROLS:
            raise ConfigError(f"control {name}", "is unknown", f"there are {', '.join(CONTROLS)}")
    values = {
        "criteria": _words(criteria),
        "sparsities": _words(sparsities),
        "seeds": _words(seeds),
        "controls": _words(controls),
        "controls_of": _words(controls_of),
    }
    return check_settings(BenchmarkGrid, values, source="benchmark")


def parse_shares(option: str, text: str) -> list[float]:
    """Return the numbers of a comma-separated list, as an option gives it; `none` is no number.

    Raises:
        ConfigError: A word is no number.
    """
    try:
        return [float(word) for word in _words(text)]
    except ValueError as error:
        raise ConfigError(f"{option} {text}", "holds a word that is no number", "write 0.7,0.5") from error


def _words(text: str) -> list[str]:
    """Return the words of a list, each once; `none` alone is an empty list."""
    words = list(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))
    return [] if words == ["none"] else words
