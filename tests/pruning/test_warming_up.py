"""Warm-up before scoring."""

import copy

import pytest
import torch
from pruning_networks import classifier, cross_entropy, half_squares, images, mixed, volumes

from radiogen.errors import PruningError
from radiogen.pruning.warmup import WarmUpSettings, warm_up


def changed(model: torch.nn.Module, before: dict[str, torch.Tensor]) -> set[str]:
    return {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}


def test_none_changes_nothing() -> None:
    model = classifier()
    before = copy.deepcopy(model.state_dict())
    assert warm_up(model, images(), cross_entropy, WarmUpSettings()).batches == 0
    assert changed(model, before) == set()


def test_bn_changes_the_statistics_of_batchnorm_alone() -> None:
    model = classifier()
    model.bn2.eval()
    before, rng = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    done = warm_up(model, images(3), cross_entropy, WarmUpSettings(kind="bn"))
    assert done.batches == 3
    parts = ("running_mean", "running_var", "num_batches_tracked")
    assert changed(model, before) == {f"bn{i}.{part}" for i in (1, 2, 3) for part in parts}
    assert model.training
    assert not model.bn2.training
    assert torch.equal(torch.get_rng_state(), rng)


def test_bn_says_that_it_has_no_effect_on_instance_norm() -> None:
    model = mixed()
    before = copy.deepcopy(model.state_dict())
    done = warm_up(model, volumes(), half_squares, WarmUpSettings(kind="bn"))
    assert "without effect" in done.note
    assert changed(model, before) == set()


def test_epoch_does_what_one_epoch_of_sgd_does_and_leaves_no_trace_but_the_weights() -> None:
    model, twin = classifier(), classifier()
    model.eval()
    model.linear.bias.requires_grad_(False)
    twin.linear.bias.requires_grad_(False)
    settings = WarmUpSettings(kind="epoch", rate=0.05)
    assert warm_up(model, images(), cross_entropy, settings).batches == 4
    twin.train()
    trained = [p for p in twin.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, 0.05, momentum=0.9, weight_decay=5e-4)
    for batch in images():
        optimizer.zero_grad()
        cross_entropy(twin, batch).backward()
        optimizer.step()
    assert changed(model, twin.state_dict()) == set()
    assert not model.training
    assert all(p.grad is None for p in model.parameters())
    assert not model.linear.bias.requires_grad


def test_an_epoch_that_overflows_is_refused() -> None:
    with pytest.raises(PruningError, match="not finite"):
        warm_up(classifier(), images(20), cross_entropy, WarmUpSettings(kind="epoch", rate=1e30))


@pytest.mark.parametrize("kind", ["bn", "epoch"])
def test_a_warm_up_without_mini_batches_is_refused(kind: str) -> None:
    with pytest.raises(PruningError, match="holds no mini-batch"):
        warm_up(classifier(), [], cross_entropy, WarmUpSettings.model_validate({"kind": kind}))
