"""How much two choices of weights have in common."""

from dataclasses import dataclass

from radiogen.errors import PruningError
from radiogen.pruning.signatures import WeightMasks


@dataclass(frozen=True)
class Overlap:
    """What two weight masks keep in common, of one layer or of all."""

    name: str
    kept_first: int
    kept_second: int
    kept_both: int
    expected_both: float  # by chance, if both kept as many of each layer at random

    @property
    def shared(self) -> float:
        """Kept by both, as a share of the smaller of the two."""
        return self.kept_both / max(1, min(self.kept_first, self.kept_second))

    @property
    def jaccard(self) -> float:
        """Kept by both, as a share of what either keeps."""
        return self.kept_both / max(1, self.kept_first + self.kept_second - self.kept_both)


def overlap(first: WeightMasks, second: WeightMasks) -> Overlap:
    """What two weight masks of one network keep in common, over all layers.

    Raises:
        PruningError: They are of different architectures; the layer is named.
    """
    rows = overlap_table(first, second)
    return Overlap(
        "all",
        sum(row.kept_first for row in rows),
        sum(row.kept_second for row in rows),
        sum(row.kept_both for row in rows),
        sum(row.expected_both for row in rows),
    )


def overlap_table(first: WeightMasks, second: WeightMasks) -> list[Overlap]:
    """What two weight masks of one network keep in common, layer by layer.

    Raises:
        PruningError: They are of different architectures; the layer is named.
    """
    for name in first.keys() ^ second.keys():
        raise PruningError(name, "is in one of the weight masks only", "compare masks of one network")
    rows = []
    for name, mask in first.items():
        other = second[name].to(mask.device)
        if mask.shape != other.shape:
            raise PruningError(
                name,
                f"has masks {tuple(mask.shape)} and {tuple(other.shape)}",
                "compare masks of one network",
            )
        one, two, both = int(mask.sum()), int(other.sum()), int((mask & other).sum())
        rows.append(Overlap(name, one, two, both, one * two / mask.numel()))
    return rows
