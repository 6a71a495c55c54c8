"""Every engine gives the moments of the plain loop, or says that it cannot."""

import copy
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pruning_networks import classifier, cross_entropy, half_squares, images, mixed, volumes
from torch import Tensor, nn

from radiogen.errors import PruningError
from radiogen.networks.raseg import RASegSettings, build_raseg
from radiogen.pruning.criteria import score_weights
from radiogen.pruning.measuring import FIRST_LOOK, measure_moments
from radiogen.pruning.moments import Moments, gradient_moments
from radiogen.pruning.prunable import prunable
from radiogen.pruning.settings import Batch, CriterionSettings, Loss, MomentSettings
from radiogen.pruning.weight_masks import weight_masks
from radiogen.training.step import segmentation_loss


class Interacting(nn.Module):
    """Subtracts the mean over the samples, so that they are not independent."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x - x.mean(dim=0, keepdim=True) / 2)
        return out


class SlicesFirst(nn.Module):
    """Reads slices as rows with the samples innermost, which the hooks do not expect."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        slices = x.transpose(0, 1)  # (4, B, 8)
        return self.conv(slices.reshape(-1, 1, 8)).reshape(slices.shape).transpose(0, 1)


class ByHand(nn.Module):
    """Uses a weight without calling its module, and one module at two sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.conv = nn.Conv1d(1, 1, 3, padding="same")

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x) + self.conv(x[..., :4]).mean() + x @ self.linear.weight
        return out


def lines(shape: tuple[int, ...], count: int = 9) -> list[Batch]:
    rng = torch.Generator().manual_seed(1)
    return [
        tuple(torch.randn(1, *shape, generator=rng, dtype=torch.float64) for _ in range(2))
        for _ in range(count)
    ]


def segmentations() -> list[Batch]:
    rng = torch.Generator().manual_seed(2)
    shape = (1, 1, 32, 32, 48)
    draws = [torch.rand(3, *shape, generator=rng, dtype=torch.float64) for _ in range(6)]
    return [(a, (b > 0.5).double(), (c > 0.8).double()) for a, b, c in draws]


def raseg(both_ways: bool) -> nn.Module:
    settings = RASegSettings(
        encoder_widths=(4, 6, 8, 10),
        recurrent_widths=(8, 6),
        decoder_widths=(8, 6, 4),
        both_ways=both_ways,
        full_width=2 if both_ways else 0,
        gate_norm="instance" if both_ways else "batch",
    )
    return build_raseg(settings, seed=0).double()


CASES: dict[str, tuple[nn.Module, list[Batch], Loss]] = {
    "one by one": (classifier(), images(11, size=1), cross_entropy),
    "in pairs": (classifier(), images(7, size=2), cross_entropy),
    "of several sizes": (classifier(), [*images(4, 2), *images(3, 1), *images(2, 2)], cross_entropy),
    "unusual layers": (mixed(), volumes() * 3, half_squares),
    "RA-Seg": (raseg(False), segmentations(), segmentation_loss()),
    "RA-Seg both ways": (raseg(True), segmentations(), segmentation_loss()),
}


def assert_equal(found: Moments, truth: Moments) -> None:
    assert (found.samples, found.batches) == (truth.samples, truth.batches)
    for part in ("gradient", "fisher"):
        for name, value in getattr(truth, part).items():
            close = {"rtol": 1e-9, "atol": 1e-12 * float(value.abs().max())}
            torch.testing.assert_close(getattr(found, part)[name], value, **close)


@pytest.mark.parametrize("settings", [{}, {"memory_mb": 1}], ids=str)
@pytest.mark.parametrize("engine", ["auto", "hooks"])
@pytest.mark.parametrize("case", CASES)
def test_engines_give_the_moments_of_the_loop(case: str, engine: str, settings: dict[str, int]) -> None:
    model, batches, loss = CASES[case]
    chosen = MomentSettings.model_validate({"engine": engine} | settings)
    state = copy.deepcopy(model.state_dict())
    found = measure_moments(model, batches, loss, prunable(model), chosen)
    assert found.engine == "hooks"
    assert_equal(found, gradient_moments(model, batches, loss))
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())


@settings(max_examples=25)
@given(
    st.permutations(range(11)),
    st.integers(1, 40),
    st.sampled_from(["fts", "snip", "fisher-pruning", "fbss"]),
)
def test_scores_depend_neither_on_the_order_nor_on_what_is_taken_together(
    order: list[int], chunk: int, criterion: str
) -> None:
    batches = images(11, size=1)
    plain = CriterionSettings(criterion=criterion, moments=MomentSettings(engine="loop"))
    fast = CriterionSettings(criterion=criterion, moments=MomentSettings(engine="hooks"))
    truth = score_weights(classifier(), batches, cross_entropy, plain).scores
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("radiogen.pruning.measuring.LARGEST_CHUNK", chunk)
        mixed_up = [batches[number] for number in order]
        found = score_weights(classifier(), mixed_up, cross_entropy, fast).scores
    for name, score in truth.items():
        torch.testing.assert_close(found[name], score, rtol=1e-9, atol=1e-12 * float(score.abs().max()))


@pytest.mark.parametrize("both", ["float32", "float64"])
def test_weight_masks_are_those_of_the_loop(both: str) -> None:
    dtype = getattr(torch, both)
    model = classifier().to(dtype)
    batches = [(x.to(dtype), y) for x, y in images(12, size=1)]
    masks = []
    for engine in ("loop", "hooks"):
        settings = CriterionSettings(moments=MomentSettings(engine=engine))
        masks.append(weight_masks(score_weights(model, batches, cross_entropy, settings).scores, 0.8))
    same = [bool((masks[0][name] == masks[1][name]).double().mean() > 0.995) for name in masks[0]]
    assert all(same)
    if both == "float64":
        assert all(torch.equal(masks[0][name], masks[1][name]) for name in masks[0])


@pytest.mark.parametrize(
    ("model", "batches"),
    [(Interacting(), lines((1, 8))), (SlicesFirst(), lines((4, 8))), (ByHand(), lines((1, 4)))],
    ids=["samples interact", "samples innermost", "weights by hand"],
)
def test_hooks_that_do_not_fit_are_refused_and_auto_takes_the_loop(
    model: nn.Module, batches: list[Batch]
) -> None:
    model = model.double()
    with pytest.raises(PruningError, match=r"engine hooks: .*take engine auto or loop"):
        measure_moments(model, batches, half_squares, prunable(model), MomentSettings(engine="hooks"))
    found = measure_moments(model, batches, half_squares, prunable(model))
    assert found.engine == "loop"
    assert_equal(found, gradient_moments(model, batches, half_squares))


class FailsTogether(nn.Module):
    """Works for one sample at a time only."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x).view(1, 1, -1)
        return out


