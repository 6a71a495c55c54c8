"""Channels: what goes with each, which stay, and what the smaller network has to do with the dense one."""

import copy
import dataclasses

import pytest
import torch
from hypothesis import given, strategies
from pruning_networks import half_squares, images
from torch import Tensor, nn
from torch.nn import functional as F

from radiogen.errors import PruningError
from radiogen.pruning import channel_pruning
from radiogen.pruning.channel_choice import ChannelSettings, choose_channels
from radiogen.pruning.channel_groups import (
    ChannelGroup,
    Channels,
    ChannelSlice,
    check_groups,
    consumer_slices,
    producer_slices,
    zero_channels,
)
from radiogen.pruning.channel_pruning import (
    choose_in_rounds,
    prune_channels,
    remove_channels,
    score_channels,
    sum_over_channels,
)
from radiogen.pruning.costs import measure_cost
from radiogen.pruning.criteria import CRITERIA
from radiogen.pruning.settings import CriterionSettings


class PlainUNet(nn.Module):
    """A 2D U-Net with a skip, a sum, a transposed convolution, PReLU and three kinds of norm."""

    def __init__(self, top: int, bottom: int, up: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, top, 3, padding=1)
        self.first_norm = nn.BatchNorm2d(top)
        self.slope = nn.PReLU(top)
        self.down = nn.Conv2d(top, bottom, 3, stride=2, padding=1)
        self.down_norm = nn.InstanceNorm2d(bottom, affine=True)
        self.residual = nn.Conv2d(bottom, bottom, 1)
        self.each_norm = nn.GroupNorm(bottom, bottom)
        self.up = nn.ConvTranspose2d(bottom, up, 2, stride=2)
        self.last = nn.Conv2d(up + top, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        skip = self.slope(self.first_norm(self.first(x)))
        deep = self.down_norm(self.down(skip))
        deep = deep + self.each_norm(self.residual(torch.tanh(deep)))
        return self.last(torch.cat([torch.tanh(self.up(deep)), skip], dim=1))


def unet(top: int = 6, bottom: int = 10, up: int = 5) -> PlainUNet:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = PlainUNet(top, bottom, up).double().eval()
        with torch.no_grad():
            for tensor in [*model.parameters(), *model.buffers()]:
                if tensor.dim() == 1:
                    tensor.uniform_(0.5, 1.5)  # norms that a wrong index would show
        return model


def unet_channels(model: PlainUNet) -> Channels:
    top, bottom, up = (m.weight.shape[axis] for m, axis in ((model.first, 0), (model.down, 0), (model.up, 1)))

    def group(name: str, size: int, made: list[str], read: list[list[ChannelSlice]]) -> ChannelGroup:
        every = [part for layer in made for part in producer_slices(model, layer)]
        return ChannelGroup(name, size, tuple(every), tuple(part for parts in read for part in parts))

    return Channels(
        (
            group(
                "top",
                top,
                ["first", "first_norm", "slope"],
                [consumer_slices(model, "down"), consumer_slices(model, "last", up)],
            ),
            group(
                "bottom",
                bottom,
                ["down", "down_norm", "residual", "each_norm"],
                [consumer_slices(model, "residual"), consumer_slices(model, "up")],
            ),
            group("up", up, ["up"], [consumer_slices(model, "last")]),
        ),
        lambda widths: PlainUNet(widths["top"], widths["bottom"], widths["up"]),
    )


def some_kept(channels: Channels, seed: int) -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return {
        group.name: torch.randperm(group.size, generator=rng) < group.size // 2 for group in channels.groups
    }


def squares(model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
    return model(batch[0]).square().mean()


@pytest.mark.parametrize("part", ["producers", "consumers", "slices"])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_smaller_unet_is_the_dense_one_with_those_channels_at_zero(part, seed):
    model, x = unet(), images()[0][0]
    channels = unet_channels(model)
    kept = some_kept(channels, seed)
    small = remove_channels(model, channels, kept)
    expected = model(x)
    zero_channels(model, {group.name: getattr(group, part) for group in channels.groups}, kept)
    assert (model(x) - small(x)).abs().max() < 1e-12 < (expected - small(x)).abs().max()


def test_a_wrong_wire_would_be_seen():
    model, x = unet(top=10), images()[0][0]
    channels = unet_channels(model)
    kept, top = some_kept(channels, 0), channels.groups[0]
    for number, part in enumerate(top.slices):
        wrong = dataclasses.replace(part, offset=part.offset - 1 if part.offset else 0)
        parts = [*top.slices[:number], *([wrong] if wrong != part else []), *top.slices[number + 1 :]]
        crossed = Channels(
            (dataclasses.replace(top, producers=tuple(parts), consumers=()), *channels.groups[1:]),
            channels.resized,
        )
        if wrong == part:
            with pytest.raises(RuntimeError, match="size mismatch"):
                remove_channels(model, crossed, kept)
            continue
        small = remove_channels(model, crossed, kept)
        dense = copy.deepcopy(model)
        zero_channels(dense, {group.name: group.producers for group in channels.groups}, kept)
        assert (dense(x) - small(x)).abs().max() > 1e-3


def two_layers() -> nn.Sequential:
    """y = v (W x + b) + c with two hidden channels, without a squashing function."""
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1)).double()
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, 2.0], [0.5, -1.0]]))
        model[0].bias.copy_(torch.tensor([0.5, 0.0]))
        model[1].weight.copy_(torch.tensor([[2.0, -1.0]]))
        model[1].bias.zero_()
    return model


