"""The faster kernels for a CPU compute what torch's layers do, under the same names."""

import pytest
import torch
from torch import nn

from radiogen.networks.kernels import FastInstanceNorm3d, FastUpConvolution, fast_cpu
from radiogen.networks.raseg import RASegSettings, build_raseg


def same_with_gradients(found, wanted, weights):
    along = torch.randn(wanted.shape, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)
    for ours, theirs in zip(
        torch.autograd.grad(found, weights, along), torch.autograd.grad(wanted, weights, along), strict=True
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("size", [(2, 3, 4, 5, 6), (1, 4, 1, 3, 2)])
def test_the_one_channel_of_logits_is_that_of_the_transposed_convolution(size):
    layer = FastUpConvolution(size[1])
    x = torch.randn(size, requires_grad=True)
    wanted = nn.ConvTranspose3d.forward(layer, x)
    assert layer(x).shape == (size[0], 1, *(2 * n for n in size[2:]))
    same_with_gradients(layer(x), wanted, [x, *layer.parameters()])


@pytest.mark.parametrize("affine", [False, True])
def test_a_normed_volume_is_that_of_instance_norm(affine):
    norm = FastInstanceNorm3d(3, affine=affine)
    x = torch.randn(2, 3, 4, 5, 6, requires_grad=True)
    wanted = nn.InstanceNorm3d.forward(norm, x)
    same_with_gradients(norm(x), wanted, [x, *norm.parameters()])


@pytest.mark.parametrize("full_width", [0, 2])
def test_a_network_with_fast_kernels_has_the_same_weights_and_gives_the_same_logits(full_width):
    settings = RASegSettings(
        encoder_widths=(2, 3, 4, 5), recurrent_widths=(5, 4), decoder_widths=(4, 3, 2), full_width=full_width
    )
    network = build_raseg(settings, 0).eval()
    before = dict(network.named_parameters())
    image = torch.rand(1, 1, 32, 32, 48)
    with torch.no_grad():
        wanted = network(image, torch.ones_like(image))
        torch.testing.assert_close(fast_cpu(network)(image, torch.ones_like(image)), wanted)
    after = dict(network.named_parameters())
    assert list(before) == list(after)
    assert all(after[name] is weight for name, weight in before.items())
    assert not network.encoders[0].norm.training
    assert isinstance(network.encoders[0].norm, FastInstanceNorm3d)
    assert isinstance(network.decoder1, FastUpConvolution) is (full_width == 0)


def test_swapping_kernels_in_draws_no_random_numbers():
    network = build_raseg(RASegSettings(encoder_widths=(2, 2, 2, 2), recurrent_widths=(2,)), 0)
    state = torch.get_rng_state()
    fast_cpu(network)
    assert torch.equal(torch.get_rng_state(), state)


def test_hooks_on_a_fast_layer_are_heard():
    network = fast_cpu(nn.Sequential(nn.InstanceNorm3d(2)))
    calls = []
    network[0].register_forward_hook(lambda *args: calls.append(args))
    network(torch.randn(1, 2, 3, 3, 3))
    assert len(calls) == 1
