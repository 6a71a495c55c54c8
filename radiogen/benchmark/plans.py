"""Which runs a benchmark consists of: criteria x sparsities x seeds, the dense network, the controls."""

from dataclasses import dataclass
from typing import Literal

from pydantic import Field, model_validator

from radiogen.config import Settings, check_settings
from radiogen.errors import ConfigError
from radiogen.pruning.controls import CONTROLS, ControlName
from radiogen.pruning.criteria import CRITERIA
from radiogen.pruning.settings import CriterionName

DENSE = "dense"
PAPER_SEEDS = (0, 42, 123)


@dataclass(frozen=True, order=True)
class Plan:
    """One run. Without a criterion it is the dense network, without a control the criterion itself."""

    criterion: str
    control: ControlName | Literal[""]
    sparsity: float
    seed: int

    @property
    def name(self) -> str:
        """The name of its files: `fts-shuffle-0_95-42`, `dense-0`."""
        parts = [
            self.criterion,
            self.control,
            f"{self.sparsity:g}".replace(".", "_") if self.sparsity else "",
        ]
        return "-".join([*(part for part in parts if part), str(self.seed)])


class Grid(Settings):
    """What is compared with what."""

    criteria: tuple[CriterionName, ...] = Field(
        ("random", "magnitude", "snip", "grasp", "synflow", "fisher-pruning", "fts"), min_length=1
    )
    sparsities: tuple[float, ...] = Field((0.8, 0.9, 0.95, 0.98), min_length=1)
    seeds: tuple[int, ...] = Field(PAPER_SEEDS, min_length=1)
    controls: tuple[ControlName, ...] = ("shuffle", "random-layerwise", "reinit")
    controls_of: tuple[CriterionName, ...] = ("fts",)

    @model_validator(mode="after")
    def _usable(self) -> "Grid":
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


def plan_runs(grid: Grid) -> list[Plan]:
    """All runs of a grid, each once, those of a seed together."""
    plans = []
    for seed in grid.seeds:
        plans.append(Plan(DENSE, "", 0.0, seed))
        for sparsity in grid.sparsities:
            for criterion in grid.criteria:
                plans.append(Plan(criterion, "", sparsity, seed))
            for criterion in grid.controls_of:
                plans += [Plan(criterion, control, sparsity, seed) for control in grid.controls]
    return list(dict.fromkeys(plans))


def read_grid(
    criteria: str, sparsities: str, seeds: str, controls: str = "none", controls_of: str = ""
) -> Grid:
    """A grid from lists as they are written on a command line, parted by commas; `none` is no control.

    Raises:
        ConfigError: A word is no criterion, number or control; the right ones are named.
    """
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
    return check_settings(Grid, values, source="benchmark")


def shares(option: str, text: str) -> list[float]:
    """Numbers as they are written on a command line, parted by commas; `none` is no number.

    Raises:
        ConfigError: A word is no number.
    """
    try:
        return [float(word) for word in _words(text)]
    except ValueError as error:
        raise ConfigError(f"{option} {text}", "holds a word that is no number", "write 0.7,0.5") from error


def _words(text: str) -> list[str]:
    """The words of a list, each once; `none` alone is an empty list."""
    words = list(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))
    return [] if words == ["none"] else words
