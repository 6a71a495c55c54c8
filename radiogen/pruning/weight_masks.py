"""Choose the weights to keep from their scores, and lay the choice on a network."""

import math
from collections.abc import Mapping
from decimal import Decimal

import torch
from torch import Tensor, nn
from torch._dynamo import OptimizedModule
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from radiogen.errors import PruningError
from radiogen.pruning.settings import Scope
from radiogen.pruning.signatures import Scores, WeightMasks, refuse_not_finite


def weight_masks(
    scores: Scores, sparsity: float, scope: Scope = "global", reference: bool = False
) -> WeightMasks:
    """Keep the k = max(1, floor((1 - sparsity) n)) highest scores, exactly k of n.

    Args:
        scores: One number a weight by parameter name.
        sparsity: Share that is removed, in [0, 1), read as the decimal number it is written as.
        scope: `global` compares all weights with each other, `layer` those of each parameter.
        reference: Count and order as the published code: `int((1 - sparsity) * n)` in binary arithmetic,
            ties and NaN in the order of `torch.topk`. Otherwise the first of equal scores are kept, in the
            order of the dictionary and of the flattened parameters.

    Raises:
        PruningError: The sparsity is out of range, or a score is not finite; the layer is named.
    """
    check_sparsity(sparsity)
    if not reference:
        refuse_not_finite(scores, "scores")
    if scope == "layer":
        return {name: _keep_highest({name: s}, sparsity, reference)[name] for name, s in scores.items()}
    return _keep_highest(scores, sparsity, reference)


def check_sparsity(sparsity: float) -> None:
    """Refuse a sparsity that keeps nothing.

    Raises:
        PruningError: It is not in [0, 1).
    """
    if not 0 <= sparsity < 1:
        raise PruningError(
            f"sparsity {sparsity:g}",
            "would remove every weight" if sparsity == 1 else "is not a share",
            "give the share to remove, from 0 to below 1; 0.9 keeps one weight in ten",
        )


def kept_count(weights: int, sparsity: float) -> int:
    """How many of n weights a sparsity keeps.

    >>> kept_count(1000, 0.9)
    100
    """
    return max(1, math.floor((1 - Decimal(str(sparsity))) * weights))


def _keep_highest(scores: Scores, sparsity: float, reference: bool) -> WeightMasks:
    count = sum(score.numel() for score in scores.values())
    if reference:
        flat = torch.cat([score.flatten() for score in scores.values()])
        mask = torch.zeros_like(flat, dtype=torch.bool)
        mask[torch.topk(flat, int((1 - sparsity) * count)).indices] = True
        parts = torch.split(mask, [score.numel() for score in scores.values()])
        return {name: p.view(s.shape).clone() for (name, s), p in zip(scores.items(), parts, strict=True)}
    kept = kept_count(count, sparsity)
    threshold = _kth_highest(scores, kept)
    masks = {name: (score > threshold).contiguous() for name, score in scores.items()}
    missing = kept - sum(int(mask.sum()) for mask in masks.values())
    for name, score in scores.items():
        ties = (score == threshold).flatten().nonzero().squeeze(1)[:missing]
        masks[name].view(-1)[ties] = True
        missing -= len(ties)
    return masks


def _kth_highest(scores: Scores, k: int) -> float:
    """Found in one copy of the scores: `torch.kthvalue` takes three times their memory beside it."""
    flat = torch.cat([score.detach().flatten().cpu() for score in scores.values()])
    values = (flat if flat.dtype in (torch.float32, torch.float64) else flat.float()).numpy()
    values.partition(len(values) - k)
    return float(values[len(values) - k])


def apply_weight_masks(model: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Set every weight outside its mask to zero, in place.

    Raises:
        PruningError: The masks are of another architecture; the layer is named.
    """
    for weight, mask in matched(model, masks).values():
        weight.detach().masked_fill_(~mask, 0)


def matched(model: nn.Module, masks: Mapping[str, Tensor]) -> dict[str, tuple[nn.Parameter, Tensor]]:
    """Each mask beside its weight, on the weight's device; DDP, averaging and compile are looked through.

    Raises:
        PruningError: A mask has no weight or another shape; the layer is named.
    """
    parameters = dict(_unwrapped(model).named_parameters(remove_duplicate=False))
    pairs = {}
    for name, mask in masks.items():
        weight = parameters.get(name)
        if weight is None:
            raise PruningError(
                name,
                f"is not a layer of this {type(model).__name__}",
                "take weight masks made for this network",
            )
        if weight.shape != mask.shape:
            raise PruningError(
                name,
                f"has weights {tuple(weight.shape)} and a weight mask {tuple(mask.shape)}",
                "take weight masks made for this network and its widths",
            )
        pairs[name] = (weight, mask.to(weight.device))
    return pairs


def _unwrapped(model: nn.Module) -> nn.Module:
    while True:
        if isinstance(model, DistributedDataParallel | AveragedModel):
            model = model.module
        elif isinstance(model, OptimizedModule):
            model = model._orig_mod
        else:
            return model


def sparsity_of(masks: Mapping[str, Tensor]) -> float:
    """The share of the masked weights that is removed."""
    total = sum(mask.numel() for mask in masks.values())
    return 1 - sum(int(mask.sum()) for mask in masks.values()) / total
