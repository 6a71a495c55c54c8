"""Networks as TorchScript: recorded at one size, run by torch alone."""

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

ABOUT = "radiogen.json"  # the file within the archive that says what the network sees


def write_script(
    network: nn.Module, windows: tuple[Tensor, ...], path: Path, about: Mapping[str, Any]
) -> None:
    """Record a network in evaluation mode.

    Args:
        network: Its weights are written with it.
        windows: What it is called with; their size is part of the file.
        path: The file.
        about: Stands in it as `radiogen.json`.
    """
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of torch about itself, and that sizes become constants
        traced = torch.jit.trace(network, windows, check_trace=False)  # type: ignore[no-untyped-call]
        torch.jit.save(traced, str(path), _extra_files={ABOUT: json.dumps(about, indent=2)})


def load_script(path: Path) -> torch.jit.ScriptModule:
    """What `write_script` wrote, on the CPU."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch about itself
        loaded: torch.jit.ScriptModule = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
        return loaded
