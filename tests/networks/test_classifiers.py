"""The classifiers of the pruning papers: their size, their start, what they refuse."""

import pytest
import torch

from radiogen.errors import ConfigError
from radiogen.networks.classifiers import CLASSIFIERS, OUTPUT_LAYER, build_classifier
from radiogen.networks.raseg import weight_count
from radiogen.pruning.prunable import prunable


@pytest.mark.parametrize(
    ("name", "channels", "weights"),
    [("resnet18", 3, 11_173_962), ("vgg19", 3, 20_040_522), ("resnet8", 1, 77_754)],
)
def test_a_classifier_has_the_weights_of_the_papers(name, channels, weights):
    assert weight_count(build_classifier(name, channels, 10, seed=0)) == weights


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_the_width_scales_every_stage_and_the_answer_has_the_classes(name):
    network = build_classifier(name, 3, 7, seed=0, width=4).eval()
    assert network(torch.rand(2, 3, 32, 32)).shape == (2, 7)
    assert weight_count(network) < 150_000


def test_the_seed_decides_the_weights_and_global_chance_does_not():
    first = build_classifier("resnet8", 1, 10, seed=3).state_dict()
    torch.manual_seed(99)
    again, other = (build_classifier("resnet8", 1, 10, seed=seed).state_dict() for seed in (3, 4))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_everything_but_the_output_layer_and_the_norms_is_prunable(name):
    network = build_classifier(name, 3, 10, seed=0, width=2)
    left = {n for n, p in network.named_parameters() if p.dim() > 1} - set(prunable(network, [OUTPUT_LAYER]))
    assert left == {f"{OUTPUT_LAYER}.weight"}


def test_an_unknown_network_and_too_small_images_are_refused():
    with pytest.raises(ConfigError, match=r"^network vgg16: is unknown \(there are resnet18, vgg19"):
        build_classifier("vgg16", 3, 10, seed=0)
    with pytest.raises(ConfigError, match=r"^images of 8 x 8 pixels: are too small"):
        build_classifier("vgg19", 1, 10, seed=0, width=2)(torch.rand(2, 1, 8, 8))