HIDDEN = ChannelGroup(
    "hidden", 2, (ChannelSlice("0.weight", 0), ChannelSlice("0.bias", 0)), (ChannelSlice("1.weight", 1),)
)


@pytest.mark.parametrize(
    ("criterion", "expected"),
    [
        # x = (1, 1): hidden (3.5, -0.5), y = 7.5, target 4.5, dL/dy = 3; by channel g(W) = 3 v, g(b) = 3 v,
        # g(v) = 3 h. Channel 0: w g = 6 + 12 + 3 + 21; channel 1: -1.5 + 3 + 0 + 1.5.
        ("snip", (42.0, 3.0)),
        ("fts", (42.0 + (36 + 144 + 9 + 441) / 2, 3.0 + (2.25 + 9 + 0 + 2.25) / 2)),
        ("fisher-pruning", ((36 + 144 + 9 + 441) / 2, (2.25 + 9 + 0 + 2.25) / 2)),
        ("magnitude", (1 + 2 + 0.5 + 2, 0.5 + 1 + 0 + 1)),
        ("grad-norm", (6 + 6 + 6 + 10.5, 3 + 3 + 3 + 1.5)),
    ],
)
def test_scores_are_summed_by_hand(criterion, expected):
    batch = (torch.ones(1, 2).double(), torch.tensor([[4.5]]).double())
    model = two_layers()
    found = score_channels(
        model, [batch], half_squares, [HIDDEN], CriterionSettings(criterion=criterion), torch.Generator()
    )
    torch.testing.assert_close(found.scores["hidden"], torch.tensor(expected, dtype=torch.float64))


def test_a_weight_from_a_channel_to_itself_counts_once():
    weight = torch.arange(12.0).reshape(6, 2)  # two gates of three rows, the first of them left alone
    group = ChannelGroup(
        "cell", 2, (ChannelSlice("w", 0, 1), ChannelSlice("w", 0, 4)), (ChannelSlice("w", 1),)
    )
    rows, columns = weight.sum(1), weight.sum(0)
    by_hand = [
        rows[1] + rows[4] + columns[0] - weight[1, 0] - weight[4, 0],
        rows[2] + rows[5] + columns[1] - weight[2, 1] - weight[5, 1],
    ]
    assert sum_over_channels({"w": weight}, group).tolist() == by_hand


@pytest.mark.parametrize("criterion", CRITERIA)
def test_every_criterion_scores_channels_and_leaves_the_network_as_it_was(criterion):
    model, batches = unet(), images()
    channels, before = unet_channels(model), copy.deepcopy(model.state_dict())
    settings = CriterionSettings(criterion=criterion, probes=2, rounds=1)
    found = score_channels(
        model, batches, squares, channels.groups, settings, torch.Generator().manual_seed(0)
    )
    assert {name: len(score) for name, score in found.scores.items()} == channels.widths
    assert all(score.unique().numel() == score.numel() for score in found.scores.values())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def twins(*sizes: int) -> Channels:
    """Groups of which the last two have one width."""
    groups = [ChannelGroup(f"g{i}", size, (), (), f"w{i}") for i, size in enumerate(sizes)]
    return Channels(
        (*groups, ChannelGroup("twin", sizes[-1], (), (), groups[-1].width)), lambda _: nn.Identity()
    )


