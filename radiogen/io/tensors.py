"""Write and read tensors in safetensors; one with many zeros takes its other values and one bit a place."""

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
from torch import Tensor

from radiogen.errors import PruningError
from radiogen.provenance import whole_file

HEADER = "radiogen"  # one key only: safetensors writes several in an order that differs from run to run
PLACES = "/places"  # end of the name under which the bits of a sparse tensor stand
_SHAPES = TypeAdapter(dict[str, list[NonNegativeInt]])
_WORTH = 0.9  # of the dense bytes; above that a tensor is written as it is
_SMALLEST = 1024  # places; below that the longer header takes more than it saves


def save_tensors(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any] | None = None) -> None:
    """Write tensors in safetensors, whole or not at all; they come back bit for bit.

    Args:
        path: File to write.
        tensors: By name.
        about: Their description, as JSON can hold it.

    Raises:
        OutputError: The place cannot be written to.
    """
    written: dict[str, Tensor] = {}
    shapes: dict[str, list[int]] = {}
    for name, tensor in tensors.items():
        whole = tensor.detach().cpu().contiguous()
        # Pruned weights are mostly zeros: 1 bit a place and the kept values replace 4 bytes a place.
        places = _filled_places(whole)
        if _pays(whole, int(places.sum())):
            shapes[name] = list(whole.shape)
            written[name] = whole.reshape(-1)[places]
            written[name + PLACES] = torch.from_numpy(np.packbits(places.numpy()))
        else:
            written[name] = whole
    header = {"sparse": shapes, "about": dict(about or {})}
    with whole_file(path) as draft:
        save_file(written, draft, {HEADER: json.dumps(header)} if shapes or about else None)


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read tensors that `save_tensors`, or anybody, wrote in safetensors.

    Raises:
        PruningError: The file is missing or damaged.
    """
    try:
        shapes = _SHAPES.validate_python(_header(path).get("sparse", {}))
        with safe_open(path, framework="pt") as file:
            names = [name for name in file.keys() if name.removesuffix(PLACES) not in shapes]  # noqa: SIM118
            dense = {name: file.get_tensor(name) for name in names}
            parts = {name: (file.get_tensor(name), file.get_tensor(name + PLACES)) for name in shapes}
        return dense | {name: _unpack(*part, shapes[name]) for name, part in parts.items()}
    except (OSError, SafetensorError, ValueError) as error:
        raise PruningError(path, f"is damaged: {error}", "copy or make it again") from error


def read_about(path: Path) -> dict[str, Any]:
    """Read the description of the tensors of a file: `about` of `save_tensors`.

    Raises:
        PruningError: The file is missing or damaged, or holds no `about`.
    """
    try:
        about: dict[str, Any] = _header(path)["about"]
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise PruningError(path, f"is damaged: {error}", "copy or make it again") from error
    return about


def _header(path: Path) -> dict[str, Any]:
    with safe_open(path, framework="pt") as file:
        header = json.loads((file.metadata() or {}).get(HEADER, "{}"))
    if not isinstance(header, dict):
        raise ValueError("its header is no table")
    return header


def _filled_places(tensor: Tensor) -> Tensor:
    """Return which places hold any bit, a negative zero too; flat."""
    if tensor.numel() == 0:
        return torch.zeros(0, dtype=torch.bool)
    # Bytes, not values, are compared with 0: -0.0 equals 0.0 and would come back with another sign.
    return tensor.reshape(-1, 1).view(torch.uint8).any(dim=1).bool()


def _pays(tensor: Tensor, filled: int) -> bool:
    size = tensor.element_size()
    return tensor.numel() >= _SMALLEST and filled * size + tensor.numel() / 8 < _WORTH * tensor.numel() * size


def _unpack(values: Tensor, bits: Tensor, shape: list[int]) -> Tensor:
    count = math.prod(shape)
    # Sizes come from the file: they are compared before memory is taken for the tensor.
    if bits.dtype != torch.uint8 or bits.shape != ((count + 7) // 8,) or values.dim() != 1:
        raise ValueError(f"{count} places have {tuple(bits.shape)} bytes of bits")
    places = torch.from_numpy(np.unpackbits(bits.numpy(), count=count).astype(bool))
    if int(places.sum()) != len(values):
        raise ValueError(f"{len(values)} values stand for {int(places.sum())} places")
    flat = torch.zeros(count, dtype=values.dtype)
    flat[places] = values
    return flat.reshape(shape)
