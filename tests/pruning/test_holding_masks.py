"""Masked weights stay zero through training."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pruning_networks import classifier, cross_entropy, images, scores
from torch import nn
from torch.optim import (
    ASGD,
    SGD,
    Adadelta,
    Adagrad,
    Adam,
    Adamax,
    AdamW,
    NAdam,
    Optimizer,
    RAdam,
    RMSprop,
    Rprop,
)
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from radiogen.errors import PruningError
from radiogen.pruning.settings import WeightMasks
from radiogen.pruning.weight_masks import check_masks_held, hold_weight_masks, weight_masks

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
    check_masks_held(model, masks)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_without_holding_the_weights_come_back(name: str) -> None:
    model = classifier()
    optimizer = OPTIMIZERS[name](model.parameters())
    masks = masks_of(model)
    held = hold_weight_masks(model, masks, optimizer)
    held.remove()
    train(model, optimizer)
    with pytest.raises(PruningError, match=r"conv1.weight: \d+ pruned weights are not zero"):
        check_masks_held(model, masks)


def test_masks_hold_through_averaging_and_resume() -> None:
    model = classifier()
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    masks = masks_of(model)
    hold_weight_masks(model, masks, optimizer)
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    train(model, optimizer)
    averaged.update_parameters(model)
    check_masks_held(averaged, masks)

    resumed = classifier(seed=1)
    again = OPTIMIZERS["sgd"](resumed.parameters())
    resumed.load_state_dict(model.state_dict())
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    hold_weight_masks(resumed, masks, again)
    train(model, optimizer)
    train(resumed, again)
    check_masks_held(resumed, masks)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), resumed.parameters(), strict=True))


EVERY: dict[str, Callable[[Any], Optimizer]] = {
    **OPTIMIZERS,
    "adam": lambda p: Adam(p, 0.01, weight_decay=0.1, amsgrad=True),
    "adam, fused": lambda p: Adam(p, 0.01, weight_decay=0.1, fused=True),
    "adamax": lambda p: Adamax(p, 0.01, weight_decay=0.1),
    "adadelta": lambda p: Adadelta(p, 1.0, weight_decay=0.1),
    "adagrad": lambda p: Adagrad(p, 0.01, weight_decay=0.1),
    "asgd": lambda p: ASGD(p, 0.01, weight_decay=0.1, t0=1),
    "nadam": lambda p: NAdam(p, 0.01, weight_decay=0.1),
    "radam": lambda p: RAdam(p, 0.01, weight_decay=0.1),
    "rmsprop": lambda p: RMSprop(p, 0.01, weight_decay=0.1, momentum=0.9, centered=True),
    "rprop": lambda p: Rprop(p, 0.01),
}


@settings(max_examples=40)
@given(
    st.sampled_from(sorted(EVERY)),
    st.sampled_from([0.3, 0.9, 0.99]),
    st.integers(0, 3),
    st.integers(1, 3),
    st.booleans(),
)
def test_masks_survive_each_optimiser(
    name: str, sparsity: float, before: int, together: int, clip: bool
) -> None:
    model = classifier()
    optimizer = EVERY[name](model.parameters())
    train(model, optimizer, steps=before)
    masks = weight_masks(scores(model, images(), cross_entropy, exclude=["linear"]), sparsity)
    hold_weight_masks(model, masks, optimizer)
    for number, batch in enumerate(images(6, size=3)):  # gradients of several mini-batches for one step
        cross_entropy(model, batch).backward()
        if (number + 1) % together == 0:
            if clip:
                nn.utils.clip_grad_norm_(model.parameters(), 0.1)
            optimizer.step()
            optimizer.zero_grad(set_to_none=False)
            check_masks_held(model, masks)
    state = [value for entry in optimizer.state.values() for value in entry.values()]
    assert all(bool(torch.as_tensor(value).isfinite().all()) for value in state)


def test_masks_hold_through_mixed_precision_and_skipped_steps() -> None:
    model = classifier().float()
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    masks = weight_masks(scores(model, floats(4), cross_entropy, exclude=["linear"]), 0.8)
    hold_weight_masks(model, masks, optimizer)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8)
    before = model.conv1.weight.detach().clone()
    for number, batch in enumerate(floats(4)):
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = cross_entropy(model, batch)
        scaler.scale(loss * float("inf") if number == 1 else loss).backward()
        scaler.step(optimizer)  # leaves out the step whose gradients are not finite
        scaler.update()
        check_masks_held(model, masks)
    assert scaler.get_scale() < 2.0**8
    assert not torch.equal(before, model.conv1.weight)


def floats(count: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [(x.float(), y) for x, y in images(count, size=3)]


def test_an_average_that_began_dense_is_found_not_to_hold() -> None:
    model = classifier()
    averaged = AveragedModel(model)
    averaged.update_parameters(model)
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    masks = masks_of(model)
    hold_weight_masks(model, masks, optimizer)
    averaged.update_parameters(model)
    with pytest.raises(PruningError, match="pruned weights are not zero"):
        check_masks_held(averaged, masks)


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
    check_masks_held(model, masks)
