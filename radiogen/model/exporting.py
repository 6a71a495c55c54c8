"""Export a model for other programs: ONNX, TorchScript or a MONAI bundle, each compared with torch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from radiogen import __version__
from radiogen.errors import ConfigError, ModelError, RadiogenError
from radiogen.model.backends import Run, check_agreement
from radiogen.model.folder import CONFIG, WEIGHTS, Model, load_model
from radiogen.model.monai_bundle import (
    SCRIPT,
    BundleNetwork,
    check_bundle,
    load_script,
    write_bundle,
    write_script,
)
from radiogen.model.onnx import check_installed, load_onnx, write_onnx
from radiogen.networks.raseg import FITTING_SIZES, fits_raseg
from radiogen.provenance import RunRecord, new_folder, whole_file

ExportTarget = Literal["onnx", "torchscript", "monai-bundle"]
ENDINGS: dict[str, tuple[str, ...]] = {"onnx": (".onnx",), "torchscript": (".pt", ".ts"), "monai-bundle": ()}
WINDOWS = 2  # on which the logits are compared, each with a prior of its own


@dataclass(frozen=True)
class ExportedModel:
    """An exported file or folder, its window size (D, H, W), and its largest differences from torch."""

    out: Path
    size: tuple[int, ...]
    logit_apart: float
    probability_apart: float


def export_model(
    folder: Path, out: Path, to: ExportTarget, size: Sequence[int] | None = None
) -> ExportedModel:
    """Write a model in a form that runs without radiogen, and compare it with torch on synthetic windows.

    ONNX and TorchScript hold the network alone: windows of HU scaled to [0, 1] and a prior in, logits out.
    The window that slides over a case stays outside. The recurrence walks over slices and is unrolled by the
    exporters, so that the depth of a window is part of the file; height and width are fixed as well, since a
    file that takes any plane but one depth only is a trap.

    Args:
        folder: Model folder.
        out: File to write; the folder of a bundle.
        to: The form.
        size: (D, H, W) of the windows, which is part of what is written; else the model's own.

    Raises:
        ModelError: The folder is no whole model, or what was written computes something else.
        ConfigError: Size, ending or model do not go with the form.
        MissingPackageError: ONNX and its runtime are not installed.
        OutputError: It cannot be written, or the folder of a bundle is not empty.
    """
    model = load_model(folder, torch.device("cpu"))
    windows = tuple(size or model.config.preprocessing.size)
    _check(model, out, to, windows)
    record = RunRecord(
        "model export", {"to": to, "size": windows}, inputs=[folder / WEIGHTS, folder / CONFIG]
    )
    record.model_hash, record.device = model.hash, "cpu"
    about = about_model(model, windows)
    given = _synthetic_windows(model, windows)
    files = [out]
    try:
        if to == "monai-bundle":
            with new_folder(out) as draft:
                write_bundle(model, given, draft, about)
                run = _joined(load_script(draft / SCRIPT))
                apart = _compare(model, run, given, out)
            files = sorted(path for path in out.rglob("*") if path.is_file())
        else:
            write, load = FORMS[to]
            with whole_file(out) as draft:
                write(model.network, given, draft, about)
                apart = _compare(model, load(draft), given, out)
    except (RadiogenError, MemoryError):
        raise
    except (
        Exception
    ) as error:  # exporters raise nearly anything where they meet an operation they do not know
        why = str(error).strip().splitlines() or [type(error).__name__]
        raise ModelError(folder, f"cannot be written as {to}: {why[0][:200]}", "take another form") from error
    record.decisions.append(f"differs from torch by {apart[1]:.1e} in a probability at most")
    record.finish(out, files)
    return ExportedModel(out, windows, *apart)


def parse_size(text: str) -> tuple[int, ...]:
    """Parse D,H,W of windows as it is typed.

    Raises:
        ConfigError: It is no list of numbers.

    >>> parse_size("64,96,96")
    (64, 96, 96)
    """
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise ConfigError(
            f"--size {text}", "is no list of numbers", "give D,H,W, such as 64,96,96"
        ) from error


def about_model(model: Model, size: Sequence[int]) -> dict[str, Any]:
    """Describe input and output of the network for its callers; nothing of the patients it has seen."""
    config = model.config.model_dump(
        mode="json", include={"preprocessing", "priors", "class_names", "threshold"}
    )
    return {
        "radiogen": __version__,
        "model": model.hash,
        "image": "(B, C, D, H, W), one channel a window of `preprocessing`, HU clipped and scaled to [0, 1]",
        "prior": "(B, 1, D, H, W) in [0, 1], where to look; ones for the prior none",
        "axes": "D to the head, H to the back, W to the patient's left, spacing_mm is that of W, H, D",
        "logits": "(B, 1, D, H, W); the sigmoid is the probability of a lesion",
        "size": list(size),
        **config,
        "note": "not for clinical use",
    }


def _check(model: Model, out: Path, to: ExportTarget, size: Sequence[int]) -> None:
    if len(size) != 3 or not fits_raseg(size):
        wrong = f"{','.join(map(str, size))} does not fit RA-Seg"
        raise ConfigError("--size", wrong, f"give D,H,W as {FITTING_SIZES}")
    if to == "monai-bundle":
        check_bundle(model, out)
    elif not out.name.lower().endswith(ENDINGS[to]):
        raise ConfigError(
            f"-o {out.name}", f"is given with --to {to}", f"end it in {' or '.join(ENDINGS[to])}"
        )
    if to == "onnx":
        check_installed()


def _synthetic_windows(model: Model, size: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Make windows of noise, one with a box as prior and one with ones everywhere."""
    rng = torch.Generator().manual_seed(0)
    image = torch.rand(WINDOWS, len(model.config.preprocessing.windows), *size, generator=rng)
    prior = torch.ones(WINDOWS, 1, *size)
    prior[0] = 0
    prior[0, 0][tuple(slice(n // 4, n // 2 + 1) for n in size)] = 1
    return image, prior


def _compare(model: Model, run: Run, given: tuple[Tensor, Tensor], out: Path) -> tuple[float, float]:
    """Return the largest difference of a logit and of a probability.

    Raises:
        ModelError: Masks or scores are others (`check_agreement`).
    """
    logit = probability = 0.0
    for image, prior in zip(*(torch.split(whole, 1) for whole in given), strict=True):
        with torch.no_grad():
            wanted, found = model.network(image, prior), run(image, prior)
        logit = max(logit, float((found - wanted).abs().max()))
        try:
            probability = max(probability, check_agreement(found, wanted))
        except ValueError as error:
            wrong = f"{error}, and is not written"
            raise ModelError(out, wrong, "report it with the model's config.json") from error
    return logit, probability


def _joined(bundled: Callable[[Tensor], Tensor]) -> Run:
    return lambda image, prior: BundleNetwork.turned(
        bundled(BundleNetwork.turned(torch.cat([image, prior], dim=1)))
    )


FORMS: dict[str, tuple[Callable[..., None], Callable[[Path], Run]]] = {
    "onnx": (write_onnx, load_onnx),
    "torchscript": (lambda network, given, *rest: write_script(network, _one_of(given), *rest), load_script),
}


def _one_of(given: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return given[0][:1], given[1][:1]
