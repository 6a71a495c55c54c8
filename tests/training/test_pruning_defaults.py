"""`prune` with its defaults gives a network that trains, at every sparsity and for every preset."""

import pytest
import torch
from training.tiny_run import TINY

from radiogen.errors import PruningError
from radiogen.model.folder import load_model
from radiogen.pruning.settings import CriterionSettings
from radiogen.pruning.weight_masks import load_weight_masks, sparsity_of
from radiogen.training.prune import PruneOptions, prune
from radiogen.training.settings import RunSettings, TrainOptions, load_preset
from radiogen.training.train import train

CPU = torch.device("cpu")
NARROW = (
    "network.encoder_widths=[6, 8, 10, 12]",
    "network.recurrent_widths=[12]",
    "network.decoder_widths=[10, 8, 6]",
)


def settings_of(preset: str) -> RunSettings:
    """A preset with its blocks and switches, narrow and on coarse voxels."""
    narrow = NARROW if preset != "small" else ()  # which is trained in its own widths
    full = ["network.full_width=4"] if preset == "modern" else []
    coarse = [pair for pair in TINY if "width" not in pair]
    brief = ["training.epochs=1", "training.patches_per_case=1"]
    return load_preset(preset, overrides=[*coarse, *narrow, *full, *brief])


@pytest.mark.parametrize("preset", ["paper", "modern", "small"])
@pytest.mark.parametrize("sparsity", [0.5, 0.9, 0.98])
def test_the_default_trains_at_every_sparsity(made_cases, tmp_path, preset, sparsity):
    settings = settings_of(preset)
    options = PruneOptions(preset=preset, samples=2, criterion=CriterionSettings(sparsity=sparsity))
    pruned = prune(made_cases, tmp_path / "pruned", settings, options, CPU)
    assert options.criterion.scope == "global" and pruned.sparsity == pytest.approx(sparsity, abs=1e-3)
    trained = train(
        made_cases,
        tmp_path / "model",
        settings,
        TrainOptions(preset=preset, pruned=tmp_path / "pruned"),
        CPU,
    )
    network = load_model(tmp_path / "model", CPU).network
    masks, _ = load_weight_masks(tmp_path / "pruned" / "weight_masks.safetensors")
    weights = dict(network.named_parameters())
    assert sparsity_of(masks) == pytest.approx(sparsity, abs=1e-3)
    assert not any(weights[name][~mask].any() for name, mask in masks.items())
    # What it says of the scan depends on the scan.
    assert all(torch.isfinite(torch.tensor(row["loss"])) for row in trained.metrics["epochs"])
    image = torch.rand(2, settings.network.in_channels, 32, 32, 32)
    first, second = network.eval()(image, torch.ones(2, 1, 32, 32, 32)).detach()
    assert not torch.allclose(first, second, atol=1e-7)


def test_a_network_without_a_path_is_refused_and_the_sparsity_it_names_works(made_cases, tmp_path):
    # No stage at full resolution: all that the logits see comes through decoder 1 and encoder 1.
    settings = settings_of("paper")

    def prune_at(sparsity: float) -> float:
        options = PruneOptions(
            preset="paper",
            samples=2,
            criterion=CriterionSettings(criterion="random", sparsity=sparsity),
        )
        return prune(made_cases, tmp_path / "pruned", settings, options, CPU).sparsity

    with pytest.raises(PruningError, match=r"leaves no path .*take sparsity [0-9.]+, at which") as refusal:
        prune_at(0.9999)
    assert not (tmp_path / "pruned").exists()
    named = float(str(refusal.value.hint).split()[2].rstrip(","))
    assert 0.5 < named < 0.9999
    assert prune_at(named) == pytest.approx(named, abs=1e-3)
