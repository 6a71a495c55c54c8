"""How a network is laid out for its training on a device: memory, norms over processes, idle biases."""

from functools import partial

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from radiogen.training.settings import TrainingSettings
from radiogen.networks.blocks import Attention, ConvBlock, UpBlock
from radiogen.networks.memory_layout import volumes_channels_last
from radiogen.networks.raseg import RASeg
from radiogen.distributed import process_count


def fit_network(network: RASeg, training: TrainingSettings, device: torch.device) -> RASeg:
    """Make a network ready, in place; names and values of its weights stay."""
    rest_idle_biases(network)
    if training.channels_last and device.type == "cuda":
        volumes_channels_last(network)
    if process_count() > 1 and device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
    if training.checkpoint_activations:
        checkpoint_activations(network)
    return network


def rest_idle_biases(network: nn.Module) -> None:
    """Leave alone the bias of a convolution whose output is normalised, channel by channel, at once.

    The norm takes it off again, so that its gradient is nothing but rounding, which Adam would blow up to
    whole steps: different ones for every order of adding up.
    """
    for block in network.modules():
        if isinstance(block, Attention | ConvBlock | UpBlock) and block.conv.bias is not None:
            block.conv.bias.requires_grad_(False)


def checkpoint_activations(network: RASeg) -> None:
    """Keep only what the large parts of RA-Seg are given; backward computes them once more, one at a time.

    The attentions are left as they are: batch norm in them would count every mini-batch twice.
    """
    parts = [network.stem, *network.encoders, network.recurrence, network.joint]
    parts += [network.decoder4, network.decoder3, network.decoder2, network.decoder1]
    for part in parts:
        if part is not None:
            kept_small = partial(checkpoint, part.forward, use_reentrant=False)
            part.forward = kept_small
