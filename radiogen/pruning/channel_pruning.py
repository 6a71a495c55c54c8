"""Prune channels before training: score them, keep the highest, build the smaller network."""

import copy
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from radiogen.errors import PruningError
from radiogen.pruning.channel_choice import ChannelSettings, ShareOf, check_reachable, choose_channels
from radiogen.pruning.channel_groups import (
    ChannelGroup,
    Channels,
    ChannelSlice,
    Widths,
    check_groups,
    kept_state,
    zero_channels,
)
from radiogen.pruning.controls import redraw_weights, shuffle_within_layers
from radiogen.pruning.costs import NetworkCost, measure_cost, weight_uses
from radiogen.pruning.criteria import score_task
from radiogen.pruning.prunable import prunable
from radiogen.pruning.scoring import Scoring
from radiogen.pruning.settings import Batch, CriterionSettings, Loss, Scores, ScoringTask, read_batches


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
        rng: Generator on the CPU.
    """
    if settings.criterion == "random":
        return Scoring({g.name: torch.rand(g.size, generator=rng) for g in groups})
    # Biases and norms leave with a channel, so they count here, unlike in masks of single weights.
    described = {part.tensor for group in groups for part in group.slices}
    task = ScoringTask(
        model=model,
        batches=batches,
        loss=loss,
        weights={name: p for name, p in model.named_parameters() if name in described},
        settings=settings,
        rng=rng,
        pool=lambda scores: {group.name: sum_over_channels(scores, group) for group in groups},
    )
    return score_task(task)


def sum_over_channels(values: Mapping[str, Tensor], group: ChannelGroup) -> Tensor:
    """Sum what goes with each channel of a group, each weight once.

    A weight from a channel to itself, as in a recurrent layer, lies in two slices of it.

    Args:
        values: One number a weight by parameter name; tensors that are missing are left out.
        group: The channels.
    """
    total = torch.zeros(group.size)
    summed: list[ChannelSlice] = []
    for part in group.slices:
        value = values.get(part.tensor)
        if value is None:
            continue
        own = value.narrow(part.axis, part.offset, group.size)
        total = total.to(own) + own.movedim(part.axis, 0).reshape(group.size, -1).sum(1)
        for other in summed:
            if other.tensor == part.tensor and other.axis != part.axis:
                # The weight from each channel to itself was in the other sum already.
                both = own.narrow(other.axis, other.offset, group.size)
                total -= both.diagonal(dim1=part.axis, dim2=other.axis).reshape(-1, group.size).sum(0)
        summed.append(part)
    return total


def choose_in_rounds(
    model: nn.Module,
    channels: Channels,
    share_of: ShareOf,
    target: ChannelSettings,
    rounds: int,
    score: Callable[[nn.Module], Scores],
) -> dict[str, Tensor]:
    """Choose the channels that are kept after n rounds; round i keeps at most the share target^(i/n).

    A channel that left is zero in the rounds that follow. It does not come back, and no width grows again.

    Args:
        model: The network; it stays as it was.
        channels: Its channels.
        share_of: Cost of a network of other widths as a share of the dense one.
        target: How small the network becomes in the end.
        rounds: How often to score.
        score: Scores of a network by group name, one number a channel.

    Returns:
        Booleans over the channels of each group.
    """
    network = copy.deepcopy(model) if rounds > 1 else model
    producers = {group.name: group.producers for group in channels.groups}
    kept = {group.name: torch.ones(group.size, dtype=torch.bool) for group in channels.groups}
    for number in range(1, rounds + 1):
        zero_channels(network, producers, kept)
        scores = {name: value.cpu() for name, value in score(network).items()}
        # A channel that left scores below all others, so that it does not come back.
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
class ChannelPruningResult:
    """A network with fewer channels, at the kept values of the dense one."""

    network: nn.Module
    kept: dict[str, Tensor]  # booleans over the channels of each group
    widths: dict[str, int]
    layers: list[ChannelRow]
    before: NetworkCost
    after: NetworkCost
    scoring: Scoring

    def totals(self) -> list[str]:
        """Return the costs of the smaller network beside those of the dense one, one line each."""
        costs = [
            ("weights", self.before.weights, self.after.weights, ""),
            ("MACs of one patch", self.before.macs, self.after.macs, ""),
            ("activations in training", self.before.training_mb, self.after.training_mb, " MiB"),
            ("activations in inference", self.before.inference_mb, self.after.inference_mb, " MiB"),
        ]
        return [
            f"{name}: {after:,.0f}{unit} of {before:,.0f}{unit} ({after / before:.3f})"
            for name, before, after, unit in costs
        ]


def prune_channels(
    model: nn.Module,
    batches: Iterable[Batch],
    loss: Loss,
    channels: Channels,
    target: ChannelSettings,
    criterion: CriterionSettings,
    rng: torch.Generator,
) -> ChannelPruningResult:
    """Build a smaller network from the channels with the highest scores; the dense one stays as it was found.

    Args:
        model: The network, at the weights that training will start from.
        batches: A list or loader of mini-batches, the inputs of the network first, the target last.
        loss: Mean loss of a mini-batch.
        channels: Its channels, and how it is built with other widths.
        target: How small the network becomes.
        criterion: How weights are scored; its sparsity and scope are the target's.
        rng: Generator on the CPU.

    Raises:
        PruningError: The target cannot be reached, scores are not finite, or `channels` does not fit.
    """
    check_groups(model, channels.groups)
    target, criterion, rounds = _combined_settings(target, criterion)
    dtype = next(model.parameters()).dtype
    inputs = [tensor[:1] for tensor in next(iter(read_batches(batches)))[:-1]]

    def cost(widths: Widths) -> NetworkCost:
        return measure_cost(lambda: channels.resized(widths).to(dtype), inputs)

    before = cost(channels.widths)

    def share_of(widths: Widths) -> float:
        if target.target == "keep":
            total = sum(group.size for group in channels.groups)
            return sum(widths[group.width_name] for group in channels.groups) / total
        after = cost(widths)
        if target.target == "flops":
            return after.macs / before.macs
        return after.training_mb / before.training_mb

    check_reachable(channels, share_of, target)  # before the work of scoring
    macs = _macs_by_channel(model, inputs, channels) if target.per_flop else {}
    last: list[Scoring] = []

    def score(network: nn.Module) -> Scores:
        last[:] = [score_channels(network, batches, loss, channels.groups, criterion, rng)]
        scores = last[0].scores
        if not target.per_flop:
            return scores
        return {name: score.double().cpu() / macs[name] for name, score in scores.items()}

    kept = choose_in_rounds(model, channels, share_of, target, rounds, score)
    if target.control == "shuffle":
        kept = shuffle_within_layers(kept, rng)
    # `reinit` keeps the choice and replaces the values; `kept` was scored on the values of `model`.
    start = _redrawn_copy(model, rng) if target.control == "reinit" else model
    network = remove_channels(start, channels, kept)
    widths = channels.widths_of(kept)
    layers = compare_layers(model, network, inputs)
    return ChannelPruningResult(network, kept, widths, layers, before, cost(widths), last[0])


def remove_channels(model: nn.Module, channels: Channels, kept: Mapping[str, Tensor]) -> nn.Module:
    """Build the smaller network with the kept channels and their values.

    Args:
        model: The dense network.
        channels: Its channels.
        kept: Booleans over the channels of each group; groups of one width keep equally many.
    """
    first = next(model.parameters())
    network = channels.resized(channels.widths_of(kept)).to(first.device, first.dtype)
    network.load_state_dict(kept_state(model, channels.groups, kept))
    return network.train(model.training)


def _redrawn_copy(model: nn.Module, rng: torch.Generator) -> nn.Module:
    """Return a copy with the weights of each layer in a random order: without the values that were scored."""
    drawn = copy.deepcopy(model)
    everywhere = {name: torch.ones_like(w, dtype=torch.bool) for name, w in prunable(drawn).items()}
    redraw_weights(drawn, everywhere, rng)
    return drawn


def _combined_settings(
    target: ChannelSettings, criterion: CriterionSettings
) -> tuple[ChannelSettings, CriterionSettings, int]:
    """Return both with one scope and one share, and the number of rounds; uniform-width needs no scores."""
    if criterion.reference:
        raise PruningError("reference", "is for single weights", "leave it out with structure channel")
    if target.control == "uniform-width":
        target = target.model_copy(update={"scope": "layer"})
        criterion = criterion.model_copy(update={"criterion": "random", "rounds": 1})
    # Rounds of channels are this file's own (`choose_in_rounds`); each of them scores once.
    same = {"scope": target.scope, "sparsity": 1 - target.share, "rounds": 1}
    return target, criterion.model_copy(update=same), criterion.round_count


def compare_layers(dense: nn.Module, small: nn.Module, inputs: Sequence[Tensor]) -> list[ChannelRow]:
    """Return widths, weights and MACs of each convolution and linear layer before and after."""
    before = _layer_sizes(dense, inputs)
    after = _layer_sizes(small, inputs)
    return [
        ChannelRow(name, width, after[name][0], weights, after[name][1], macs, after[name][2])
        for name, (width, weights, macs) in before.items()
    ]


def _layer_sizes(network: nn.Module, inputs: Sequence[Tensor]) -> dict[str, tuple[int, int, int]]:
    """Return width, weights and MACs by layer."""
    layers = dict(network.named_modules())
    sizes = {}
    for weight_name, uses in _uses_on_meta(network, inputs).items():
        name = weight_name.rpartition(".")[0]
        layer = layers[name]
        width = layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels
        weights = sum(p.numel() for p in layer.parameters())
        sizes[name] = (cast(int, width), weights, layer.get_parameter("weight").numel() * uses)
    return sizes


def _macs_by_channel(model: nn.Module, inputs: Sequence[Tensor], channels: Channels) -> dict[str, Tensor]:
    """Return the multiplications that leave with each channel, by group name."""
    parameters = dict(model.named_parameters())
    uses = {
        name: torch.tensor(float(count), dtype=torch.float64).expand(parameters[name].shape)
        for name, count in _uses_on_meta(model, inputs).items()
    }
    return {group.name: sum_over_channels(uses, group) for group in channels.groups}


def _uses_on_meta(network: nn.Module, inputs: Sequence[Tensor]) -> dict[str, int]:
    on_meta = copy.deepcopy(network).to("meta").eval()
    return weight_uses(on_meta, [torch.empty_like(tensor, device="meta") for tensor in inputs])