@given(
    sizes=strategies.lists(strategies.integers(1, 40), min_size=2, max_size=4),
    share=strategies.floats(0.05, 1),
    step=strategies.integers(1, 9),
    scope=strategies.sampled_from(["layer", "global"]),
    seed=strategies.integers(0, 99),
)
def test_the_choice_stays_within_its_target_in_whole_steps(sizes, share, step, scope, seed):
    channels, rng = twins(*sizes), torch.Generator().manual_seed(seed)
    scores = {group.name: torch.rand(group.size, generator=rng) for group in channels.groups}
    total = sum(group.size for group in channels.groups)

    def share_of(widths):
        return sum(widths[group.width_name] for group in channels.groups) / total

    settings = ChannelSettings(share=share, step=step, scope=scope)
    if share_of({name: min(step, size) for name, size in channels.widths.items()}) > share:
        with pytest.raises(PruningError, match="cannot be reached"):
            choose_channels(channels, scores, share_of, settings)
        return
    kept = choose_channels(channels, scores, share_of, settings)
    counts = {name: int(mask.sum()) for name, mask in kept.items()}
    assert sum(counts.values()) / total <= share
    assert counts["twin"] == counts[f"g{len(sizes) - 1}"]
    for group in channels.groups:
        count, mask = counts[group.name], kept[group.name]
        assert count == group.size or count % step == 0
        if count < group.size:
            assert scores[group.name][mask].min() >= scores[group.name][~mask].max()


def test_global_moves_channels_to_the_layer_that_scores_higher_but_not_below_the_floor():
    channels = twins(32, 32, 16)
    scores = {"g0": torch.rand(32) + 2, "g1": torch.rand(32), "g2": torch.rand(16), "twin": torch.rand(16)}

    def widths(scope, floor):
        settings = ChannelSettings(share=0.5, step=4, scope=scope, floor=floor)
        kept = choose_channels(channels, scores, lambda w: (w["w0"] + w["w1"] + 2 * w["w2"]) / 96, settings)
        return [int(kept[name].sum()) for name in ("g0", "g1", "twin")]

    assert widths("layer", 0.5) == [16, 16, 8]
    assert widths("global", 1.0) == [16, 16, 8]
    assert widths("global", 0.5) == [32, 8, 4]
    first, second, third = widths("global", 0.0)
    assert first == 32 and second + 2 * third <= 16


def test_a_channel_that_left_in_an_early_round_is_zero_and_does_not_come_back():
    wide = nn.Sequential(nn.Linear(2, 4), nn.Linear(4, 1))
    group = ChannelGroup("g", 4, tuple(producer_slices(wide, "0")), tuple(consumer_slices(wide, "1")))
    seen = []

    def score(network):
        seen.append(network[0].weight.detach().abs().sum(1) > 0)
        return {"g": torch.tensor([4.0, 3.0, 2.0, 1.0] if len(seen) == 1 else [1.0, 2.0, 9.0, 9.0])}

    channels = Channels((group,), lambda _: wide)
    target = ChannelSettings(share=0.25, step=1)
    kept = choose_in_rounds(wide, channels, lambda widths: widths["g"] / 4, target, 2, score)
    assert [each.tolist() for each in seen] == [[True] * 4, [True, True, False, False]]
    assert kept["g"].tolist() == [False, True, False, False]
    assert (wide[0].weight != 0).all()  # the rounds worked on a copy


@given(
    sizes=strategies.lists(strategies.integers(4, 40), min_size=2, max_size=4),
    share=strategies.floats(0.3, 1),
    scope=strategies.sampled_from(["layer", "global"]),
    rounds=strategies.integers(1, 6),
    seed=strategies.integers(0, 99),
)
def test_rounds_keep_fewer_and_fewer_and_end_within_the_target(sizes, share, scope, rounds, seed):
    channels, rng = twins(*sizes), torch.Generator().manual_seed(seed)
    total = sum(group.size for group in channels.groups)
    asked = []

    def share_of(each):
        return sum(each[group.width_name] for group in channels.groups) / total

    def score(network):
        asked.append(network)
        return {group.name: torch.rand(group.size, generator=rng) for group in channels.groups}

    settings = ChannelSettings(share=share, step=1, scope=scope)
    kept = choose_in_rounds(nn.Identity(), channels, share_of, settings, rounds, score)
    assert len(asked) == rounds
    assert share_of(channels.widths_of(kept)) <= share
    once = choose_channels(channels, score(None), share_of, settings)
    if scope == "layer":
        assert channels.widths_of(once) == channels.widths_of(kept)


def test_rounds_decide_which_channels_stay_and_synflow_takes_its_hundred(monkeypatch):
    model, batches, asked = unet(8, 12, 8), images(), []

    def run(**criterion):
        asked.clear()
        settings = ChannelSettings(share=0.4, step=1)
        how = CriterionSettings(**criterion)
        return prune_channels(
            model, batches, squares, unet_channels(model), settings, how, torch.Generator().manual_seed(0)
        ).kept

    counted = channel_pruning.score_channels
    monkeypatch.setattr(channel_pruning, "score_channels", lambda *given: asked.append(1) or counted(*given))
    once = run(criterion="fts")
    assert len(asked) == 1
    in_five = run(criterion="fts", rounds=5)
    assert len(asked) == 5
    assert any(not torch.equal(once[name], in_five[name]) for name in once)
    assert {name: int(mask.sum()) for name, mask in once.items()} == {
        name: int(mask.sum()) for name, mask in in_five.items()
    }
    run(criterion="synflow")
    assert len(asked) == 100


