"""Prune channels before training: score them, keep the highest, build the smaller network."""

import copy
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from radiogen.errors import PruningError
from radiogen.pruning.channel_choice import ChannelSettings, ShareOf, check_reachable, choose_channels
from radiogen.pruning.channel_groups import (
    ChannelGroup,
    Channels,
    Slice,
    Widths,
    check_groups,
    kept_state,
    zero_channels,
)
from radiogen.pruning.controls import redraw_weights, shuffle_within_layers
from radiogen.pruning.criteria import SIGNED, score_task
from radiogen.pruning.prunable import Cost, measure_cost, prunable, weight_uses
from radiogen.pruning.settings import Batch, CriterionSettings, Loss, Scores, ScoringTask, read_batches
from radiogen.pruning.taylor import Scoring


def score_channels(
    model: nn.Module,
    batches: Iterable[Batch],
    loss: Loss,
    groups: Sequence[ChannelGroup],
    settings: CriterionSettings,
    rng: torch.Generator,
) -> Scoring:
    """Score every channel; scores are by group name, one number a channel. The network stays as it was.

    The Taylor terms of snip, fts and hts are summed with their signs and the absolute value is taken of the
    sum: it estimates what the loss changes by when the whole channel leaves. The other criteria sum their
    scores; `random` draws one number a channel.

    Args:
        model: The network, at the weights that training will start from.
        batches: A list or loader of mini-batches.
        loss: Mean loss of a mini-batch.
        groups: The channels; biases and norms that leave with them count too.
        settings: The criterion.
        generator: Chance.
    """
    if settings.criterion == "random":
        return Scoring({g.name: torch.rand(g.size, generator=rng) for g in groups})
    described = {part.tensor for group in groups for part in group.slices}
    task = ScoringTask(
        model=model,
        batches=batches,
        loss=loss,
        weights={name: p for name, p in model.named_parameters() if name in described},
        settings=settings,
        rng=rng,
        pool=lambda scores: _pool(scores, groups, absolute=settings.criterion in SIGNED),
    )
    return score_task(task)


def _pool(scores: Scores, groups: Sequence[ChannelGroup], absolute: bool) -> Scores:
    sums = {group.name: sum_over_channels(scores, group) for group in groups}
    return {name: value.abs() for name, value in sums.items()} if absolute else sums


def sum_over_channels(values: Mapping[str, Tensor], group: ChannelGroup) -> Tensor:
    """The sum of what goes with each channel of a group, each weight once.

    A weight from a channel to itself, as in a recurrent layer, lies in two slices of it.

    Args:
        values: One number a weight by parameter name; tensors that are missing are left out.
        group: The channels.
    """
    total, before = torch.zeros(group.size), list[Slice]()
    for part in group.slices:
        value = values.get(part.tensor)
        if value is None:
            continue
        own = value.narrow(part.axis, part.offset, group.size)
        total = total.to(own) + own.movedim(part.axis, 0).reshape(group.size, -1).sum(1)
        for other in before:
            if other.tensor == part.tensor and other.axis != part.axis:
                both = own.narrow(other.axis, other.offset, group.size)
                total -= both.diagonal(dim1=part.axis, dim2=other.axis).reshape(-1, group.size).sum(0)
        before.append(part)
    return total


def choose_in_rounds(
    model: nn.Module,
    channels: Channels,
    share_of: ShareOf,
    target: ChannelSettings,
    rounds: int,
    score: Callable[[nn.Module], Scores],
) -> dict[str, Tensor]:
    """The channels that are kept after n rounds; round i keeps at most the share target^(i/n).

    A channel that left is zero in the rounds that follow. It does not come back, and no width grows again.

    Args:
        model: The network; it stays as it was.
        channels: Its channels.
        share_of: What a network of other widths takes of what the dense one takes.
        target: How small it becomes in the end.
        rounds: How often to score.
        score: Scores of a network by group name, one number a channel.

    Returns:
        Booleans over the channels of each group.
    """
    network = copy.deepcopy(model) if rounds > 1 else model
    made = {group.name: group.made for group in channels.groups}
    kept = {group.name: torch.ones(group.size, dtype=torch.bool) for group in channels.groups}
    for number in range(1, rounds + 1):
        zero_channels(network, made, kept)
        scores = {name: one.cpu() for name, one in score(network).items()}
        for name, mask in kept.items():
            scores[name] = scores[name].masked_fill(~mask, -math.inf)
        now = target.model_copy(update={"share": target.share ** (number / rounds)})
        kept = choose_channels(channels, scores, share_of, now, most=channels.widths_of(kept))
    return kept


@dataclass(frozen=True)
class ChannelRow:
    """One layer before and after its channels left."""

    name: str
    width_before: int
    width_after: int
    weights_before: int
    weights_after: int
    macs_before: int
    macs_after: int


@dataclass(frozen=True)
class ChannelPruned:
    """A network with fewer channels, at the kept values of the dense one."""

    network: nn.Module
    kept: dict[str, Tensor]  # booleans over the channels of each group
    widths: dict[str, int]
    layers: list[ChannelRow]
    before: Cost
    after: Cost
    scoring: Scoring

    def totals(self) -> list[str]:
        """What the smaller network takes of what the dense one takes, one line each."""
        lines = [
            ("weights", self.before.weights, self.after.weights, ""),
            ("MACs of one patch", self.before.macs, self.after.macs, ""),
            ("activations in training", self.before.training_mb, self.after.training_mb, " MiB"),
            ("activations in inference", self.before.inference_mb, self.after.inference_mb, " MiB"),
        ]
        return [
            f"{what}: {after:,.0f}{unit} of {before:,.0f}{unit} ({after / before:.3f})"
            for what, before, after, unit in lines
        ]


