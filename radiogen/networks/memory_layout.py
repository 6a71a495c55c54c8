"""How the weights of a network lie in memory."""

import torch
from torch import nn


def volumes_channels_last(network: nn.Module) -> None:
    """Lay the weights of 3D convolutions channels last, in place; those of 2D convolutions cannot follow."""
    for weight in network.parameters():
        if weight.dim() == 5:
            weight.data = weight.data.contiguous(memory_format=torch.channels_last_3d)