@pytest.mark.parametrize(("target", "share"), [("keep", 0.6), ("flops", 0.4), ("memory", 0.8)])
def test_each_target_is_met_and_the_rows_add_up(target, share):
    model, batches = unet(12, 24, 8), images()
    settings = ChannelSettings(target=target, share=share, step=2)
    done = prune_channels(
        model, batches, squares, unet_channels(model), settings, CriterionSettings(), torch.Generator()
    )
    found = {
        "keep": sum(done.widths.values()) / 44,
        "flops": done.after.macs / done.before.macs,
        "memory": done.after.training_mb / done.before.training_mb,
    }
    assert share - 0.15 < found[target] <= share
    assert sum(row.macs_before for row in done.layers) == done.before.macs
    assert sum(row.macs_after for row in done.layers) == done.after.macs
    assert done.after.weights == sum(p.numel() for p in done.network.parameters())
    assert {row.name: row.width_after for row in done.layers}["down"] == done.widths["bottom"]


def test_per_flop_prefers_channels_that_cost_little():
    model, batches = unet(16, 16, 16), images()
    criterion = CriterionSettings(criterion="magnitude")
    kept = [
        prune_channels(
            model,
            batches,
            squares,
            unet_channels(model),
            ChannelSettings(share=0.5, step=1, scope="global", floor=0.0, per_flop=per_flop),
            criterion,
            torch.Generator(),
        )
        for per_flop in (False, True)
    ]
    assert kept[1].after.macs < kept[0].after.macs


def test_controls_keep_the_widths_and_change_channels_or_values():
    model, batches = unet(8, 12, 8), images()

    def run(control):
        return prune_channels(
            model,
            batches,
            squares,
            unet_channels(model),
            ChannelSettings(share=0.5, step=2, control=control),
            CriterionSettings(criterion="snip"),
            torch.Generator().manual_seed(0),
        )

    plain, shuffled, redrawn, narrow = (run(c) for c in ("none", "shuffle", "reinit", "uniform-width"))
    assert plain.widths == shuffled.widths == redrawn.widths == narrow.widths
    assert any(not torch.equal(plain.kept[name], shuffled.kept[name]) for name in plain.kept)
    assert any(not torch.equal(plain.kept[name], narrow.kept[name]) for name in plain.kept)
    assert all(torch.equal(plain.kept[name], redrawn.kept[name]) for name in plain.kept)
    assert not torch.equal(plain.network.down.weight, redrawn.network.down.weight)
    assert torch.isin(redrawn.network.down.weight, model.down.weight).all()
    assert narrow.scoring.samples == 0


def test_layers_that_couple_their_channels_and_wrong_descriptions_are_named():
    coupled = nn.Sequential(nn.GroupNorm(2, 4), nn.Conv2d(4, 4, 1, groups=2))
    with pytest.raises(PruningError, match=r"0: is a GroupNorm that couples"):
        producer_slices(coupled, "0")
    with pytest.raises(PruningError, match=r"1: is a Conv2d that couples"):
        consumer_slices(coupled, "1")
    with pytest.raises(PruningError, match=r"up\.weight: has no 10 channels of bottom from 3 on axis 0"):
        group = ChannelGroup("bottom", 10, (), (ChannelSlice("up.weight", 0, 3),))
        check_groups(unet(), [group])
    with pytest.raises(PruningError, match="reference: is for single weights"):
        prune_channels(
            unet(),
            images(),
            squares,
            unet_channels(unet()),
            ChannelSettings(),
            CriterionSettings(reference=True),
            torch.Generator(),
        )


class Steps(nn.Module):
    """Three tensors of 1000 numbers, one after the other."""

    def forward(self, x: Tensor) -> Tensor:
        x = torch.exp(x)  # its output is needed for the gradient
        x = x + 1
        return F.relu(x)


def test_the_memory_of_activations_is_counted_by_hand():
    x = torch.zeros(1, 1000)
    model = nn.Sequential(nn.Linear(1000, 1000, bias=False), Steps())
    cost = measure_cost(lambda: copy.deepcopy(model).to("meta"), [x])
    one = 4000 / 2**20  # MiB of a tensor
    # Inference: at each step what goes in and what comes out, beside the linear layer's output that
    # Sequential holds while Steps runs. Training: also the output of exp, until the gradient is taken.
    assert (cost.weights, cost.macs) == (10**6, 10**6)
    assert cost.inference_mb == pytest.approx(3 * one)
    assert cost.training_mb == pytest.approx(4 * one)
