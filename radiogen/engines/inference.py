"""Probabilities from a network: one window, or a window that slides over the lungs."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from monai.inferers import sliding_window_inference
from torch import Tensor, nn

from radiogen.volume import FloatArray

OVERLAP = 0.5
SMALLEST_WEIGHT = 1e-3


def predict(
    network: nn.Module,
    image: FloatArray,
    prior: FloatArray,
    window: Sequence[int],
    device: torch.device,
    batch: int = 1,
) -> FloatArray:
    """The probability of lesion at every voxel, windows joined with Gaussian weights.

    Args:
        network: RA-Seg in evaluation mode, on `device`.
        image: (C, D, H, W), scaled to [0, 1].
        prior: (D, H, W), in [0, 1].
        window: Size of the window (D, H, W); an axis shorter than it is padded.
        device: Where the network runs; windows are brought there one batch at a time.
        batch: Windows in one call.

    Returns:
        (D, H, W), float32 in [0, 1].
    """
    channels = image.shape[0]
    both = torch.from_numpy(np.concatenate([image, prior[None]]))[None]  # (1, C + 1, D, H, W)

    def logits(piece: Tensor) -> Tensor:
        with torch.autocast(device.type, enabled=device.type == "cuda"):
            out: Tensor = network(piece[:, :channels], piece[:, channels:])
        return out.float()

    with torch.inference_mode():
        whole = sliding_window_inference(
            both,
            roi_size=tuple(window),
            sw_batch_size=batch,
            predictor=logits,
            overlap=OVERLAP,
            mode="gaussian",
            padding_mode="constant",
            sw_device=device,
            device=torch.device("cpu"),
        )
        probability: FloatArray = torch.sigmoid(whole)[0, 0].numpy()
    return probability


def window_round(voxels: npt.NDArray[np.bool_], size: Sequence[int]) -> tuple[slice, slice, slice]:
    """Slices that hold all true voxels and are at least `size` long where the array allows it."""
    slices = []
    for axis, wanted in enumerate(size):
        hit = np.flatnonzero(voxels.any(axis=tuple(a for a in range(3) if a != axis)))
        length = voxels.shape[axis]
        width = min(length, max(int(wanted), int(hit[-1] - hit[0] + 1)))
        first = int(np.clip((hit[0] + hit[-1] + 1) // 2 - width // 2, 0, length - width))
        slices.append(slice(first, first + width))
    return slices[0], slices[1], slices[2]
