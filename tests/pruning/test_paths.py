"""What weight masks cut off is found: bypassed layers, lost inputs, networks with no path left."""

import pytest
import torch
from pruning_networks import classifier, cross_entropy, half_squares, images, mixed, scores, volumes
from torch import Tensor, nn

from radiogen.errors import PruningError
from radiogen.pruning.choosing import choose_weights
from radiogen.pruning.layers import bypassed, layer_lines, layer_table
from radiogen.pruning.paths import Paths, find_paths
from radiogen.pruning.settings import Batch, CriterionSettings, WeightMasks


def full_masks(model: nn.Module) -> WeightMasks:
    return {
        name: torch.ones_like(p, dtype=torch.bool)
        for name, p in model.named_parameters()
        if name.endswith("weight") and p.dim() > 1 and not name.startswith("linear")
    }


def paths_of(masks: WeightMasks) -> Paths:
    return find_paths(classifier(), masks, images(), cross_entropy)


class Residual(nn.Module):
    """y = head(x + outer(inner(x)) + side): two layers that a skip goes round, and a second input."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Conv2d(3, 3, 1)
        self.outer = nn.Conv2d(3, 3, 1)
        self.side = nn.Conv2d(1, 3, 1)
        self.head = nn.Conv2d(3, 1, 1)

    def forward(self, image: Tensor, hint: Tensor) -> Tensor:
        return self.head(image + self.outer(torch.relu(self.inner(image))) + self.side(hint))


def residual() -> Residual:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return Residual().double()


def pairs() -> list[Batch]:
    rng = torch.Generator().manual_seed(2)
    return [
        tuple(torch.randn(1, width, 4, 4, generator=rng, dtype=torch.float64) for width in (3, 1, 1))
        for _ in range(3)
    ]


def squares(model: nn.Module, batch: Batch) -> Tensor:
    image, hint, target = batch
    return (model(image, hint) - target).square().mean()


def test_a_dense_network_has_all_its_paths() -> None:
    assert paths_of(full_masks(classifier())) == Paths(frozenset(), (), is_open=True)


@pytest.mark.parametrize("layer", ["conv1", "conv2", "conv3"])
def test_a_chain_with_an_emptied_layer_has_no_path_at_all(layer: str) -> None:
    masks = full_masks(classifier())
    masks[f"{layer}.weight"].zero_()
    paths = paths_of(masks)
    assert not paths.is_open and paths.lost_inputs == ("x",)
    assert paths.cut == {"conv1.weight", "conv2.weight", "conv3.weight"}


def test_layers_that_miss_each_other_are_found_though_both_keep_weights() -> None:
    model, masks = classifier(), full_masks(classifier())
    masks["conv1.weight"][:3] = False  # channels 3..5 are left
    masks["conv2.weight"][:, 3:] = False  # channels 0..2 are read
    paths = paths_of(masks)
    assert not paths.is_open
    rows = {row.name: row for row in layer_table(model, masks, paths.cut)}
    assert rows["conv1.weight"].is_cut and rows["conv2.weight"].is_cut
    assert (rows["conv1.weight"].dead_out, rows["conv2.weight"].dead_in) == (3, 3)


def test_a_cut_layer_with_a_way_round_it_leaves_the_network_open() -> None:
    model, masks = residual(), full_masks(residual())
    masks["inner.weight"].zero_()
    paths = find_paths(model, masks, pairs(), squares)
    assert paths == Paths(frozenset({"inner.weight", "outer.weight"}), (), is_open=True)
    table = layer_table(model, masks, paths.cut)
    assert bypassed(table) == (
        "inner, outer are bypassed: no path leads through them, paths round them remain"
    )
    marked = [line.split()[0] for line in layer_lines(table) if line.endswith("  bypassed")]
    assert marked == ["inner.weight", "outer.weight"]


def test_an_input_that_the_output_depends_on_no_more_is_named() -> None:
    model, masks = residual(), full_masks(residual())
    masks["side.weight"].zero_()
    paths = find_paths(model, masks, pairs(), squares)
    assert paths.lost_inputs == ("hint",) and paths.is_open
    settings = CriterionSettings(criterion="magnitude", sparsity=0.85)
    with torch.no_grad():
        model.side.weight.mul_(1e-6)
    choice = choose_weights(model, pairs(), squares, settings, torch.Generator(), exclude=["head"])
    assert "the output does not depend on the hint any more" in choice.notes


def test_a_layer_that_starts_at_zero_counts_as_open_since_training_may_open_it() -> None:
    model = residual()
    nn.init.zeros_(model.outer.weight)
    masks = full_masks(model)
    assert not find_paths(model, masks, pairs(), squares).cut
    masks["inner.weight"].zero_()
    assert find_paths(model, masks, pairs(), squares).cut == {"inner.weight", "outer.weight"}


def test_a_network_without_a_path_is_refused_with_a_sparsity_that_works() -> None:
    model = classifier()
    with torch.no_grad():
        model.conv2.weight.mul_(1e-6)  # the last to be kept

    def choose(sparsity: float, allow: bool = False) -> tuple[str, ...]:
        settings = CriterionSettings(criterion="magnitude", sparsity=sparsity)
        rng = torch.Generator()
        return choose_weights(
            model, images(), cross_entropy, settings, rng, ["linear"], allow_collapse=allow
        ).notes

    with pytest.raises(PruningError, match=r"^sparsity 0.7: leaves no path") as refusal:
        choose(0.7)
    assert refusal.value.hint == "take sparsity 0.2, at which a path is left"
    assert choose(0.2)[0] == "1684 of 2106 prunable weights kept, the highest of all layers together"
    assert "no path is left from the input to the output" in choose(0.7, allow=True)


def test_an_unused_layer_of_the_dense_network_is_not_called_cut() -> None:
    model = mixed()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    masks = {
        name: torch.ones_like(s, dtype=torch.bool)
        for name, s in scores(model, volumes(), half_squares).items()
    }
    assert not find_paths(model, masks, volumes(), half_squares).cut
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
