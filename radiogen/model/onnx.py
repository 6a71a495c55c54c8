"""Write networks as ONNX files by torch, and run them by onnxruntime."""

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from radiogen.errors import ModelError
from radiogen.model.backends import Run
from radiogen.optional import require

EXTRA = "onnx"
NAMES = ("image", "prior")
LOGITS = "logits"


def check_installed() -> None:
    """Refuse early where a package is missing.

    Raises:
        MissingPackageError: A package of the extra `onnx` is not installed.
    """
    for package in ("onnx", "onnxscript", "onnxruntime"):
        require(package, extra=EXTRA)


def write_onnx(
    network: nn.Module, windows: tuple[Tensor, Tensor], path: Path, about: Mapping[str, Any]
) -> None:
    """Write a network in evaluation mode; any number of windows of this size can be given in one call.

    Args:
        network: Its weights are written into the same file.
        windows: Image (B, C, D, H, W) and prior (B, 1, D, H, W), B at least 2; their size stays as it is.
        path: The file.
        about: Stands in it as the metadata `radiogen`.

    Raises:
        ModelError: The file would be larger than 2 GB, which ONNX does not hold in one file.
    """
    batch = torch.export.Dim("batch")
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            network,
            windows,
            input_names=NAMES,
            output_names=[LOGITS],
            dynamic_shapes={name: {0: batch} for name in NAMES},
            dynamo=True,
            verbose=False,
        )
    if program is None:
        raise ModelError(path, "could not be made", "take --to torchscript")
    program.model.metadata_props["radiogen"] = json.dumps(about)
    program.save(str(path), external_data=False)


def load_onnx(path: Path) -> Run:
    """Load a network to be run by onnxruntime, on as many threads as torch."""
    runtime = require("onnxruntime", extra=EXTRA)
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(image: Tensor, prior: Tensor) -> Tensor:
        given = dict(zip(NAMES, (image.numpy(), prior.numpy()), strict=True))
        return torch.from_numpy(session.run([LOGITS], given)[0])

    return run


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter, which writes about missing packages and itself on both streams."""
    noisy = logging.getLogger("torch.onnx")
    before = noisy.level
    noisy.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        noisy.setLevel(before)