def test_failed_hooks_leave_the_network_as_it_was() -> None:
    model = FailsTogether().double()
    parameters = dict(model.named_parameters())
    weights = prunable(model)
    with pytest.raises(PruningError, match=r"engine hooks: .*fails"):
        measure_moments(model, lines((1, 8)), half_squares, weights, MomentSettings(engine="hooks"))
    assert all(p is parameters[name] and p.requires_grad for name, p in model.named_parameters())
    assert not model.conv._forward_hooks
    assert measure_moments(model, lines((1, 8)), half_squares, weights).engine == "loop"


def test_a_loss_that_changes_what_the_network_is_given_goes_through_the_loop() -> None:
    def shifted(network: nn.Module, batch: Batch) -> Tensor:
        return cross_entropy(network, (batch[0] + 1, batch[1]))

    model, batches = classifier(), images(6, size=1)
    with pytest.raises(PruningError, match="changes what the network is given"):
        measure_moments(model, batches, shifted, prunable(model), MomentSettings(engine="hooks"))
    found = measure_moments(model, batches, shifted, prunable(model))
    assert found.engine == "loop"
    assert_equal(found, gradient_moments(model, batches, shifted))


def test_settling_reads_no_more_than_it_needs() -> None:
    class Counted:
        read = 0

        def __iter__(self) -> Iterator[Batch]:
            for batch in images(2, size=1) * 200:
                self.read += 1
                yield batch

    batches = Counted()
    settings = CriterionSettings(sparsity=0.5, moments=MomentSettings(settle=0.01))
    scoring = score_weights(classifier(), batches, cross_entropy, settings)
    assert scoring.batches == 2 * FIRST_LOOK  # the same two images over and over: nothing can change
    assert scoring.change == 0
    assert batches.read == scoring.batches


def test_settling_goes_on_while_the_kept_set_changes() -> None:
    settings = CriterionSettings(sparsity=0.9, moments=MomentSettings(settle=1e-9))
    scoring = score_weights(classifier(), images(37, size=1), cross_entropy, settings)
    assert scoring.batches == 37
    assert scoring.change is not None
    assert scoring.change > 0


def test_weights_of_norms_go_through_the_loop() -> None:
    model, batches = classifier(), images(6, size=1)
    weights = dict(model.named_parameters())
    with pytest.raises(PruningError, match=r"engine hooks: .*is no weight of a convolution or linear layer"):
        measure_moments(model, batches, cross_entropy, weights, MomentSettings(engine="hooks"))
    found = measure_moments(model, batches, cross_entropy, weights)
    assert found.engine == "loop"
    assert_equal(found, gradient_moments(model, batches, cross_entropy, weights))


def test_the_former_name_of_the_hooks_is_read_and_a_removed_engine_says_what_to_take() -> None:
    assert MomentSettings.model_validate({"engine": "native"}).engine == "hooks"
    with pytest.raises(ValueError, match=r"engine func was removed.*take auto, hooks or loop"):
        MomentSettings.model_validate({"engine": "func"})


@pytest.mark.parametrize("wrong", [{"engine": "fast"}, {"jobs": 2}, {"settle": 1.0}, {"memory_mb": 0}])
def test_wrong_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="validation error"):
        MomentSettings.model_validate(wrong)
