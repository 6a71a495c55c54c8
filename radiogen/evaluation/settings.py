"""What an evaluation compares, and by which rules."""

from itertools import pairwise

from pydantic import Field, field_validator

from radiogen.config import Settings
from radiogen.measures.intervals import DRAWS
from radiogen.measures.matching import LEAST_IOU

SIZE_BINS_MM = (10.0, 20.0, 30.0, 50.0)


class EvaluateOptions(Settings):
    """Rules of an evaluation; each stands in its run record and its summary."""

    tolerance_mm: float = Field(2.0, ge=0, allow_inf_nan=False)  # up to which surfaces agree
    least_iou: float = Field(LEAST_IOU, gt=0, le=1)  # of a lesion and its partner
    size_bins_mm: tuple[float, ...] = SIZE_BINS_MM  # upper ends of bins of the longest diameter
    loosen: float = Field(0.0, ge=0, le=2)  # share by which the floors' boxes are longer than the lesions
    split: str | None = None  # only the cases of this split
    seed: int = Field(0, ge=0)  # of the bootstrap
    bootstrap: int = Field(DRAWS, ge=100)  # draws of patients for the intervals

    @field_validator("size_bins_mm")
    @classmethod
    def _rising(cls, edges: tuple[float, ...]) -> tuple[float, ...]:
        if not edges or edges[0] <= 0 or any(a >= b for a, b in pairwise(edges)):
            raise ValueError("give diameters in mm that rise, such as 10,20,30,50")
        return edges

    def size_bin(self, diameter_mm: float) -> str:
        """The name of the bin of a diameter; a diameter at an edge belongs to the bin above it.

        >>> [EvaluateOptions().size_bin(mm) for mm in (9.9, 10, 50)]
        ['< 10 mm', '10-20 mm', '>= 50 mm']
        """
        return self.size_bin_names()[sum(diameter_mm >= edge for edge in self.size_bins_mm)]

    def size_bin_names(self) -> tuple[str, ...]:
        """The bins, the smallest first."""
        edges = [f"{edge:g}" for edge in self.size_bins_mm]
        between = [f"{low}-{high} mm" for low, high in pairwise(edges)]
        return (f"< {edges[0]} mm", *between, f">= {edges[-1]} mm")
