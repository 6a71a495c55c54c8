"""Deep features: what RA-Seg computes inside and round a lesion, pooled to one row of numbers."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from radiogen.engines.model_folder import Model
from radiogen.errors import ConfigError
from radiogen.networks.raseg import SIZE_STEP
from radiogen.preprocess.network_input import NetworkInput, to_array
from radiogen.volume import FloatArray, array_of

LEVELS = ("encoder2", "decoder3", "decoder2")


def deep_features(
    model: Model, sample: NetworkInput, label: int, levels: Sequence[str] = LEVELS
) -> dict[str, float]:
    """Mean, standard deviation and maximum of every channel over one lesion, at several levels.

    One forward pass of a window round the lesion; the prior is the lesion's box if the model knows
    boxes, else what it does know. At a level's size a voxel counts by the share of it that is lesion.

    Args:
        model: A loaded model.
        sample: The case on the network's grid, with its lesion mask.
        label: The lesion.
        levels: Names of `RASeg.levels`.

    Returns:
        `deep_<level>_<mean|std|max>_<channel>` -> number.

    Raises:
        ConfigError: The network has no such level.
    """
    lesion = _lesion_voxels(sample, label)
    image, prior, inside = _window(model, sample, lesion)
    device = next(model.network.parameters()).device
    with torch.inference_mode():
        outputs = model.network.levels(image.to(device), prior.to(device))
    features: dict[str, float] = {}
    for level in levels:
        if level not in outputs:
            raise ConfigError(f"level {level}", "is not part of RA-Seg", f"there are {', '.join(outputs)}")
        for kind, values in pool(outputs[level][0].float().cpu(), inside).items():
            features |= {f"deep_{level}_{kind}_{i:03d}": float(value) for i, value in enumerate(values)}
    return features


def paper_features(model: Model, sample: NetworkInput) -> dict[str, float]:
    """The published features: decoder 2's output of the whole lungs, averaged over rows and columns.

    64 channels x 128 slices = 8192 numbers for the published network; no lesion mask takes part.

    Raises:
        ConfigError: The model does not press the lungs into one size, so the numbers would not line up.
    """
    if model.config.preprocessing.layout != "squeeze":
        raise ConfigError("--paper", "needs a model of layout squeeze", "train with --preset paper")
    device = next(model.network.parameters()).device
    image = torch.from_numpy(to_array(sample, model.config.preprocessing))[None].to(device)
    prior = torch.from_numpy(_box_round(_any_lesion(sample))[None, None]).to(device)
    with torch.inference_mode():
        decoder2 = model.network.levels(image, prior)["decoder2"][0]  # (C, D/2, H/2, W/2)
    flat = decoder2.float().mean(dim=(2, 3)).flatten().cpu().numpy()
    return {f"deep_paper_{i:04d}": float(value) for i, value in enumerate(flat)}


def pool(output: Tensor, inside: Tensor) -> dict[str, Tensor]:
    """Pool (C, d, h, w) over a lesion given as 0/1 at full size (D, H, W); it is never lost by its size."""
    d, h, w = output.shape[1:]
    share = functional.adaptive_avg_pool3d(inside[None], (d, h, w))[0]  # (d, h, w)
    weight = share / share.sum()
    mean = (output * weight).sum(dim=(1, 2, 3))
    variance = ((output - mean[:, None, None, None]) ** 2 * weight).sum(dim=(1, 2, 3))
    highest = output[:, share > 0].amax(dim=1)
    return {"mean": mean, "std": variance.sqrt(), "max": highest}


def _lesion_voxels(sample: NetworkInput, label: int) -> npt.NDArray[np.bool_]:
    lesion: npt.NDArray[np.bool_] = _labels(sample) == label
    return lesion


def _any_lesion(sample: NetworkInput) -> npt.NDArray[np.bool_]:
    lesion: npt.NDArray[np.bool_] = _labels(sample) > 0
    return lesion


def _labels(sample: NetworkInput) -> npt.NDArray[np.uint8]:
    if sample.lesion is None:
        raise ConfigError("features", "need a lesion mask", "segment the case first")
    labels: npt.NDArray[np.uint8] = array_of(sample.lesion)
    return labels


def _box_round(voxels: npt.NDArray[np.bool_]) -> FloatArray:
    box = np.zeros(voxels.shape, np.float32)
    z, y, x = np.nonzero(voxels)
    box[z.min() : z.max() + 1, y.min() : y.max() + 1, x.min() : x.max() + 1] = 1.0
    return box


def _window(
    model: Model, sample: NetworkInput, lesion: npt.NDArray[np.bool_]
) -> tuple[Tensor, Tensor, Tensor]:
    """Image (1, C, D, H, W), prior (1, 1, D, H, W) and lesion (D, H, W) of a window round the lesion."""
    preprocessing = model.config.preprocessing
    if "box" in model.config.priors:
        prior = _box_round(lesion)
    elif "lungs" in model.config.priors:
        prior = (array_of(sample.lungs) != 0).astype(np.float32)
    else:
        prior = np.ones(lesion.shape, np.float32)
    corners = np.argwhere(lesion)
    low, high = corners.min(axis=0), corners.max(axis=0) + 1
    size = [
        max(int(wanted), -(-int(extent) // SIZE_STEP) * SIZE_STEP)
        for wanted, extent in zip(preprocessing.size, high - low, strict=True)
    ]
    start = [int((a + b) // 2 - s // 2) for a, b, s in zip(low, high, size, strict=True)]
    image = np.stack([cut(channel, start, size) for channel in to_array(sample, preprocessing)])
    inside = cut(lesion.astype(np.float32), start, size)
    return (
        torch.from_numpy(image)[None],
        torch.from_numpy(cut(prior, start, size))[None, None],
        torch.from_numpy(inside),
    )


def cut(array: FloatArray, start: Sequence[int], size: Sequence[int]) -> FloatArray:
    """A piece of an array that may reach over its edges, where it is 0.

    >>> cut(np.arange(4, dtype=np.float32).reshape(1, 1, 4), (0, 0, 2), (1, 1, 3))
    array([[[2., 3., 0.]]], dtype=float32)
    """
    piece = np.zeros(tuple(size), np.float32)
    here, there = [], []
    for first, width, length in zip(start, size, array.shape, strict=True):
        low, high = max(0, first), min(length, first + width)
        there.append(slice(low, high))
        here.append(slice(low - first, high - first))
    piece[tuple(here)] = array[tuple(there)]
    return piece
