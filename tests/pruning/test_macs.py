"""MACs against arithmetic done by hand."""

import torch
from pruning_networks import mixed
from torch import nn

from radiogen.networks.raseg import RASeg, RASegSettings
from radiogen.pruning.costs import count_macs, weight_uses


def test_macs_of_plain_grouped_transposed_and_shared_layers() -> None:
    uses = weight_uses(mixed(), [torch.zeros(1, 1, 4, 6, 8).double()])
    voxels = 2 * 3 * 4  # after the stride of 2
    assert uses == {  # the shared convolution runs twice, the unused one never
        "first.weight": voxels,
        "grouped.weight": voxels,
        "shared.weight": 2 * voxels,
        "up.weight": voxels,
    }
    by_hand = voxels * (4 * 27 + 4 * 2 * 27 + 2 * 16 + 4 * 8)
    assert count_macs(mixed(), [torch.zeros(1, 1, 4, 6, 8).double()]) == by_hand


def test_a_linear_layer_multiplies_once_a_row() -> None:
    assert count_macs(nn.Linear(5, 3), [torch.zeros(1, 7, 5)]) == 7 * 15


def test_the_published_raseg_at_256_cubed_needs_552_billion() -> None:
    with torch.device("meta"):
        network = RASeg(RASegSettings()).eval()
        inputs = [torch.zeros(1, 1, 256, 256, 256)] * 2
    hidden_of_the_first_slice = 3 * 512 * 2048 * 9 * 16 * 16  # from zeros: the published code computes it
    assert round((count_macs(network, inputs) + hidden_of_the_first_slice) / 1e9) == 552
