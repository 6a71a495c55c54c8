"""Laws of weight masks."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pruning_networks import classifier, cross_entropy, images, scores
from torch.optim.swa_utils import AveragedModel

from radiogen.errors import PruningError
from radiogen.pruning.criteria import CRITERIA
from radiogen.pruning.settings import CriterionSettings
from radiogen.pruning.weight_masks import apply_weight_masks, kept_count, sparsity_of, weight_masks

SIZES = st.lists(st.integers(1, 40), min_size=1, max_size=4)
PERCENT = st.integers(0, 99)


def draw_scores(sizes: list[int], seed: int, values: int) -> dict[str, torch.Tensor]:
    """Whole numbers, so that ties are common."""
    rng = torch.Generator().manual_seed(seed)
    return {
        f"layer{i}": torch.randint(values, (1, size), generator=rng).float() for i, size in enumerate(sizes)
    }


@settings(deadline=None)
@given(SIZES, PERCENT, st.integers(0, 9), st.integers(1, 50))
def test_exactly_the_share_is_kept_also_among_ties(
    sizes: list[int], percent: int, seed: int, values: int
) -> None:
    found = draw_scores(sizes, seed, values)
    kept = weight_masks(found, percent / 100)
    assert sum(int(m.sum()) for m in kept.values()) == max(1, (100 - percent) * sum(sizes) // 100)
    by_layer = weight_masks(found, percent / 100, "layer")
    for size, mask in zip(sizes, by_layer.values(), strict=True):
        assert int(mask.sum()) == max(1, (100 - percent) * size // 100)


@settings(deadline=None)
@given(SIZES, PERCENT, st.integers(0, 9), st.integers(1, 50))
def test_nothing_removed_scores_above_anything_kept(
    sizes: list[int], percent: int, seed: int, values: int
) -> None:
    found = draw_scores(sizes, seed, values)
    masks = weight_masks(found, percent / 100)
    flat = torch.cat([s.flatten() for s in found.values()])
    kept = torch.cat([m.flatten() for m in masks.values()])
    assert flat[kept].min() >= flat[~kept].max() if bool((~kept).any()) else bool(kept.all())


@settings(deadline=None)
@given(SIZES, PERCENT, PERCENT, st.integers(0, 9))
def test_a_sparser_mask_lies_inside_a_denser_one(sizes: list[int], one: int, two: int, seed: int) -> None:
    found = draw_scores(sizes, seed, 5)
    dense, sparse = (weight_masks(found, p / 100) for p in sorted((one, two)))
    assert all(bool((dense[name] | ~sparse[name]).all()) for name in found)


def test_ties_are_broken_by_index() -> None:
    tied = {"a": torch.ones(3), "b": torch.ones(3)}
    masks = weight_masks(tied, 0.34)
    assert [m.tolist() for m in masks.values()] == [[True, True, True], [False, False, False]]


def test_the_share_is_read_as_it_is_written() -> None:
    assert int((1 - 0.9) * 1000) == 99
    assert kept_count(1000, 0.9) == 100


@pytest.mark.parametrize("sparsity", [1.0, 1, 1.5, -0.1, float("nan")])
def test_a_sparsity_that_leaves_nothing_or_is_no_share_is_refused(sparsity: float) -> None:
    with pytest.raises(PruningError, match="sparsity"):
        weight_masks({"a": torch.ones(3)}, sparsity)


def test_a_score_that_is_not_finite_names_its_layer() -> None:
    with pytest.raises(PruningError, match=r"^b: 1 of 2 scores are not finite"):
        weight_masks({"a": torch.ones(2), "b": torch.tensor([1.0, float("nan")])}, 0.5)


def test_half_precision_scores_are_counted_exactly() -> None:
    scores_16 = {"a": torch.rand(5000, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)}
    assert int(weight_masks(scores_16, 0.9)["a"].sum()) == 500


@pytest.mark.parametrize("criterion", sorted(set(CRITERIA) - {"synflow"}))
def test_the_order_of_the_mini_batches_does_not_matter(criterion: str) -> None:
    chosen = CriterionSettings(criterion=criterion)
    there = scores(classifier(), images(5), cross_entropy, chosen, torch.Generator().manual_seed(0))
    back = scores(classifier(), images(5)[::-1], cross_entropy, chosen, torch.Generator().manual_seed(0))
    for name, score in there.items():
        torch.testing.assert_close(score, back[name], rtol=1e-9, atol=1e-12 * float(score.abs().max()))


def test_applying_masks_zeroes_what_is_outside_and_nothing_else() -> None:
    model, plain = classifier(), classifier()
    masks = weight_masks(scores(model, images(), cross_entropy), 0.7)
    apply_weight_masks(AveragedModel(model).module, masks)
    apply_weight_masks(model, masks)
    for name, p in plain.named_parameters():
        expected = p * masks[name] if name in masks else p
        assert torch.equal(dict(model.named_parameters())[name], expected)
    assert sparsity_of(masks) == pytest.approx(0.7, abs=1e-3)


def test_masks_of_another_architecture_name_the_layer() -> None:
    model = classifier()
    with pytest.raises(PruningError, match=r"^conv9.weight: is not a layer of this Classifier"):
        apply_weight_masks(model, {"conv9.weight": torch.ones(1, dtype=torch.bool)})
    with pytest.raises(PruningError, match=r"^conv1.weight: has weights \(6, 3, 3, 3\)"):
        apply_weight_masks(model, {"conv1.weight": torch.ones(6, 3, 3, 1, dtype=torch.bool)})
