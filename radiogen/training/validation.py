"""How a network does on whole cases of the network's grid while it is trained."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from radiogen.segmentation.inference import predict, window_about
from radiogen.training.prepared import PreparedCase
from radiogen.segmentation.zoom import zoom_for, zoomed
from radiogen.model.network_input import Preprocessing, scale_windows
from radiogen.model.priors import PROMPT_OF, PriorName
from radiogen.volume import FloatArray


def validate(
    network: nn.Module,
    cases: Sequence[PreparedCase],
    preprocessing: Preprocessing,
    priors: Sequence[PriorName],
    device: torch.device,
    threshold: float = 0.5,
) -> list[dict[str, Any]]:
    """Dice of each case with each prior, on the network's grid; a box is the true one (prompt `oracle`)."""
    was_training = network.training
    network.eval()
    rows = []
    for case in cases:
        whole = (slice(None), slice(None), slice(None))
        image = scale_windows(case.read("hu", whole), preprocessing.windows)
        lesion = case.read("lesion", whole) > 0
        lungs = case.read("lungs", whole) > 0
        for prior in priors:
            if prior == "box":
                found = _predict_boxes(network, case, image, preprocessing, device) >= threshold
            else:
                where = {"lungs": lungs, "none": np.ones_like(lungs), "mask": lesion}[prior]
                probability = predict(network, image, where.astype(np.float32), preprocessing.size, device)
                found = probability >= threshold
            both = int(np.sum(found & lesion))
            size = int(found.sum() + lesion.sum())
            dice = 2 * both / size if size else 1.0
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
    """The greatest probability under the outline's boxes, each seen in voxels of the size it gets in use."""
    probability = np.zeros(case.shape, np.float32)
    for box in case.lesion_boxes.values():
        prior = np.zeros(case.shape, np.float32)
        prior[box] = 1.0
        zoom = zoom_for(box, preprocessing.size, preprocessing.box_fills)
        near = window_about(box, case.shape, zoomed(preprocessing.size, zoom))
        shape = [edge.stop - edge.start for edge in near]
        seen = [round(n / zoom) for n in shape]
        piece = predict(
            network,
            _resized(image[(slice(None), *near)], seen),
            _resized(prior[near][None], seen, "nearest")[0],
            preprocessing.size,
            device,
        )
        probability[near] = np.maximum(probability[near], _resized(piece[None], shape)[0])
    return probability


def _resized(channels: FloatArray, shape: Sequence[int], mode: str = "trilinear") -> FloatArray:
    if channels.shape[1:] == tuple(shape):
        return channels
    resized = functional.interpolate(torch.from_numpy(channels)[None], tuple(shape), mode=mode)
    return np.asarray(resized[0].numpy())
