"""Every criterion on two weights, against arithmetic done by hand."""

import pytest
import torch
from pruning_networks import classifier, cross_entropy, half_squares, images, scores, two_samples, two_weights
from torch import nn

from radiogen.errors import PruningError
from radiogen.pruning.criteria import CRITERIA, score_weights
from radiogen.pruning.settings import CriterionSettings, MomentSettings
from radiogen.pruning.weight_masks import weight_masks

# w = (2, -3), G = (1, -3), F = (26, 34), H = [[5, 2.5], [2.5, 2.5]]
BY_HAND = {
    "magnitude": (2, 3),
    "grad-norm": (1, 3),
    "snip": (2, 9),
    "fisher-diag": (26, 34),
    "fisher-pruning": (52, 153),
    "fts": (2 + 52, 9 + 153),
    "fbss": (52 - 2 + 1 / 52, 153 - 9 + 9 / 68),
    # at temperature 200: g = (-2.975, -1.025) / 400, H / 200^2
    "grasp": (2 * -17.4375 / 1.6e7, -3 * -10 / 1.6e7),
}
DIAGONAL, BESIDE = torch.tensor([5.0, 2.5]), 2.5


def score_two(criterion: str, seed: int = 0, **options: object) -> torch.Tensor:
    settings = CriterionSettings.model_validate({"criterion": criterion} | options)
    rng = torch.Generator().manual_seed(seed)
    found = scores(two_weights(), two_samples(), half_squares, settings, rng)
    return found["weight"].flatten().float()


@pytest.mark.parametrize("criterion", BY_HAND)
def test_scores_are_those_worked_out_by_hand(criterion: str) -> None:
    torch.testing.assert_close(score_two(criterion), torch.tensor(BY_HAND[criterion]).float())


def test_every_criterion_has_hand_arithmetic() -> None:
    assert set(CRITERIA) == {*BY_HAND, "random", "synflow", "hutch-diag", "hutch-pruning", "hts"}


def test_fisher_scale_multiplies_the_second_term_alone() -> None:
    assert score_two("fts", fisher_scale=0.5).tolist() == [2 + 26, 9 + 76.5]
    assert score_two("fts", fisher_scale="dataset").tolist() == [2 + 2 * 52, 9 + 2 * 153]


def test_fisher_scale_batch_is_the_number_of_samples_of_a_mini_batch() -> None:
    together = [tuple(torch.cat(tensors) for tensors in zip(*two_samples(), strict=True))]
    settings = CriterionSettings(criterion="fts")
    scoring = score_weights(two_weights(), together, half_squares, settings)
    # one mini-batch: g = (1, -3), F = g^2 = (1, 9), s = 2
    assert scoring.scores["weight"].tolist() == [[2 + 2 * 4 * 1 / 2, 9 + 2 * 9 * 9 / 2]]
    assert (scoring.samples, scoring.batches) == (2, 1)


@pytest.mark.parametrize("engine", ["loop", "hooks"])
def test_fisher_scale_batch_is_that_of_the_full_mini_batches_when_the_last_is_short(engine: str) -> None:
    rng = torch.Generator().manual_seed(0)
    x, y = (torch.randn(21, width, generator=rng).double() for width in (2, 1))
    fives = list(zip(x.split(5), y.split(5), strict=True))  # 5, 5, 5, 5 and 1 samples
    model, settings = two_weights(), CriterionSettings(moments=MomentSettings(engine=engine))
    scoring = score_weights(model, fives, half_squares, settings)
    gradients = torch.stack([((x @ model.weight.T - y) * x).mean(0) for x, y in fives]).detach()
    w, g, f = model.weight.detach()[0], gradients.mean(0), gradients.square().mean(0)
    torch.testing.assert_close(scoring.scores["weight"][0], (w * g + w.square() * 5 * f / 2).abs())
    assert scoring.second_order is not None and scoring.second_order.scale == 5


def test_the_second_order_term_is_measured_beside_the_first() -> None:
    second = score_weights(two_weights(), two_samples(), half_squares).second_order
    assert second is not None
    assert (second.first, second.second, second.scale) == (11, 205, 1)
    assert second.ratio == 205 / 11


def test_grasp_runs_without_temperature_when_asked() -> None:
    # H g = (5 - 7.5, 2.5 - 7.5)
    assert score_two("grasp", temperature=1.0).tolist() == [2 * -2.5, -3 * -5]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_hutchinson_criteria_share_one_estimate_of_the_diagonal(seed: int) -> None:
    estimate = score_two("hutch-diag", seed)
    correlation = (estimate - DIAGONAL) / BESIDE  # mean of v0 v1 over ten probes
    assert correlation[0] == pytest.approx(float(correlation[1]))
    assert float(correlation[0]) * 5 == pytest.approx(round(float(correlation[0]) * 5), abs=1e-5)
    w = torch.tensor([2.0, -3.0])
    torch.testing.assert_close(score_two("hutch-pruning", seed), w.square() * estimate / 2)
    first = torch.tensor([2.0, 9.0])
    torch.testing.assert_close(score_two("hts", seed), (first + w.square() * estimate / 2).abs())


def test_hutchinson_finds_the_diagonal_with_many_probes() -> None:
    torch.testing.assert_close(score_two("hutch-diag", probes=3000), DIAGONAL, atol=0.3, rtol=0)


