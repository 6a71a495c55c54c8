"""How networks are called: one, or several and mirror images whose probabilities are averaged."""

from collections.abc import Sequence
from itertools import product

import torch
from torch import Tensor, nn

from radiogen.model.backends import Engine, make_backend
from radiogen.segmentation.sliding import Call
from radiogen.networks.memory_layout import volumes_channels_last

SURE = 1e-6  # probabilities nearer to 0 and 1 than this are taken as that near
FLIPS: tuple[tuple[int, ...], ...] = tuple(
    tuple(axis for axis, flipped in zip((-3, -2, -1), which, strict=True) if flipped)
    for which in product((False, True), repeat=3)
)


def network_call(network: nn.Module, device: torch.device, engine: Engine = "torch") -> Call:
    """The one place where a network is called; half precision and channels last on CUDA."""
    if device.type == "cuda":
        volumes_channels_last(network)
    run = make_backend(engine, network, device)

    def call(image: Tensor, prior: Tensor) -> Tensor:
        with torch.inference_mode(), torch.autocast(device.type, enabled=device.type == "cuda"):
            logits = run(image, prior)
        return logits.float()

    return call


def averaged(calls: Sequence[Call], flips: bool) -> Call:
    """Several networks, or one network and mirror images, as one call.

    Returns:
        A call with two channels: the logit of the mean probability, and the standard deviation of the
        probability between the looks. With one look only, that call itself, with one channel.
    """
    if len(calls) == 1 and not flips:
        return calls[0]
    looks = [(call, axes) for call in calls for axes in (FLIPS if flips else FLIPS[:1])]

    def call(image: Tensor, prior: Tensor) -> Tensor:
        with torch.inference_mode():
            total = squares = torch.zeros((), device=image.device)
            for look, axes in looks:
                probability = torch.sigmoid(look(image.flip(axes), prior.flip(axes)).flip(axes))
                total, squares = total + probability, squares + probability.square()
            mean = total / len(looks)
            spread = (squares / len(looks) - mean.square()).clamp(min=0).sqrt()
            return torch.cat([torch.logit(mean, eps=SURE), spread], dim=1)

    return call
