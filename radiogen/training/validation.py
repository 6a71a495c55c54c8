"""Validation during a training: the Dice of held-out cases with each prior, on the network's grid."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from radiogen.measures.overlap import dice_of
from radiogen.model.network_input import Preprocessing, scale_windows
from radiogen.model.priors import PROMPT_OF, PriorName
from radiogen.segmentation.sliding import predict, window_about, zoom_for, zoomed
from radiogen.training.prepared import PreparedCase
from radiogen.volume import FloatArray

WHOLE = (slice(None), slice(None), slice(None))


def validate(
    network: nn.Module,
    cases: Sequence[PreparedCase],
    preprocessing: Preprocessing,
    priors: Sequence[PriorName],
    device: torch.device,
    threshold: float = 0.5,
) -> list[dict[str, Any]]:
    """Return the Dice of each case with each prior; a box is that of the true lesion (prompt `oracle`).

    Returns:
        One row a case and prior: case_id, prior, prompt, dice. The network is left in the mode it was in.
    """
    was_training = network.training
    network.eval()
    rows = []
    for case in cases:
        image = scale_windows(case.read("hu", WHOLE), preprocessing.windows)
        lesion = case.read("lesion", WHOLE) > 0
        lungs = case.read("lungs", WHOLE) > 0
        for prior in priors:
            if prior == "box":
                probability = _predict_boxes(network, case, image, preprocessing, device)
            else:
                region = {"lungs": lungs, "none": np.ones_like(lungs), "mask": lesion}[prior]
                probability = predict(network, image, region.astype(np.float32), preprocessing.size, device)
            dice = dice_of(probability >= threshold, lesion)
            rows.append({"case_id": case.case_id, "prior": prior, "prompt": PROMPT_OF[prior], "dice": dice})
    network.train(was_training)
    return rows


def _predict_boxes(
    network: nn.Module,
    case: PreparedCase,
    image: FloatArray,
    preprocessing: Preprocessing,
    device: torch.device,
) -> FloatArray:
    """Return the largest probability over the boxes of the outline, (D, H, W).

    Each box is segmented in one window whose voxels have the size that `radiogen segment` gives them, since
    the network has learned from such patches.
    """
    probability = np.zeros(case.shape, np.float32)
    for box in case.lesion_boxes.values():
        prior = np.zeros(case.shape, np.float32)
        prior[box] = 1.0
        zoom = zoom_for(box, preprocessing.size, preprocessing.box_fills)
        near = window_about(box, case.shape, zoomed(preprocessing.size, zoom))
        shape = [edge.stop - edge.start for edge in near]
        zoomed_shape = [round(n / zoom) for n in shape]
        window = predict(
            network,
            _resized(image[(slice(None), *near)], zoomed_shape),
            _resized(prior[near][None], zoomed_shape, "nearest")[0],
            preprocessing.size,
            device,
        )
        probability[near] = np.maximum(probability[near], _resized(window[None], shape)[0])
    return probability


def _resized(channels: FloatArray, shape: Sequence[int], mode: str = "trilinear") -> FloatArray:
    """Return channels (C, d, h, w) in another shape."""
    if channels.shape[1:] == tuple(shape):
        return channels
    resized = functional.interpolate(torch.from_numpy(channels)[None], tuple(shape), mode=mode)
    return np.asarray(resized[0].numpy())
