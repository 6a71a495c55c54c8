"""What a criterion gives back: scores, and what there is to say about them."""

from collections.abc import Callable
from dataclasses import dataclass

from radiogen.pruning.settings import ScoringTask
from radiogen.pruning.signatures import Scores
from radiogen.pruning.taylor import SecondOrder


@dataclass(frozen=True)
class Scoring:
    """Scores, and what there is to say about how they came about."""

    scores: Scores
    samples: int = 0  # 0: the criterion looks at no data
    batches: int = 0
    second_order: SecondOrder | None = None
    engine: str = ""  # what measured the moments of the gradients, if they were measured
    change: float | None = None  # share of the kept weights that the last doubling of the samples changed

    def notes(self, settle: float | None = None) -> list[str]:
        """What a user should know, in sentences; `settle` is the share that was asked for."""
        said = [str(self.second_order)] if self.second_order else []
        if self.engine:
            said.append(f"gradients measured by {self.engine}")
        if settle is not None and self.change is not None:
            verdict = "settled" if self.change < settle else "not settled yet, take more samples"
            said.append(
                f"{self.samples} samples: the last doubling changed {self.change:.2%} of the kept weights "
                f"({verdict}; asked for less than {settle:.2%})"
            )
        return said


Criterion = Callable[[ScoringTask], Scoring]
