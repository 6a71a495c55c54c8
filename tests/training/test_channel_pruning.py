"""RA-Seg without some of its channels: exactly the dense one, and a network like any other afterwards."""

import json

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from training.tiny_run import tiny_settings

from radiogen.errors import ConfigError, OutputError, PruningError
from radiogen.features.extract import FeatureOptions, extract_features
from radiogen.model.folder import load_model, read_model_config
from radiogen.networks.raseg import RASeg, RASegSettings, build_raseg
from radiogen.pruning.channel_choice import ChannelSettings
from radiogen.pruning.channel_groups import Channels, zero_channels
from radiogen.pruning.channel_pruning import prune_channels, remove_channels
from radiogen.pruning.settings import CriterionSettings
from radiogen.segmentation.segment import SegmentOptions, segment
from radiogen.training.prune import PruneOptions, prune
from radiogen.training.pruned_folder import read_pruned
from radiogen.training.raseg_channels import raseg_channels
from radiogen.training.settings import TrainOptions, load_preset
from radiogen.training.step import segmentation_loss
from radiogen.training.train import train

CPU = torch.device("cpu")
ODD = RASegSettings(
    encoder_widths=(4, 6, 8, 10),
    recurrent_widths=(9, 7),
    decoder_widths=(8, 6, 4),
    both_ways=True,
    full_width=5,
    gate="learned",
    gate_norm="instance",
    joint=True,
    prior_head=True,
    deep_supervision=1,
)
NETWORKS = {
    "one way": RASegSettings(encoder_widths=(4, 6, 8, 10), recurrent_widths=(8, 6), decoder_widths=(8, 6, 4)),
    "odd widths": ODD,
    "paper": load_preset("paper").network,
    "modern": load_preset("modern").network,
    "small": load_preset("small").network,
}


