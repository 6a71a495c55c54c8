"""The table of what weight masks keep of each layer."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from radiogen.pruning.prunable import TRANSPOSED
from radiogen.pruning.settings import WeightMasks
from radiogen.pruning.weight_masks import match_masks


@dataclass(frozen=True)
class LayerRow:
    """One layer of a pruned network; a channel is dead when none of its weights is kept."""

    name: str
    weights: int
    kept: int
    channels_in: int
    dead_in: int
    channels_out: int
    dead_out: int
    is_cut: bool  # nothing from the input reaches the output through this layer any more
    macs_dense: int = 0  # multiply-accumulate operations of one pass of the dense layer; 0 if not counted

    @property
    def share(self) -> float:
        """Share of the weights that is kept."""
        return self.kept / self.weights

    @property
    def macs(self) -> int:
        """MACs with a kept weight: what is left for a machine that skips zeros, and no other."""
        return self.macs_dense // self.weights * self.kept


def layer_table(
    model: nn.Module,
    masks: WeightMasks,
    cut: Collection[str] = (),
    uses: Mapping[str, int] | None = None,
) -> list[LayerRow]:
    """Return what the weight masks keep of each layer.

    Args:
        model: The network; it is not changed.
        masks: Booleans by parameter name.
        cut: The layers that no path leads through, from `find_paths`.
        uses: How often one pass multiplies each weight, from `weight_uses`, for the MACs.

    Raises:
        PruningError: The masks are of another architecture; the layer is named.
    """
    modules = {id(module.weight): module for module in model.modules() if hasattr(module, "weight")}
    rows = []
    for name, (weight, mask) in match_masks(model, masks).items():
        outputs, inputs = _live_channels(modules.get(id(weight)), mask)
        rows.append(
            LayerRow(
                name=name,
                weights=mask.numel(),
                kept=int(mask.sum()),
                channels_in=inputs.numel(),
                dead_in=int((~inputs).sum()),
                channels_out=outputs.numel(),
                dead_out=int((~outputs).sum()),
                is_cut=name in cut,
                macs_dense=mask.numel() * (uses or {}).get(name, 0),
            )
        )
    return rows


def bypassed(table: Iterable[LayerRow]) -> str:
    """Return a sentence about the layers that no path leads through, by part of the network.

    >>> row = LayerRow("recurrence.gates.weight", 90, 3, 1, 0, 1, 0, is_cut=True)
    >>> bypassed([row])
    'recurrence is bypassed: no path leads through it, paths round it remain'
    """
    table = list(table)
    # "recurrence.layers.0.weight" is a layer of the recurrence.
    layers = Counter(row.name.split(".")[0] for row in table)
    cut = Counter(row.name.split(".")[0] for row in table if row.is_cut)
    parts = [
        part if count == layers[part] else f"{count} of {layers[part]} layers of {part}"
        for part, count in cut.items()
    ]
    are, them = ("is", "it") if len(parts) == 1 and parts[0] in cut else ("are", "them")
    return f"{', '.join(parts)} {are} bypassed: no path leads through {them}, paths round {them} remain"


def layer_lines(table: Iterable[LayerRow]) -> list[str]:
    """Return the table as text: one line a layer and one for all; MACs of kept weights, in millions."""
    table = list(table)
    lines = [f"{'layer':<44}{'weights':>10}{'kept':>9}{'share':>8}{'dead in':>9}{'dead out':>10}{'MMACs':>9}"]
    for row in table:
        dead_in, dead_out = f"{row.dead_in}/{row.channels_in}", f"{row.dead_out}/{row.channels_out}"
        counts = f"{row.weights:>10}{row.kept:>9}{row.share:>8.3f}{dead_in:>9}{dead_out:>10}"
        lines.append(f"{row.name:<44}{counts}{row.macs / 1e6:>9.1f}{'  bypassed' if row.is_cut else ''}")
    weights = sum(row.weights for row in table)
    kept = sum(row.kept for row in table)
    macs = sum(row.macs for row in table) / 1e6
    dense = sum(row.macs_dense for row in table) / 1e6
    counts = f"{weights:>10}{kept:>9}{kept / weights:>8.3f}{'':>19}"
    return [*lines, f"{'all':<44}{counts}{macs:>9.1f}  of {dense:.1f} dense"]


def _live_channels(module: nn.Module | None, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return which output and which input channels have a kept weight.

    Weights are (out, in / groups, ...), those of a transposed convolution (in, out / groups, ...).
    """
    pairs = mask.reshape(*mask.shape[:2], -1).any(dim=2) if mask.dim() > 1 else mask.reshape(-1, 1)
    groups = int(getattr(module, "groups", 1))
    blocks = pairs.reshape(groups, -1, pairs.shape[1])
    first_axis = blocks.any(dim=2).reshape(-1)
    second_axis = blocks.any(dim=1).reshape(-1)
    return (second_axis, first_axis) if isinstance(module, TRANSPOSED) else (first_axis, second_axis)
