"""Engines that compute a network on a CPU: torch, torch.compile or OpenVINO, each checked against torch."""

import warnings
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from radiogen.errors import ConfigError, DeviceError
from radiogen.optional import require

Engine = Literal["torch", "compile", "openvino"]
Run = Callable[[Tensor, Tensor], Tensor]
"""Logits (B, 1, D, H, W) for an image (B, C, D, H, W) and a prior (B, 1, D, H, W)."""

# What of another engine must agree with torch: the mask, the score (to the last digit of lesions.csv), and
# that no voxel goes astray. Kernels add in another order: over whole CTs some probability differs by 1e-4
# to 3e-4, which moves no more than a voxel here and there at the edge of a mask.
THRESHOLDS = tuple(step / 10 for step in range(1, 10))  # of candidates and masks, wherever a user sets them
MASK_SHARE = 1e-3  # voxels that differ, of those of the mask; a single one is always allowed
SCORE_DIFFERENCE = 1e-3  # of the mean probability in a mask
LARGEST_DIFFERENCE = 1e-2  # of a probability


def make_backend(engine: Engine, network: nn.Module, device: torch.device) -> Run:
    """Return a network as the engine computes it.

    Other engines than torch prepare themselves at the first window of each size, which takes seconds to a
    minute, and are compared with torch there (`check_agreement`); they are kept in memory as long as the
    backend is.

    Args:
        engine: Its name.
        network: RA-Seg in evaluation mode; its weights stay as they are from now on.
        device: Where it runs.

    Raises:
        ConfigError: The engine works on the CPU only, and the device is another one.
        MissingPackageError: OpenVINO is not installed.
        DeviceError: In a call: the engine cannot be prepared on this machine, or differs from torch.
    """
    if engine == "torch":
        return network
    if device.type != "cpu":
        hint = "take --device cpu or --engine torch"
        raise ConfigError(f"--engine {engine}", f"works on the CPU, not on {device}", hint)
    if engine == "openvino":
        require("openvino", extra="openvino")
    return _checked(engine, network)


def _checked(engine: Engine, network: nn.Module) -> Run:
    """Prepare an engine for each size of window when that comes first, and compare it with torch once.

    There is no silent way back to torch: whoever chooses an engine wants to know.
    """
    prepared: dict[tuple[int, ...], Run] = {}

    def run(image: Tensor, prior: Tensor) -> Tensor:
        size = tuple(image.shape)
        if size in prepared:
            return prepared[size](image, prior)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of torch about itself, and that sizes become constants
                prepared_run = ENGINES[engine](network, image, prior)
                logits = prepared_run(image, prior)
        except MemoryError:
            raise
        except Exception as error:  # no C++ compiler, an unknown operation: engines raise nearly anything
            reason = f"cannot be prepared here: {str(error).strip().splitlines()[0][:200]}"
            raise DeviceError(
                f"--engine {engine}", reason if str(error) else "fails", "take --engine torch"
            ) from error
        try:
            check_agreement(logits, network(image, prior))
        except ValueError as error:
            raise DeviceError(f"--engine {engine}", str(error), "take --engine torch") from error
        prepared[size] = prepared_run
        return logits

    return run


def check_agreement(logits: Tensor, wanted: Tensor) -> float:
    """Check that logits give torch's masks and scores; return the largest difference of a probability.

    At each threshold from 0.1 to 0.9 one voxel in a thousand of the mask, or a single one, may differ, and
    the mean probability in the mask by 0.001; no probability may differ by more than 0.01.

    Args:
        logits: Of another engine, of any shape.
        wanted: Of torch.

    Raises:
        ValueError: They do not agree; the message says in what.
    """
    found, true = torch.sigmoid(logits), torch.sigmoid(wanted)
    difference = float((found - true).abs().max())
    # `not <=`: a NaN agrees with nothing.
    if not difference <= LARGEST_DIFFERENCE:
        raise ValueError(
            f"differs from torch by {difference:.1e} in a probability, over {LARGEST_DIFFERENCE:g}"
        )
    for threshold in THRESHOLDS:
        mask = true >= threshold
        voxels, others = int(mask.sum()), int((mask != (found >= threshold)).sum())
        if others > max(1.0, MASK_SHARE * voxels):
            raise ValueError(
                f"differs from torch in {others} of {voxels} voxels of the mask at {threshold:g}"
            )
        score = float((found[mask] - true[mask]).mean().abs()) if voxels else 0.0
        if score > SCORE_DIFFERENCE:
            raise ValueError(f"differs from torch by {score:.4f} in the score of the mask at {threshold:g}")
    return difference


def _compiled(network: nn.Module, _image: Tensor, _prior: Tensor) -> Run:
    run: Run = torch.compile(network, dynamic=False)
    return run


def _openvino(network: nn.Module, image: Tensor, prior: Tensor) -> Run:
    """Trace the network with windows of this size and compile it by OpenVINO, in float32.

    Its front end is called by itself: `openvino.convert_model` would report its use to the manufacturer.
    """
    core = require("openvino", extra="openvino").Core()
    front_ends = require("openvino.frontend", extra="openvino").FrontEndManager()
    decoders = require("openvino.frontend.pytorch.ts_decoder", extra="openvino")
    with torch.no_grad():
        traced = torch.jit.trace(network, (image, prior), check_trace=False)  # type: ignore[no-untyped-call]
        decoder = decoders.TorchScriptPythonDecoder(traced)  # must outlive the conversion
        front_end = front_ends.load_by_framework("pytorch")
        model = front_end.convert(front_end.load(decoder))
    model.reshape({0: list(image.shape), 1: list(prior.shape)})
    settings = {
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "INFERENCE_PRECISION_HINT": "f32",  # else it rounds where a processor has bfloat16
        "NUM_STREAMS": 1,
    }
    request = core.compile_model(model, "CPU", settings).create_infer_request()

    def run(image: Tensor, prior: Tensor) -> Tensor:
        answer = request.infer([image.numpy(), prior.numpy()], share_inputs=True)
        return torch.from_numpy(answer[0].copy())

    return run


ENGINES: dict[str, Callable[[nn.Module, Tensor, Tensor], Run]] = {"compile": _compiled, "openvino": _openvino}
