"""A network that has been pruned through is found."""

import pytest
import torch
from pruning_networks import classifier, cross_entropy, half_squares, images, mixed, volumes

from radiogen.errors import PruningError
from radiogen.pruning.criteria import scores
from radiogen.pruning.layers import LayerRow, check_collapse, layer_table
from radiogen.pruning.settings import WeightMasks
from radiogen.pruning.weight_masks import weight_masks


def full_masks() -> WeightMasks:
    return {
        name: torch.ones_like(p, dtype=torch.bool)
        for name, p in classifier().named_parameters()
        if name.startswith("conv") and name.endswith("weight")
    }


def table_of(masks: WeightMasks) -> list[LayerRow]:
    return layer_table(classifier(), masks, images(), cross_entropy)


def test_a_dense_network_has_not_collapsed() -> None:
    table = table_of(full_masks())
    check_collapse(table)
    assert [row.name for row in table] == ["conv1.weight", "conv2.weight", "conv3.weight"]
    assert all(row.share == 1 and row.dead_in == row.dead_out == 0 for row in table)


def test_an_emptied_layer_is_named_unless_collapse_is_allowed() -> None:
    masks = full_masks()
    masks["conv2.weight"].zero_()
    table = table_of(masks)
    with pytest.raises(PruningError, match=r"^conv2.weight: none of its 648 weights is kept"):
        check_collapse(table[1:])
    check_collapse(table, allow=True)


def test_layers_that_miss_each_other_are_found_though_both_keep_weights() -> None:
    masks = full_masks()
    masks["conv1.weight"][:3] = False  # channels 3..5 are left
    masks["conv2.weight"][:, 3:] = False  # channels 0..2 are read
    rows = {row.name: row for row in table_of(masks)}
    assert rows["conv1.weight"].is_cut
    assert rows["conv2.weight"].is_cut
    assert (rows["conv1.weight"].dead_out, rows["conv2.weight"].dead_in) == (3, 3)
    with pytest.raises(PruningError, match="no path leads through"):
        check_collapse(list(rows.values()))


def test_without_batches_only_emptied_layers_are_seen() -> None:
    masks = full_masks()
    masks["conv1.weight"][:3] = False
    masks["conv2.weight"][:, 3:] = False
    check_collapse(layer_table(classifier(), masks))


def test_global_magnitude_collapses_a_layer_of_small_weights() -> None:
    model = classifier()
    with torch.no_grad():
        model.conv2.weight.mul_(1e-6)
    found = {name: p.detach().abs() for name, p in model.named_parameters() if name in full_masks()}
    with pytest.raises(PruningError, match=r"conv2.weight"):
        check_collapse(layer_table(model, weight_masks(found, 0.7)))
    check_collapse(layer_table(model, weight_masks(found, 0.7, "layer"), images(), cross_entropy))


def test_an_unused_layer_of_the_dense_network_is_not_called_cut() -> None:
    model = mixed()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    masks = {name: torch.ones_like(s, dtype=torch.bool) for name, s in scores_of(model).items()}
    check_collapse(layer_table(model, masks, volumes(), half_squares))
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())


def scores_of(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return scores(model, volumes(), half_squares)
