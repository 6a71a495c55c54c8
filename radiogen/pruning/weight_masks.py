"""Weight masks: choose the weights to keep, apply and hold the choice on a network, write and read it."""

import json
import math
from collections.abc import Mapping
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import NonNegativeInt, TypeAdapter
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch._dynamo import OptimizedModule
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel
from torch.utils.hooks import RemovableHandle

from radiogen.errors import PruningError
from radiogen.provenance import whole_file
from radiogen.pruning.settings import Scope, Scores, WeightMasks, refuse_non_finite


def weight_masks(
    scores: Scores, sparsity: float, scope: Scope = "global", reference: bool = False
) -> WeightMasks:
    """Choose the weights to keep: the k = max(1, floor((1 - sparsity) n)) highest scores, exactly k.

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
        refuse_non_finite(scores, "scores")
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
    """Return how many of n weights a sparsity keeps.

    >>> kept_count(1000, 0.9)
    100
    """
    # As decimals: in binary (1 - 0.9) * 1000 is 99.99..., and 99 would be kept.
    return max(1, math.floor((1 - Decimal(str(sparsity))) * weights))


def _keep_highest(scores: Scores, sparsity: float, reference: bool) -> WeightMasks:
    count = sum(score.numel() for score in scores.values())
    if reference:
        flat = torch.cat([score.flatten() for score in scores.values()])
        mask = torch.zeros_like(flat, dtype=torch.bool)
        mask[torch.topk(flat, int((1 - sparsity) * count)).indices] = True
        layers = torch.split(mask, [score.numel() for score in scores.values()])
        return {
            name: layer.view(score.shape).clone()
            for (name, score), layer in zip(scores.items(), layers, strict=True)
        }
    kept = kept_count(count, sparsity)
    threshold = _kth_highest(scores, kept)
    masks = {name: (score > threshold).contiguous() for name, score in scores.items()}
    missing = kept - sum(int(mask.sum()) for mask in masks.values())
    # Exactly k: among equal scores the first are kept, in the order of layers and of places in them.
    for name, score in scores.items():
        ties = (score == threshold).flatten().nonzero().squeeze(1)[:missing]
        masks[name].view(-1)[ties] = True
        missing -= len(ties)
    return masks


def _kth_highest(scores: Scores, k: int) -> float:
    """Return the k-th highest score, in the memory of one copy; `torch.kthvalue` takes three more."""
    flat = torch.cat([score.detach().flatten().cpu() for score in scores.values()])
    values = (flat if flat.dtype in (torch.float32, torch.float64) else flat.float()).numpy()
    values.partition(len(values) - k)
    return float(values[len(values) - k])


def apply_weight_masks(model: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Set every weight outside its mask to zero, in place.

    Raises:
        PruningError: The masks are of another architecture; the layer is named.
    """
    for weight, mask in match_masks(model, masks).values():
        weight.detach().masked_fill_(~mask, 0)


