"""Masked weights stay zero through training."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from pruning_networks import classifier, cross_entropy, images
from torch import nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from radiogen.errors import PruningError
from radiogen.pruning.criteria import scores
from radiogen.pruning.holding import assert_held, hold_weight_masks
from radiogen.pruning.signatures import WeightMasks
from radiogen.pruning.weight_masks import weight_masks

OPTIMIZERS: dict[str, Callable[[Any], Optimizer]] = {
    "sgd": lambda p: SGD(p, 0.1, momentum=0.9, weight_decay=5e-2, nesterov=True),
    "adamw": lambda p: AdamW(p, 0.01, weight_decay=0.1),
}


def masks_of(model: nn.Module) -> WeightMasks:
    return weight_masks(scores(model, images(), cross_entropy, exclude=["linear"]), 0.8)


def train(model: nn.Module, optimizer: Optimizer, steps: int = 6) -> None:
    for batch in images(steps, size=3):
        optimizer.zero_grad()
        cross_entropy(model, batch).backward()
        optimizer.step()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_masked_weights_stay_zero_through_momentum_and_decay(name: str) -> None:
    model = classifier()
    optimizer = OPTIMIZERS[name](model.parameters())
    train(model, optimizer)  # momentum of the dense network is at hand
    masks = masks_of(model)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    hold_weight_masks(model, masks, optimizer)
    train(model, optimizer)
    for n, mask in masks.items():
        weight = model.get_parameter(n)
        assert not weight.detach()[~mask].any()
        assert not weight.grad[~mask].any()
        assert bool((weight.detach() != before[n])[mask].all())
        for value in optimizer.state[weight].values():
            if value.shape == weight.shape:
                assert not value[~mask].any()
    assert_held(model, masks)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_without_holding_the_weights_come_back(name: str) -> None:
    model = classifier()
    optimizer = OPTIMIZERS[name](model.parameters())
    masks = masks_of(model)
    held = hold_weight_masks(model, masks, optimizer)
    held.remove()
    train(model, optimizer)
    with pytest.raises(PruningError, match=r"conv1.weight: \d+ pruned weights are not zero"):
        assert_held(model, masks)


def test_masks_hold_through_averaging_and_resume() -> None:
    model = classifier()
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    masks = masks_of(model)
    hold_weight_masks(model, masks, optimizer)
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    train(model, optimizer)
    averaged.update_parameters(model)
    assert_held(averaged, masks)

    resumed = classifier(seed=1)
    again = OPTIMIZERS["sgd"](resumed.parameters())
    resumed.load_state_dict(model.state_dict())
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    hold_weight_masks(resumed, masks, again)
    train(model, optimizer)
    train(resumed, again)
    assert_held(resumed, masks)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), resumed.parameters(), strict=True))


def test_masks_of_another_architecture_are_not_held() -> None:
    model = nn.Conv2d(1, 1, 1)
    with pytest.raises(PruningError, match=r"conv1.weight: is not a layer of this Conv2d"):
        hold_weight_masks(model, masks_of(classifier()), SGD(model.parameters(), 0.1))


def test_frozen_weights_can_be_held() -> None:
    model = classifier()
    masks = masks_of(model)
    optimizer = SGD(model.parameters(), 0.1)
    model.conv1.weight.requires_grad_(False)
    hold_weight_masks(model, masks, optimizer)
    train(model, optimizer, steps=2)
    assert_held(model, masks)
