"""Scoring leaves the network as it was, on plain and on unusual networks."""

import copy
from typing import Any

import pytest
import torch
from pruning_networks import classifier, cross_entropy, half_squares, images, mixed, scores, volumes
from torch import Tensor, nn

from radiogen.errors import PruningError
from radiogen.pruning.criteria import CRITERIA
from radiogen.pruning.layers import layer_table
from radiogen.pruning.prunable import prunable
from radiogen.pruning.settings import Batch, CriterionSettings
from radiogen.pruning.weight_masks import weight_masks


@pytest.mark.parametrize("criterion", CRITERIA)
def test_scoring_leaves_weights_gradients_buffers_modes_and_random_state(criterion: str) -> None:
    model = classifier()
    model.bn1.eval()
    model.conv2.bias.requires_grad_(False)
    model.conv1.weight.grad = torch.ones_like(model.conv1.weight)
    state = copy.deepcopy(model.state_dict())
    modes = [m.training for m in model.modules()]
    rng = torch.get_rng_state()
    scores(model, images(), cross_entropy, CriterionSettings(criterion=criterion, rounds=2))
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    assert [m.training for m in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), rng)
    assert torch.equal(model.conv1.weight.grad, torch.ones_like(model.conv1.weight))
    assert model.conv2.weight.grad is None
    assert [name for name, p in model.named_parameters() if not p.requires_grad] == ["conv2.bias"]


def test_the_network_is_restored_when_scoring_fails() -> None:
    model = classifier()
    model.train()
    calls = []

    def failing(network: nn.Module, batch: Batch) -> Tensor:
        calls.append(1)
        if len(calls) > 2:
            raise KeyboardInterrupt
        return cross_entropy(network, batch)

    state = copy.deepcopy(model.state_dict())
    with pytest.raises(KeyboardInterrupt):
        scores(model, images(), failing, CriterionSettings(criterion="snip", rounds=3))
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    assert model.training
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("criterion", CRITERIA)
def test_scoring_works_under_no_grad(criterion: str) -> None:
    settings = CriterionSettings(criterion=criterion, rounds=1)
    inside, outside = torch.Generator().manual_seed(2), torch.Generator().manual_seed(2)
    plain = scores(classifier(), images(), cross_entropy, settings, outside)
    with torch.no_grad():
        quiet = scores(classifier(), images(), cross_entropy, settings, inside)
    assert all(torch.equal(plain[name], quiet[name]) for name in plain)


@pytest.mark.parametrize("criterion", CRITERIA)
def test_unusual_layers_are_scored_and_an_unused_one_gets_nothing(criterion: str) -> None:
    settings = CriterionSettings(criterion=criterion, rounds=1)
    found = scores(mixed(), volumes(), half_squares, settings)
    assert list(found) == [f"{n}.weight" for n in ("first", "grouped", "shared", "unused", "up")]
    assert all(bool((score != 0).any()) for name, score in found.items() if name != "unused.weight")
    if criterion not in ("random", "magnitude"):
        assert not found["unused.weight"].any()


def test_norms_slopes_biases_and_excluded_layers_are_never_prunable() -> None:
    names = list(prunable(mixed(), exclude=["up", "again"]))
    assert names == ["first.weight", "grouped.weight", "unused.weight"]


def test_the_batchnorm_of_a_shortcut_is_pruned_by_the_published_names_only() -> None:
    model = nn.ModuleDict({"conv": nn.Conv2d(1, 1, 1), "shortcut": nn.BatchNorm2d(1)})
    assert list(prunable(model)) == ["conv.weight"]
    assert list(prunable(model, published_names=True)) == ["conv.weight", "shortcut.weight"]


def test_channels_of_grouped_and_transposed_convolutions_are_counted_on_the_right_axis() -> None:
    masks = {
        "grouped.weight": torch.zeros(4, 2, 3, 3, 3, dtype=torch.bool),
        "up.weight": torch.zeros(4, 1, 2, 2, 2, dtype=torch.bool),
    }
    masks["grouped.weight"][3, 1] = True  # output 3, input 3
    masks["up.weight"][:2] = True
    grouped, up = layer_table(mixed(), masks)
    assert (grouped.channels_in, grouped.dead_in, grouped.channels_out, grouped.dead_out) == (4, 3, 4, 3)
    assert (up.channels_in, up.dead_in, up.channels_out, up.dead_out) == (4, 2, 1, 0)
    assert up.share == 0.5


class Slope(torch.autograd.Function):
    """The derivative of `Square`, itself without one."""

    @staticmethod
    def forward(_ctx: Any, x: Tensor) -> Tensor:
        return 2 * x

    @staticmethod
    def backward(_ctx: Any, gradient: Tensor) -> Tensor:
        raise NotImplementedError("no second derivative")


class Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.square()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient * Slope.apply(ctx.saved_tensors[0])


class OnceSmooth(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return Square.apply(x)


def test_a_network_that_cannot_be_differentiated_twice_says_so() -> None:
    def loss(network: nn.Module, batch: Batch) -> Tensor:
        return cross_entropy(nn.Sequential(network, OnceSmooth()), batch)

    found = scores(classifier(), images(), loss, CriterionSettings(criterion="snip"))
    assert weight_masks(found, 0.5)
    with pytest.raises(PruningError, match="first-order criterion"):
        scores(classifier(), images(), loss, CriterionSettings(criterion="grasp"))