def some_kept(channels: Channels) -> dict[str, torch.Tensor]:
    """About a third of the channels, at random; as many in groups of one width."""
    rng = torch.Generator().manual_seed(1)
    return {
        group.name: torch.randperm(group.size, generator=rng) < max(1, group.size // 3)
        for group in channels.groups
    }


def inputs(settings: RASegSettings) -> list[torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    shapes = [(1, settings.in_channels, 48, 32, 32), (1, 1, 48, 32, 32)]
    return [torch.rand(shape, generator=rng, dtype=torch.float64) for shape in shapes]


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_the_smaller_raseg_is_the_dense_one_with_those_channels_at_zero(name):
    settings = NETWORKS[name]
    network = build_raseg(settings, seed=0).double().eval()
    for norm in [m for m in network.modules() if isinstance(m, nn.BatchNorm3d)]:
        norm.running_mean.uniform_(-1, 1)
        norm.running_var.uniform_(0.5, 2)
    channels, given = raseg_channels(network), inputs(settings)
    kept = some_kept(channels)
    small = remove_channels(network, channels, kept)
    assert small.settings != settings and sum(p.numel() for p in small.parameters()) < 0.25 * sum(
        p.numel() for p in network.parameters()
    )
    found, dense = small(*given), network(*given)
    for parts in ("producers", "consumers"):  # first only the producers, then the consumers as well
        zero_channels(network, {group.name: getattr(group, parts) for group in channels.groups}, kept)
        assert (network(*given) - found).abs().max() < 1e-12 * dense.abs().max()
    assert (dense - found).abs().max() > 1e-3


def test_every_channel_of_raseg_can_leave_but_those_of_inputs_and_logits():
    network = RASeg(ODD)
    described = {part.tensor for group in raseg_channels(network).groups for part in group.slices}
    left_alone = {f"{name}.bias" for name in network.output_layers} | {
        name for name, p in network.named_parameters() if p.numel() == 1
    }
    assert {name for name, _ in network.named_parameters()} - described == left_alone


def test_a_smaller_raseg_pays_at_every_target():
    settings = load_preset("small").network
    network, loss = build_raseg(settings, 0), segmentation_loss()
    batch = tuple(torch.rand(1, channels, 32, 32, 32) for channels in (2, 1, 1))
    for target, share in (("keep", 0.5), ("flops", 0.8), ("memory", 0.9)):
        done = prune_channels(
            network,
            [batch],
            loss,
            raseg_channels(network),
            ChannelSettings(target=target, share=share),
            CriterionSettings(criterion="magnitude"),
            torch.Generator(),
        )
        assert all(width % 8 == 0 for width in done.widths.values())
        assert done.after.macs < 0.8 * done.before.macs
        assert done.after.training_mb < 0.95 * done.before.training_mb
        assert "of 1,232,402" in done.totals()[0]


def channel_options(**more) -> PruneOptions:
    channels = ChannelSettings(**{"share": 0.6, "step": 1, **more})
    return PruneOptions(preset="small", samples=2, channels=channels)


@pytest.fixture(scope="module")
def thin(made_cases, tmp_path_factory):
    """A pruned folder of the tiny RA-Seg, and the model trained from it."""
    root = tmp_path_factory.mktemp("thin")
    prune(made_cases, root / "pruned", tiny_settings(), channel_options(), CPU)
    options = TrainOptions(preset="small", pruned=root / "pruned")
    train(made_cases, root / "model", tiny_settings(), options, CPU)
    return root


def test_a_trained_network_without_channels_is_an_ordinary_smaller_model(thin):
    config = read_model_config(thin / "model")
    assert config.network == read_pruned(thin / "pruned").network
    assert config.network.encoder_widths < (3, 4, 5, 6) and config.sparsity == 0.0
    model = load_model(thin / "model", CPU)
    dense = sum(p.numel() for p in RASeg(tiny_settings().network).parameters())
    assert sum(p.numel() for p in model.network.parameters()) < 0.6 * dense
    assert "Channels were taken out before training; " in (thin / "model" / "MODEL_CARD.md").read_text()


def test_it_segments_and_gives_features(thin, made_cases, tmp_path):
    model = load_model(thin / "model", CPU)
    result = segment(made_cases, tmp_path / "seg", model, SegmentOptions(prior="lungs", picture=False))
    assert len(result.done) == 4 and not result.failures
    extract_features(made_cases, tmp_path / "features.csv", model, FeatureOptions())
    assert (tmp_path / "features.csv").is_file()


def test_training_starts_from_the_kept_values_of_the_dense_start(thin):
    pruned = read_pruned(thin / "pruned")
    start = pruned.start()
    dense = build_raseg(tiny_settings().network, 0)
    assert torch.isin(start.decoder3.conv.weight, dense.decoder3.conv.weight).all()
    assert pruned.weight_masks == {}
    assert load_file(thin / "pruned" / "start.safetensors").keys() == start.state_dict().keys()


def test_the_folder_says_what_was_chosen_and_how(thin, made_cases, tmp_path):
    record = json.loads((thin / "pruned" / "pruned.run.json").read_text())
    assert any(line.startswith("weights: ") for line in record["decisions"])
    rows = (thin / "pruned" / "layers.csv").read_text().splitlines()
    assert rows[0] == "name,width_before,width_after,weights_before,weights_after,macs_before,macs_after"
    assert len(rows) == 1 + 20
    prune(made_cases, tmp_path / "again", tiny_settings(), channel_options(), CPU)
    for name in ("channel_masks.safetensors", "start.safetensors", "config.json", "layers.csv"):
        assert (tmp_path / "again" / name).read_bytes() == (thin / "pruned" / name).read_bytes()


def test_weights_after_channels_leave_nothing_of_the_channels(made_cases, tmp_path):
    prune(made_cases, tmp_path / "p", tiny_settings(), channel_options(), CPU)
    weights = PruneOptions(preset="small", samples=1, criterion={"criterion": "magnitude", "sparsity": 0.3})
    prune(made_cases, tmp_path / "p", tiny_settings(), weights, CPU)
    assert not (tmp_path / "p" / "channel_masks.safetensors").exists()
    assert read_pruned(tmp_path / "p").network == tiny_settings().network


def test_what_does_not_fit_is_refused(thin, made_cases, tmp_path):
    with pytest.raises(PruningError, match=r"--flops 0\.01: cannot be reached"):
        prune(made_cases, tmp_path / "p", tiny_settings(), channel_options(target="flops", share=0.01), CPU)
    assert not (tmp_path / "p").exists()
    options = TrainOptions(preset="small", pruned=thin / "pruned")
    with pytest.raises(ConfigError, match="same --preset"):
        train(made_cases, tmp_path / "m", tiny_settings("network.full_width=3"), options, CPU)
    with pytest.raises(OutputError, match="holds a pruned network"):
        again = channel_options().model_copy(update={"existing": "fail"})
        prune(made_cases, thin / "pruned", tiny_settings(), again, CPU)
    (tmp_path / "half").mkdir()
    for name in ("config.json", "channel_masks.safetensors"):
        (tmp_path / "half" / name).write_bytes((thin / "pruned" / name).read_bytes())
    with pytest.raises(PruningError, match="is not a pruned folder"):
        read_pruned(tmp_path / "half")