def test_the_probes_double_until_the_kept_weights_settle() -> None:
    # One input at a time: the Hessian is diagonal, and every probe finds all of it.
    apart = [(x * torch.eye(2)[n].double(), y) for n, (x, y) in enumerate(two_samples())]
    settings = CriterionSettings(criterion="hutch-diag", sparsity=0.5, moments=MomentSettings(settle=0.1))
    scoring = score_weights(two_weights(), apart, half_squares, settings)
    assert scoring.scores["weight"].tolist() == [[0.5, 0.5]]
    assert (scoring.probes, scoring.change) == (20, 0)
    assert "2 samples, 20 probes: the last doubling changed 0.00%" in scoring.notes(0.1)[-1]


def test_probes_that_find_noise_are_said_to() -> None:
    settings = CriterionSettings(criterion="hutch-diag", moments=MomentSettings(settle=0.01))
    scoring = score_weights(classifier(), images(4), cross_entropy, settings)
    assert 20 <= scoring.probes <= 640 and (scoring.change or 0) > 0.2
    assert "not settled, the curvature is mostly noise" in scoring.notes(0.01)[-1]
    few = score_weights(classifier(), images(4), cross_entropy, CriterionSettings(criterion="hutch-pruning"))
    assert "the curvature comes from 10 probes" in few.notes()[-1]


def test_synflow_multiplies_the_weights_along_a_path() -> None:
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)).double()
    with torch.no_grad():
        model[0].weight.fill_(-2)
        model[1].weight.fill_(5)
    settings = CriterionSettings(criterion="synflow", rounds=1)
    batches = [(torch.full((1, 1), 7.0).double(), torch.zeros(1, 1).double())]
    found = scores(model, batches, half_squares, settings)
    assert [float(s) for s in found.values()] == [10, 10]


@pytest.mark.parametrize(("squashing", "by_hand"), [(nn.Sigmoid, [1.25, 3.75]), (nn.Tanh, [5, 5])])
def test_synflow_passes_squashing_functions_that_would_saturate(
    squashing: type[nn.Module], by_hand: list[float]
) -> None:
    model = nn.Sequential(nn.Linear(1, 1, bias=False), squashing(), nn.Linear(1, 1, bias=False)).double()
    with torch.no_grad():
        model[0].weight.fill_(1000)
        model[2].weight.fill_(-5)
    # with u = 1000 and m = 1000 held constant: R = 5 (1/2 + u / 4m), or 5 u / m
    settings = CriterionSettings(criterion="synflow", rounds=1)
    batches = [(torch.zeros(1, 1).double(), torch.zeros(1, 1).double())]
    found = scores(model, batches, half_squares, settings)
    assert [float(s) for s in found.values()] == pytest.approx(by_hand)


def test_synflow_keeps_the_stronger_weight_after_its_rounds() -> None:
    settings = CriterionSettings(criterion="synflow", sparsity=0.5)
    found = scores(two_weights(), two_samples(), half_squares, settings)
    assert weight_masks(found, 0.5)["weight"].tolist() == [[False, True]]
    assert float(found["weight"][0, 1]) == 3


def test_random_scores_follow_the_generator() -> None:
    first, same, other = (score_two("random", seed) for seed in (4, 4, 5))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    assert torch.equal(first, torch.rand(2, generator=torch.Generator().manual_seed(4)))


def test_a_weight_without_fisher_information_scores_zero_in_fbss_and_nan_in_reference_mode() -> None:
    blind = [(x * torch.tensor([1.0, 0.0]).double(), y) for x, y in two_samples()]
    plain = scores(two_weights(), blind, half_squares, CriterionSettings(criterion="fbss"))
    assert float(plain["weight"][0, 1]) == 0
    published = CriterionSettings(criterion="fbss", reference=True)
    assert scores(two_weights(), blind, half_squares, published)["weight"].isnan().tolist() == [[False, True]]


def test_several_rounds_keep_the_share_and_restore_the_weights() -> None:
    model = two_weights()
    settings = CriterionSettings(criterion="snip", rounds=3, sparsity=0.5)
    found = scores(model, two_samples(), half_squares, settings)
    assert model.weight.tolist() == [[2, -3]]
    assert weight_masks(found, 0.5)["weight"].tolist() == [[False, True]]


def test_scores_that_are_not_finite_name_the_layer() -> None:
    broken = [(x * float("inf"), y) for x, y in two_samples()]
    with pytest.raises(PruningError, match=r"^weight: .*not finite"):
        scores(two_weights(), broken, half_squares)


def test_an_empty_or_used_up_scoring_set_is_refused() -> None:
    with pytest.raises(PruningError, match="holds no mini-batch"):
        scores(two_weights(), [], half_squares)
    with pytest.raises(PruningError, match="only once"):
        scores(two_weights(), iter(two_samples()), half_squares)


def test_a_loss_that_is_no_scalar_is_refused() -> None:
    with pytest.raises(PruningError, match=r"loss: has the shape \(1, 1\)"):
        scores(two_weights(), two_samples(), lambda model, batch: model(batch[0]) - batch[1])


def test_excluding_everything_or_an_unknown_name_is_refused() -> None:
    with pytest.raises(PruningError, match="no prunable weights"):
        scores(two_weights(), two_samples(), half_squares, exclude=["weight"])
    with pytest.raises(PruningError, match="exclude head: names no parameter"):
        scores(two_weights(), two_samples(), half_squares, exclude=["head"])
