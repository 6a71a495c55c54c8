"""Several networks and mirror images: the mean of probabilities, and how far they lie apart."""

import math

import pytest
import torch

from radiogen.segmentation.sliding import FLIPS, averaged


def says(logit):
    return lambda image, prior: torch.full_like(prior, logit) + 0 * image


def test_networks_are_averaged_by_probability():
    image = prior = torch.zeros(2, 1, 4, 4, 4)
    logits, spread = averaged([says(2.0), says(-1.0)], flips=False)(image, prior).unbind(1)
    p, q = 1 / (1 + math.exp(-2)), 1 / (1 + math.exp(1))
    assert torch.sigmoid(logits).mean().item() == pytest.approx((p + q) / 2, abs=1e-6)
    assert spread.mean().item() == pytest.approx((p - q) / 2, abs=1e-6)


def test_one_network_without_flips_is_called_as_it_is():
    call = says(1.0)
    assert averaged([call], flips=False) is call


def test_mirror_images_come_back_as_they_were():
    """A network that works voxel by voxel says the same of every mirror image."""
    image, prior = torch.rand(1, 1, 4, 5, 6), torch.rand(1, 1, 4, 5, 6)
    logits, spread = averaged([lambda i, p: 4 * i - 2 * p], flips=True)(image, prior).unbind(1)
    assert torch.allclose(logits, (4 * image - 2 * prior)[:, 0], atol=1e-4)
    assert spread.max().item() < 1e-3


def test_a_network_that_prefers_one_side_is_evened_out():
    def left(image, prior):
        return torch.where(torch.arange(6) < 3, 3.0, -3.0).expand(prior.shape)

    logits, spread = averaged([left], flips=True)(
        torch.zeros(1, 1, 4, 5, 6), torch.zeros(1, 1, 4, 5, 6)
    ).unbind(1)
    assert logits.abs().max().item() < 1e-5
    assert spread.mean().item() == pytest.approx(1 / (1 + math.exp(-3)) - 0.5, abs=1e-5)


def test_there_are_eight_mirror_images():
    assert len(set(FLIPS)) == 8 and FLIPS[0] == ()
