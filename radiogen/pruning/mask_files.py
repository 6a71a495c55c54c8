"""Weight masks on disk: eight booleans a byte in safetensors, with what made them."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import NonNegativeInt, TypeAdapter
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from radiogen.errors import PruningError
from radiogen.provenance import whole_file
from radiogen.pruning.signatures import WeightMasks

SCHEMA = "radiogen weight masks 1"
HEADER = "radiogen"  # one key only: safetensors writes several in an order that differs from run to run
_SHAPES = TypeAdapter(dict[str, list[NonNegativeInt]])
_ABOUT = TypeAdapter(dict[str, Any])
_WAY_OUT = "give a weight_masks.safetensors that radiogen prune wrote"


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
                raise PruningError(path, "holds no weight masks", _WAY_OUT)
            shapes = _SHAPES.validate_python(header["shapes"])
            about = _ABOUT.validate_python(header["about"])
            packed = {name: file.get_tensor(name) for name in shapes}
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise PruningError(path, f"cannot be read: {error}", _WAY_OUT) from error
    return {name: _unpack(path, name, packed[name], shape) for name, shape in shapes.items()}, about


def _unpack(path: Path, name: str, packed: Any, shape: list[int]) -> torch.Tensor:
    count = math.prod(shape)
    if packed.dtype != np.uint8 or packed.shape != ((count + 7) // 8,):
        raise PruningError(path, f"{name} does not hold {count} bits", _WAY_OUT)
    return torch.from_numpy(np.unpackbits(packed, count=count).astype(bool).reshape(shape))
