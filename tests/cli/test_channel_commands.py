"""`radiogen prune --structure channel`: what it prints, what its options decide, what it refuses."""

import json

import pytest
import torch

from radiogen.pruning.weight_masks import load_weight_masks
from radiogen.training.pruned_folder import read_pruned

CHANNEL = ("--structure", "channel", "--samples", "2", "--device", "cpu")


@pytest.fixture
def thin(radiogen, cases, small, tmp_path):
    """Prune the channels of the cases' network; gives back the answer and the widths."""

    def call(out, *words):
        answer = radiogen("prune", cases, "-o", out, *small, *CHANNEL, "--step", "1", *words)
        assert answer.code == 0, answer.err
        return answer, read_pruned(tmp_path / out).network

    return call


def test_it_prints_each_layer_before_and_after_and_the_totals(thin, radiogen):
    answer, network = thin("pruned", "--keep", "0.6")
    lines = answer.out.splitlines()
    assert lines[0].split() == ["layer", "width", "weights", "MMACs"]
    assert len(lines) == 1 + 20 + 4 + 1 and lines[-1] == "pruned"
    assert f"3 > {network.encoder_widths[0]}" in next(line for line in lines if "encoders.0.conv" in line)
    assert lines[-5].startswith("weights: ") and lines[-2].startswith("activations in inference: ")
    shown = radiogen("prune", "show", "pruned")
    assert shown.out.splitlines() == lines[:21]
    about = json.loads(radiogen("prune", "show", "pruned", "--json").out)
    assert about["about"]["share"] == 0.6 and about["layers"][1]["width_after"] == network.encoder_widths[0]


def test_rounds_decide_which_channels_are_kept(thin, tmp_path):
    thin("once", "--keep", "0.7")
    thin("thrice", "--keep", "0.7", "--rounds", "3")
    files = [tmp_path / folder / "channel_masks.safetensors" for folder in ("once", "thrice")]
    kept, about = zip(*map(load_weight_masks, files), strict=True)
    assert [each["rounds"] for each in about] == [None, 3]
    assert any(not torch.equal(mask, kept[1][name]) for name, mask in kept[0].items())
    assert [int(m.sum()) for m in kept[0].values()] == [int(m.sum()) for m in kept[1].values()]


def test_training_segmenting_and_showing_take_it_like_any_other(thin, radiogen, cases, small):
    _, network = thin("pruned", "--flops", "0.6", "--control", "shuffle")
    words = ("--pruned", "pruned", *small, "--set", "training.epochs=1")
    assert radiogen("train", cases, "-o", "model", *words).code == 0
    assert "Channels were taken out" in radiogen("model", "show", "model").out
    config = json.loads(radiogen("model", "show", "model", "--json").out)
    assert tuple(config["network"]["encoder_widths"]) == network.encoder_widths
    assert config["control"] == "shuffle"
    assert (
        radiogen("segment", cases, "-o", "seg", "-m", "model", "--no-picture", "--prior", "lungs").code == 0
    )


def test_options_decide_which_channels_stay(thin, radiogen):
    thin("a", "--keep", "0.6")
    for words in (
        ("--criterion", "magnitude"),
        ("--control", "uniform-width"),
        ("--control", "shuffle"),
        ("--scope", "global"),
        ("--per-flop",),
    ):
        thin("b", "--keep", "0.6", *words)
        both = radiogen("prune", "compare", "a", "b")
        if words == ("--scope", "global"):
            assert both.code == 0
        else:
            kept = both.out.splitlines()[-1].split()
            assert kept[0] == "all" and int(kept[3]) < int(kept[1]), words


@pytest.mark.parametrize(
    "words",
    [
        ("--structure", "channel"),
        ("--structure", "channel", "--sparsity", "0.5"),
        ("--structure", "channel", "--keep", "0.5", "--flops", "0.5"),
        ("--keep", "0.5"),
        ("--keep", "0.5", "--sparsity", "0.5"),
        ("--structure", "channel", "--keep", "1.5"),
        ("--structure", "channel", "--keep", "0.5", "--allow-collapse"),
        ("--sparsity", "0.5", "--per-flop"),
        ("--sparsity", "0.5", "--step", "4"),
    ],
)
def test_targets_that_do_not_go_together_are_wrong_usage(radiogen, cases, words):
    answer = radiogen("prune", cases, "-o", "out", *words)
    assert answer.code == 2 and not answer.touched


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("--keep", "0.1"), ("--keep 0.1", "cannot be reached", "smaller step")),
        (("--keep", "0.5", "--reference"), ("reference", "single weights")),
        (("--keep", "0.5", "--control", "random-layerwise"), ("control",)),
        (("--keep", "0.5", "--scope", "layer", "--per-flop"), ("per_flop", "global")),
    ],
)
def test_what_channels_cannot_do_is_said_in_one_line(radiogen, cases, small, words, named):
    answer = radiogen("prune", cases, "-o", "out", *small, *CHANNEL, "--criterion", "magnitude", *words)
    assert answer.refuses(*named), answer.err
