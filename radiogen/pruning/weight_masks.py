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
        return {
            name: _keep_highest(s.flatten(), sparsity, reference).view(s.shape) for name, s in scores.items()
        }
    flat = _keep_highest(torch.cat([s.flatten() for s in scores.values()]), sparsity, reference)
    parts = torch.split(flat, [s.numel() for s in scores.values()])
    return {name: part.view(s.shape).clone() for (name, s), part in zip(scores.items(), parts, strict=True)}


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


def _keep_highest(flat: Tensor, sparsity: float, reference: bool) -> Tensor:
    mask = torch.zeros_like(flat, dtype=torch.bool)
    if reference:
        mask[torch.topk(flat, int((1 - sparsity) * flat.numel())).indices] = True
        return mask
    kept = kept_count(flat.numel(), sparsity)
    threshold = flat.kthvalue(flat.numel() - kept + 1).values
    mask |= flat > threshold
    ties = (flat == threshold).nonzero().squeeze(1)
    mask[ties[: kept - int(mask.sum())]] = True
    return mask


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
