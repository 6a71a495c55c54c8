"""RA-Seg: its size, its laws, its refusals."""

import pytest
import torch

from radiogen.errors import ConfigError, VolumeError
from radiogen.model.network_input import Preprocessing
from radiogen.networks.blocks import Attention
from radiogen.networks.kernels import volumes_channels_last
from radiogen.networks.raseg import RASeg, RASegSettings, build_raseg, weight_count
from radiogen.training.settings import PRESETS, load_preset

TINY = RASegSettings(encoder_widths=(2, 3, 4, 5), recurrent_widths=(5, 4), decoder_widths=(4, 3, 2))


def test_the_published_network_has_70_599_240_weights():
    with torch.device("meta"):
        assert weight_count(RASeg(RASegSettings())) == 70_599_240


def test_every_preset_builds_and_gives_logits_of_the_size_of_the_image():
    for name in PRESETS:
        settings = load_preset(name).network
        with torch.device("meta"):
            network = RASeg(settings)
            image, prior = torch.zeros(1, settings.in_channels, 32, 48, 64), torch.zeros(1, 1, 32, 48, 64)
            assert network(image, prior).shape == (1, 1, 32, 48, 64)
    assert 1e6 < weight_count(build_raseg(load_preset("small").network, 0)) < 2e6


def test_the_seed_decides_the_weights_and_global_chance_does_not():
    first = build_raseg(TINY, 3).state_dict()
    torch.manual_seed(99)
    again, other = build_raseg(TINY, 3).state_dict(), build_raseg(TINY, 4).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_the_prior_decides_what_the_network_sees():
    network = build_raseg(TINY, 0).eval()
    image = torch.rand(1, 1, 32, 32, 32)
    with torch.no_grad():
        one, none = network(image, torch.ones_like(image)), network(image, torch.zeros_like(image))
    assert not torch.allclose(one, none)


def test_a_small_box_reaches_the_deepest_attention_by_area_and_is_lost_by_points():
    prior = torch.zeros(1, 1, 64, 64, 64)
    prior[..., 26:34, 26:34, 26:34] = 1.0
    encoded, away = torch.ones(1, 3, 4, 4, 4), torch.zeros_like(prior)
    for resize, is_lost in (("area", False), ("trilinear", True)):
        attention = Attention(3, "batch", "boost", resize).eval()
        assert torch.equal(attention(encoded, prior), attention(encoded, away)) is is_lost


def test_in_training_coarser_logits_and_the_predicted_prior_are_compared_too():
    settings = TINY.model_copy(
        update={"full_width": 2, "joint": True, "prior_head": True, "deep_supervision": 2}
    )
    network = build_raseg(settings, 0).eval()
    image = torch.rand(1, 1, 32, 48, 64)
    found = network.supervised(image, torch.ones_like(image))
    assert torch.equal(found.logits, network(image, torch.ones_like(image)))
    assert [tuple(side.shape[2:]) for side in found.sides] == [(16, 24, 32), (8, 12, 16)]
    assert found.prior is not None and found.prior.shape == (1, 1, 2, 3, 4)
    assert network.output_layers == ("head", "prior_head", "side_heads.0", "side_heads.1")


def test_the_predicted_prior_feeds_the_attention():
    network = build_raseg(TINY.model_copy(update={"prior_head": True}), 0).eval()
    assert network.prior_head is not None
    image = torch.rand(1, 1, 32, 32, 32)
    with torch.no_grad():
        before = network(image, torch.ones_like(image))
        network.prior_head.bias.add_(5.0)
        after = network(image, torch.ones_like(image))
    assert not torch.allclose(before, after)


@pytest.mark.parametrize("preset", ["paper", "modern"])
@pytest.mark.parametrize("size", [(32, 16, 16), (16, 32, 16), (16, 16, 48)])
def test_an_axis_of_16_is_computed_and_trained_where_another_is_longer(preset, size):
    settings = load_preset(preset).network.model_copy(
        update={"encoder_widths": (3, 4, 5, 6), "recurrent_widths": (6,), "decoder_widths": (5, 4, 3)}
    )
    network = build_raseg(settings, 0)
    image = torch.rand(1, settings.in_channels, *size)
    logits = network.train()(image, torch.ones(1, 1, *size))
    logits.square().mean().backward()
    assert logits.shape == (1, 1, *size) and logits.isfinite().all()
    # One voxel at the bottom would be normalised to zero: two keep what the deepest encoder found.
    assert network.encoders[3].conv.weight.grad.any()
    assert Preprocessing(size=size).size == size


@pytest.mark.parametrize("size", [(16, 16, 16), (32, 40, 32), (32, 0, 16)])
def test_a_size_that_cannot_be_halved_four_times_is_refused(size):
    image = torch.zeros(1, 1, *size)
    with pytest.raises(VolumeError, match="multiples of 16, one of them larger than 16"):
        build_raseg(TINY, 0)(image, image)


def test_settings_that_do_not_go_together_are_refused():
    with pytest.raises(ConfigError, match="in_channels 1 must equal 2 windows"):
        load_preset("small", overrides=["network.in_channels=1"])
    with pytest.raises(ConfigError, match="there are paper, modern, small"):
        load_preset("huge")
    with pytest.raises(ConfigError, match="widths"):
        load_preset("small", overrides=["network.widths=3"])


def test_weights_laid_channels_last_compute_the_same_though_the_recurrence_has_flat_ones():
    network = build_raseg(TINY, 0).eval()
    image = torch.rand(1, 1, 32, 32, 32)
    with torch.no_grad():
        before = network(image, torch.ones_like(image))
        volumes_channels_last(network)
        after = network(image, torch.ones_like(image))
    weight = network.encoders[1].conv.weight
    assert weight.is_contiguous(memory_format=torch.channels_last_3d) and not weight.is_contiguous()
    torch.testing.assert_close(after, before, atol=1e-5, rtol=1e-5)