def match_masks(model: nn.Module, masks: Mapping[str, Tensor]) -> dict[str, tuple[nn.Parameter, Tensor]]:
    """Return each weight with its mask on its device; DDP, averaging and compile are unwrapped.

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
    """Return the share of the masked weights that is removed."""
    total = sum(mask.numel() for mask in masks.values())
    return 1 - sum(int(mask.sum()) for mask in masks.values()) / total


class MaskHooks:
    """Hooks that keep masked weights at zero; made by `hold_weight_masks`, ended by `remove`."""

    def __init__(self, model: nn.Module, masks: Mapping[str, Tensor], optimizer: Optimizer) -> None:
        self._removed = [(weight, ~mask) for weight, mask in match_masks(model, masks).values()]
        self._handles: list[RemovableHandle] = [
            # Gradients are zero too, so that clipping by their norm sees the pruned network.
            weight.register_hook(partial(_zero_where, removed))  # type: ignore[no-untyped-call]
            for weight, removed in self._removed
            if weight.requires_grad
        ]
        self._handles.append(optimizer.register_step_post_hook(self._zero_weights))
        self._zero_weights(optimizer)

    def _zero_weights(self, optimizer: Optimizer, *_step: Any) -> None:
        """Zero the weights and what the optimiser remembers of them: momentum would move them again."""
        with torch.no_grad():
            for weight, removed in self._removed:
                weight.masked_fill_(removed, 0)
                for value in optimizer.state.get(weight, {}).values():
                    if isinstance(value, Tensor) and value.shape == weight.shape:
                        value.masked_fill_(removed, 0)

    def remove(self) -> None:
        """Let the weights go."""
        for handle in self._handles:
            handle.remove()


def _zero_where(removed: Tensor, gradient: Tensor) -> Tensor:
    return gradient.masked_fill(removed, 0)


def hold_weight_masks(model: nn.Module, masks: Mapping[str, Tensor], optimizer: Optimizer) -> MaskHooks:
    """Zero the weights outside the masks, now and after every step of an optimiser.

    Their gradients are zero too, so that gradient clipping sees the pruned network, and so is what the
    optimiser remembers of them (momentum, Adam's moments). Call it after a checkpoint was loaded.

    Args:
        model: The network, bare or wrapped by DDP, AveragedModel or torch.compile.
        masks: Booleans by parameter name of the bare network.
        optimizer: The optimiser that trains it.

    Raises:
        PruningError: The masks are of another architecture; the layer is named.
    """
    return MaskHooks(model, masks, optimizer)


def check_masks_held(model: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Refuse a network in which a weight outside the masks is not exactly zero; for use before saving.

    Raises:
        PruningError: Some are not, or the masks are of another architecture; the layer is named.
    """
    for name, (weight, mask) in match_masks(model, masks).items():
        moved = int(weight.detach()[~mask].count_nonzero())
        if moved:
            raise PruningError(
                name,
                f"{moved} pruned weights are not zero",
                "hold the weight masks with hold_weight_masks while training",
            )


SCHEMA = "radiogen weight masks 1"
HEADER = "radiogen"  # one key only: safetensors writes several in an order that differs from run to run
_SHAPES = TypeAdapter(dict[str, list[NonNegativeInt]])
_ABOUT = TypeAdapter(dict[str, Any])
_HINT = "give a weight_masks.safetensors that radiogen prune wrote"


def save_weight_masks(path: Path, masks: WeightMasks, about: Mapping[str, Any]) -> None:
    """Write weight masks, one bit a weight.

    Args:
        path: File to write, whole or not at all.
        masks: Booleans by parameter name.
        about: What made them, as JSON can hold it: criterion, scope, sparsity, seed, data.

    Raises:
        OutputError: The place cannot be written to.
    """
    packed = {
        name: torch.from_numpy(np.packbits(mask.cpu().numpy().reshape(-1))) for name, mask in masks.items()
    }
    shapes = {name: list(mask.shape) for name, mask in masks.items()}
    header = {"schema": SCHEMA, "shapes": shapes, "about": dict(about)}
    with whole_file(path) as draft:
        save_file(packed, draft, {HEADER: json.dumps(header)})


def load_weight_masks(path: Path) -> tuple[WeightMasks, dict[str, Any]]:
    """Read weight masks and what made them, in the order they were written in.

    Raises:
        PruningError: The file is missing, damaged, or holds something else.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            header = _ABOUT.validate_json((file.metadata() or {}).get(HEADER, "{}"))
            if header.get("schema") != SCHEMA:
                raise PruningError(path, "holds no weight masks", _HINT)
            shapes = _SHAPES.validate_python(header["shapes"])
            about = _ABOUT.validate_python(header["about"])
            packed = {name: file.get_tensor(name) for name in shapes}
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise PruningError(path, f"cannot be read: {error}", _HINT) from error
    return {name: _unpack(path, name, packed[name], shape) for name, shape in shapes.items()}, about


def _unpack(path: Path, name: str, packed: Any, shape: list[int]) -> Tensor:
    count = math.prod(shape)
    if packed.dtype != np.uint8 or packed.shape != ((count + 7) // 8,):
        raise PruningError(path, f"{name} does not hold {count} bits", _HINT)
    return torch.from_numpy(np.unpackbits(packed, count=count).astype(bool).reshape(shape))
