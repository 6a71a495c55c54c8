"""Prune channels before training: score them, keep the highest, build the smaller network."""

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from radiogen.errors import PruningError
from radiogen.pruning.channel_choice import ChannelSettings, check_reachable
from radiogen.pruning.channel_groups import Channels, Widths, check_groups
from radiogen.pruning.channel_rounds import choose_in_rounds
from radiogen.pruning.channel_scores import score_channels, sum_over_channels
from radiogen.pruning.channel_surgery import kept_state
from radiogen.pruning.controls import redraw_weights, shuffle_within_layers
from radiogen.pruning.costs import Cost, measure_cost
from radiogen.pruning.macs import weight_uses
from radiogen.pruning.prunable import prunable
from radiogen.pruning.scoring import Scoring
from radiogen.pruning.settings import CriterionSettings
from radiogen.pruning.signatures import Batch, Loss, Scores, read_batches


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
    generator: torch.Generator,
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
        last[:] = [score_channels(network, batches, loss, channels.groups, criterion, generator)]
        found = last[0].scores
        return {name: found[name].double().cpu() / count for name, count in flops.items()} or found

    kept = choose_in_rounds(model, channels, share_of, target, rounds, score)
    if target.control == "shuffle":
        kept = shuffle_within_layers(kept, generator)
    widths = channels.widths_of(kept)
    source = redrawn(model, generator) if target.control == "reinit" else model
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


def redrawn(model: nn.Module, generator: torch.Generator) -> nn.Module:
    """A copy with the weights of each layer in a random order: the same start without what was scored."""
    drawn = copy.deepcopy(model)
    everywhere = {name: torch.ones_like(w, dtype=torch.bool) for name, w in prunable(drawn).items()}
    redraw_weights(drawn, everywhere, generator)
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
