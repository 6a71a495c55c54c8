"""Overlap of two weight masks, and the controls that a criterion must beat."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pruning_networks import classifier, cross_entropy, images, scores

from radiogen.errors import PruningError
from radiogen.pruning.controls import overlap, overlap_table, redraw_weights, shuffle_within_layers
from radiogen.pruning.settings import WeightMasks
from radiogen.pruning.weight_masks import weight_masks


def masks_of(sparsity: float = 0.8) -> WeightMasks:
    return weight_masks(scores(classifier(), images(), cross_entropy), sparsity)


def test_overlap_counts_what_both_keep() -> None:
    first = {"a": torch.tensor([1, 1, 0, 0]).bool(), "b": torch.tensor([1, 0]).bool()}
    second = {"a": torch.tensor([1, 0, 1, 1]).bool(), "b": torch.tensor([1, 0]).bool()}
    both = overlap(first, second)
    assert (both.kept_first, both.kept_second, both.kept_both) == (3, 4, 2)
    assert both.shared == 2 / 3
    assert both.jaccard == 2 / 5
    assert both.expected_both == 2 * 3 / 4 + 1 / 2
    assert [row.kept_both for row in overlap_table(first, second)] == [1, 1]


def test_masks_of_another_network_cannot_be_compared() -> None:
    masks = masks_of()
    with pytest.raises(PruningError, match=r"^conv1.weight: is in one"):
        overlap(masks, {name: m for name, m in masks.items() if name != "conv1.weight"})
    with pytest.raises(PruningError, match=r"^conv1.weight: has masks"):
        overlap(masks, masks | {"conv1.weight": torch.ones(2, dtype=torch.bool)})


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 1000), st.floats(0, 0.95))
def test_shuffling_keeps_as_many_of_each_layer(seed: int, sparsity: float) -> None:
    rng = torch.Generator().manual_seed(seed)
    found = {"a": torch.rand(7, 9, generator=rng), "b": torch.rand(40, generator=rng)}
    masks = weight_masks(found, round(sparsity, 3))
    shuffled = shuffle_within_layers(masks, rng)
    assert all(int(m.sum()) == int(shuffled[name].sum()) for name, m in masks.items())
    assert all(m.shape == shuffled[name].shape for name, m in masks.items())


def test_shuffled_masks_share_what_chance_gives() -> None:
    masks = masks_of(0.5)
    both = overlap(masks, shuffle_within_layers(masks, torch.Generator().manual_seed(0)))
    assert both.kept_both == pytest.approx(both.expected_both, rel=0.1)
    assert both.shared < 0.8


def test_redrawn_layers_hold_the_same_numbers_in_other_places() -> None:
    model, before = classifier(), classifier()
    masks = masks_of()
    redraw_weights(model, masks, torch.Generator().manual_seed(0))
    for name, weight in model.named_parameters():
        old = before.get_parameter(name)
        assert torch.equal(
            weight.sort().values if weight.dim() == 0 else weight.flatten().sort().values,
            old.flatten().sort().values,
        )
        assert torch.equal(weight, old) == (name not in masks)
