"""The quick layers of RA-Seg compute what torch's layers do."""

import pytest
import torch
from torch import nn

from radiogen.networks.blocks import UpToOne, normed


def same_with_gradients(found, wanted, weights):
    along = torch.randn(wanted.shape, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)
    for ours, theirs in zip(
        torch.autograd.grad(found, weights, along), torch.autograd.grad(wanted, weights, along), strict=True
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("size", [(2, 3, 4, 5, 6), (1, 4, 1, 3, 2)])
def test_the_one_channel_of_logits_is_that_of_the_transposed_convolution(size):
    layer = UpToOne(size[1])
    x = torch.randn(size, requires_grad=True)
    wanted = nn.ConvTranspose3d.forward(layer, x)
    assert layer(x).shape == (size[0], 1, *(2 * n for n in size[2:]))
    same_with_gradients(layer(x), wanted, [x, *layer.parameters()])


@pytest.mark.parametrize("affine", [False, True])
def test_a_normed_volume_is_that_of_instance_norm(affine):
    norm = nn.InstanceNorm3d(3, affine=affine)
    x = torch.randn(2, 3, 4, 5, 6, requires_grad=True)
    same_with_gradients(normed(x, norm), norm(x), [x, *norm.parameters()])


def test_who_watches_a_norm_or_took_its_place_is_heard():
    norm, x = nn.InstanceNorm3d(2), torch.randn(1, 2, 3, 3, 3)
    heard = []
    handle = norm.register_forward_hook(lambda *told: heard.append(told))
    normed(x, norm)
    handle.remove()
    assert len(heard) == 1
    norm.forward = lambda volume: volume + 1
    assert torch.equal(normed(x, norm), x + 1)