def prune_channels(
    model: nn.Module,
    batches: Iterable[Batch],
    loss: Loss,
    channels: Channels,
    target: ChannelSettings,
    criterion: CriterionSettings,
    rng: torch.Generator,
) -> ChannelPruned:
    """Make a smaller network of the channels that count most; the dense one stays as it was found.

    Args:
        model: The network, at the weights that training will start from.
        batches: A list or loader of mini-batches, the inputs of the network first, the target last.
        loss: Mean loss of a mini-batch.
        channels: Which channels there are, and how the network is made with other widths.
        target: How small it becomes.
        criterion: How weights are scored; its sparsity and scope are the target's.
        generator: Chance, on the CPU.

    Raises:
        PruningError: The target cannot be reached, scores are not finite, or `channels` does not fit.
    """
    check_groups(model, channels.groups)
    dtype = next(model.parameters()).dtype
    inputs = [tensor[:1] for tensor in next(iter(read_batches(batches)))[:-1]]

    def cost(widths: Widths) -> Cost:
        return measure_cost(lambda: channels.resized(widths).to(dtype), inputs)

    def share_of(widths: Widths) -> float:
        if target.target == "keep":
            total = sum(group.size for group in channels.groups)
            return sum(widths[group.width_name] for group in channels.groups) / total
        after = cost(widths)
        if target.target == "flops":
            return after.macs / before.macs
        return after.training_mb / before.training_mb

    before = cost(channels.widths)
    target, criterion, rounds = _agreed(target, criterion)
    check_reachable(channels, share_of, target)  # before the work of scoring
    flops = _flops(model, inputs, channels) if target.per_flop else {}
    last: list[Scoring] = []

    def score(network: nn.Module) -> Scores:
        last[:] = [score_channels(network, batches, loss, channels.groups, criterion, rng)]
        found = last[0].scores
        return {name: found[name].double().cpu() / count for name, count in flops.items()} or found

    kept = choose_in_rounds(model, channels, share_of, target, rounds, score)
    if target.control == "shuffle":
        kept = shuffle_within_layers(kept, rng)
    widths = channels.widths_of(kept)
    source = redrawn(model, rng) if target.control == "reinit" else model
    network = cut(source, channels, kept)
    return ChannelPruned(
        network, kept, widths, compare_layers(model, network, inputs), before, cost(widths), last[0]
    )


def cut(model: nn.Module, channels: Channels, kept: Mapping[str, Tensor]) -> nn.Module:
    """The smaller network with the kept channels and their values.

    Args:
        model: The dense network.
        channels: Its channels.
        kept: Booleans over the channels of each group; groups of one width keep equally many.
    """
    first = next(model.parameters())
    network = channels.resized(channels.widths_of(kept)).to(first.device, first.dtype)
    network.load_state_dict(kept_state(model, channels.groups, kept))
    return network.train(model.training)


def redrawn(model: nn.Module, rng: torch.Generator) -> nn.Module:
    """A copy with the weights of each layer in a random order: the same start without what was scored."""
    drawn = copy.deepcopy(model)
    everywhere = {name: torch.ones_like(w, dtype=torch.bool) for name, w in prunable(drawn).items()}
    redraw_weights(drawn, everywhere, rng)
    return drawn


def _agreed(
    target: ChannelSettings, criterion: CriterionSettings
) -> tuple[ChannelSettings, CriterionSettings, int]:
    """One scope and one share for both, and how many rounds; a plain narrow network needs no scores."""
    if criterion.reference:
        raise PruningError("reference", "is for single weights", "leave it out with structure channel")
    if target.control == "uniform-width":
        target = target.model_copy(update={"scope": "layer"})
        criterion = criterion.model_copy(update={"criterion": "random", "rounds": 1})
    same = {"scope": target.scope, "sparsity": 1 - target.share, "rounds": 1}
    return target, criterion.model_copy(update=same), criterion.round_count


def compare_layers(dense: nn.Module, small: nn.Module, inputs: Sequence[Tensor]) -> list[ChannelRow]:
    """Widths, weights and MACs of each convolution and linear layer before and after."""
    numbers = [_numbers(network, inputs) for network in (dense, small)]
    return [
        ChannelRow(name, *(value for pair in zip(row, numbers[1][name], strict=True) for value in pair))
        for name, row in numbers[0].items()
    ]


def _numbers(network: nn.Module, inputs: Sequence[Tensor]) -> dict[str, tuple[int, int, int]]:
    """Width, weights and MACs by layer; counted on the meta device."""
    on_meta = copy.deepcopy(network).to("meta").eval()
    given = [torch.empty_like(tensor, device="meta") for tensor in inputs]
    layers = dict(on_meta.named_modules())
    found = {}
    for weight_name, uses in weight_uses(on_meta, given).items():
        name = weight_name.rpartition(".")[0]
        width = getattr(layers[name], "out_channels", None) or layers[name].out_features
        weights = sum(p.numel() for p in layers[name].parameters())
        found[name] = (int(width), weights, layers[name].get_parameter("weight").numel() * uses)
    return found


def _flops(model: nn.Module, inputs: Sequence[Tensor], channels: Channels) -> dict[str, Tensor]:
    """The multiplications that leave with each channel, by group name."""
    on_meta = copy.deepcopy(model).to("meta").eval()
    given = [torch.empty_like(tensor, device="meta") for tensor in inputs]
    parameters = dict(model.named_parameters())
    uses = {
        name: torch.tensor(float(count), dtype=torch.float64).expand(parameters[name].shape)
        for name, count in weight_uses(on_meta, given).items()
    }
    return {group.name: sum_over_channels(uses, group) for group in channels.groups}
