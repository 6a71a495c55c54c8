"""The recurrence with gates in two halves is the plain one: same values, same gradients, whoever asks."""

import pytest
import torch
from torch.nn import functional

from radiogen.networks.blocks import BidirectionalConvLSTM, ConvLSTM, Recurrence


def plain_conv_lstm(layer, slices):
    """Slice by slice, all gates from one convolution over [input, hidden], as the paper has it."""
    weight = torch.cat([layer.input_gates.weight, layer.hidden_gates.weight], dim=1)
    hidden = cell = slices.new_zeros(slices.shape[1], layer.width, *slices.shape[3:])
    states = []
    for x in slices:
        gates = functional.conv2d(torch.cat([x, hidden], 1), weight, layer.input_gates.bias, padding=1)
        let_in, keep, let_out, candidate = gates.chunk(4, dim=1)
        cell = torch.sigmoid(keep) * cell + torch.sigmoid(let_in) * torch.tanh(candidate)
        hidden = torch.sigmoid(let_out) * torch.tanh(cell)
        states.append(hidden)
    return torch.stack(states)


def plain(module, slices):
    """The plain reading of a layer, in one direction or both."""
    if isinstance(module, ConvLSTM):
        return plain_conv_lstm(module, slices)
    down = plain_conv_lstm(module.down, slices.flip(0)).flip(0)
    return torch.cat([plain_conv_lstm(module.up, slices), down], dim=2)


def made(kind, in_width=3, width=6, size=(5, 2, 5, 7)):
    """A layer with weights that squash visibly, and slices (D, B, C, H, W)."""
    rng = torch.Generator().manual_seed(0)
    layer = kind(in_width, width)
    with torch.no_grad():
        for weight in layer.parameters():
            weight.copy_(torch.randn(weight.shape, generator=rng) * 0.3)
    depth, batch, *plane = size
    return layer, torch.randn(depth, batch, in_width, *plane, generator=rng)


@pytest.mark.parametrize("kind", [ConvLSTM, BidirectionalConvLSTM])
@pytest.mark.parametrize("size", [(5, 2, 5, 7), (1, 1, 4, 4), (3, 1, 1, 6)])
def test_the_result_without_gradients_is_the_plain_one(kind, size):
    layer, slices = made(kind, size=size)
    kept = slices.clone()
    with torch.no_grad():
        torch.testing.assert_close(layer(slices), plain(layer, slices), atol=1e-5, rtol=0)
    with torch.inference_mode():
        torch.testing.assert_close(layer(slices), plain(layer, slices), atol=1e-5, rtol=0)
    assert torch.equal(slices, kept)


@pytest.mark.parametrize("kind", [ConvLSTM, BidirectionalConvLSTM])
@pytest.mark.parametrize("size", [(5, 2, 5, 7), (1, 1, 4, 4), (3, 1, 1, 6)])
def test_result_and_gradients_in_training_are_the_plain_ones(kind, size):
    layer, slices = made(kind, size=size)
    slices.requires_grad_()
    fast, slow = layer(slices), plain(layer, slices)
    torch.testing.assert_close(fast, slow, atol=1e-5, rtol=0)
    along = torch.randn(fast.shape, generator=torch.Generator().manual_seed(1))
    inputs = [slices, *layer.parameters()]
    for ours, theirs in zip(
        torch.autograd.grad(fast, inputs, along, allow_unused=True, materialize_grads=True),
        torch.autograd.grad(slow, inputs, along),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_gradients_are_those_of_finite_differences_once_and_twice():
    rng = torch.Generator().manual_seed(0)
    layer, _ = made(ConvLSTM, in_width=1, width=2)
    layer.double()
    slices = torch.randn(3, 2, 1, 2, 3, generator=rng, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(8, 2, 3, 3, generator=rng, dtype=torch.float64, requires_grad=True)

    def read(slices, weight):
        return torch.func.functional_call(layer, {"hidden_gates.weight": weight}, (slices,))

    assert torch.autograd.gradcheck(read, (slices, weight))
    assert torch.autograd.gradgradcheck(read, (slices, weight))


def test_a_hessian_product_is_the_plain_one():
    layer, slices = made(ConvLSTM)

    def product(read):
        weights = list(layer.parameters())
        first = torch.autograd.grad(read(layer, slices).square().sum(), weights, create_graph=True)
        return torch.autograd.grad(sum(g.square().sum() for g in first), weights)

    for ours, theirs in zip(product(lambda net, x: net(x)), product(plain), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-3)


def test_gradients_mapped_over_samples_are_those_of_one_sample_at_a_time():
    layer, slices = made(ConvLSTM)
    weights = dict(layer.named_parameters())

    def loss(parameters, sample):
        return torch.func.functional_call(layer, parameters, (sample[:, None],)).square().sum()

    mapped = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 1))(weights, slices)
    for index in range(slices.shape[1]):
        one = torch.autograd.grad(layer(slices[:, [index]]).square().sum(), list(weights.values()))
        for name, gradient in zip(weights, one, strict=True):
            torch.testing.assert_close(mapped[name][index], gradient, atol=1e-4, rtol=1e-4)


def test_whoever_listens_to_the_layer_hears_every_slice_but_the_first():
    layer, slices = made(ConvLSTM)
    heard = []
    layer.hidden_gates.register_forward_hook(lambda *told: heard.append(told[-1].shape))
    with torch.no_grad():
        layer(slices)
    assert len(heard) == len(slices) - 1


def test_both_ways_read_from_the_feet_and_from_the_head():
    layer, slices = made(BidirectionalConvLSTM)
    changed = slices.clone()
    changed[0] += 1.0
    before, after = layer(slices), layer(changed)
    assert not torch.allclose(before[3, :, :3], after[3, :, :3])
    assert torch.equal(before[3, :, 3:], after[3, :, 3:])


def test_a_batch_is_its_volumes_one_by_one():
    recurrence = Recurrence(3, (4, 5), both_ways=True)
    volumes = torch.rand(2, 3, 4, 3, 5)
    with torch.no_grad():
        together = recurrence(volumes)
        one_by_one = torch.cat([recurrence(volumes[:1]), recurrence(volumes[1:])])
    torch.testing.assert_close(together, one_by_one, atol=1e-6, rtol=0)
