"""The prune commands: every option decides something, and what was chosen can be shown and compared."""

import csv
import json

import pytest

from radiogen.pruning.controls import overlap
from radiogen.pruning.weight_masks import load_weight_masks
from radiogen.training.pruned_folder import read_pruned

SCORING = ("--samples", "6", "--scope", "layer", "--sparsity", "0.5", "--device", "cpu")


@pytest.fixture
def prune(radiogen, cases, small, tmp_path):
    """Prune the cases and give back the weight masks, what made them, and what was said."""

    def call(out, *words):
        answer = radiogen("prune", cases, "-o", out, *small, *SCORING, *words)
        assert answer.code == 0, answer.err
        return *load_weight_masks(tmp_path / out / "weight_masks.safetensors"), answer

    return call


def test_reference_takes_the_published_rule_by_names(prune):
    published, about, _ = prune("a", "--reference")
    plain, _, _ = prune("b")
    assert about["reference"] and {"encoders.0.prelu.weight", "attentions.0.alpha"} <= set(published)
    assert {name.rpartition(".")[0] for name in plain} & {"encoders.0.conv"} and "alpha" not in " ".join(
        plain
    )


def test_rounds_change_what_is_kept_and_keep_the_share(prune):
    once, _, _ = prune("a", "--criterion", "snip")
    thrice, about, _ = prune("b", "--criterion", "snip", "--rounds", "3")
    both = overlap(once, thrice)
    assert about["rounds"] == 3
    assert both.kept_first == both.kept_second > both.kept_both


@pytest.mark.parametrize("kind", ["bn", "epoch"])
def test_a_warm_up_is_part_of_the_start(prune, tmp_path, kind):
    prune("cold", "--set", "network.gate_norm=batch")
    _, _, answer = prune("warm", "--warmup", kind, "--set", "network.gate_norm=batch")
    starts = [read_pruned(tmp_path / out).start().state_dict() for out in ("cold", "warm")]
    changed = {name for name, value in starts[0].items() if not value.equal(starts[1][name])}
    assert f"warm-up {kind}" in answer.err
    assert any("running_mean" in name for name in changed)
    assert any(name == "encoders.0.prelu.weight" for name in changed) == (kind == "epoch")


@pytest.mark.parametrize("control", ["shuffle", "random-layerwise"])
def test_a_control_keeps_as_many_of_each_layer_and_others(prune, control):
    chosen, _, _ = prune("a")
    other, about, answer = prune("b", "--control", control)
    both = overlap(chosen, other)
    assert about["control"] == control and f"control {control}" in answer.err
    assert all(int(chosen[name].sum()) == int(other[name].sum()) for name in chosen)
    assert both.kept_both == pytest.approx(both.expected_both, rel=0.15)


def test_reinit_keeps_the_choice_and_draws_the_weights_anew(prune, radiogen, cases, small, tmp_path):
    chosen, _, _ = prune("a")
    same, _, _ = prune("b", "--control", "reinit")
    assert all(chosen[name].equal(same[name]) for name in chosen)
    starts = [dict(read_pruned(tmp_path / out).start().named_parameters()) for out in ("a", "b")]
    assert not any(starts[0][name].equal(starts[1][name]) for name in chosen)
    assert all(not starts[1][name][~mask].any() for name, mask in chosen.items())
    trained = radiogen("train", cases, "-o", "model", *small, "--pruned", "b", "--set", "training.epochs=3")
    assert trained.code == 0, trained.err


def test_auto_says_when_the_kept_set_has_settled(prune):
    _, about, answer = prune("a", "--samples", "auto", "--settle", "0.6")
    assert about["samples"] == 16 and "(settled; limit 60.00%)" in answer.err
    assert about["moments"]["settle"] == 0.6


@pytest.mark.parametrize(
    "words",
    [("--samples", "many"), ("--samples", "0"), ("--samples", "auto", "--settle", "0")],
)
def test_wrong_numbers_of_samples_are_wrong_usage(radiogen, cases, words):
    answer = radiogen("prune", cases, "-o", "out", "--sparsity", "0.5", *words)
    assert answer.code == 2 and not answer.touched


def test_show_prints_the_table_that_prune_printed(prune, radiogen, tmp_path):
    _, _, said = prune("pruned")
    shown = radiogen("prune", "show", "pruned")
    assert shown.code == 0 and shown.out.splitlines() == said.out.splitlines()[:-1]
    assert "criterion fts, scope layer, sparsity 0.5" in shown.err and not shown.touched
    table = json.loads(radiogen("prune", "show", "pruned", "--json").out)
    with (tmp_path / "pruned" / "layers.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in table["layers"]] == [row["name"] for row in rows]
    stem = table["layers"][0]
    assert stem["macs_dense"] == stem["weights"] * 32**3 and stem["macs"] == stem["kept"] * 32**3
    assert table["about"]["criterion"] == "fts"


def test_a_trained_model_can_be_shown_and_compared(prune, radiogen, cases, small):
    prune("pruned")
    trained = radiogen("train", cases, "-o", "model", *small, "--pruned", "pruned")
    assert trained.code == 0, trained.err
    shown = [radiogen("prune", "show", folder).out for folder in ("pruned", "model")]
    assert shown[0] == shown[1]
    same = json.loads(radiogen("prune", "compare", "model", "pruned", "--json").out)
    assert same["all"]["shared"] == 1 and len(same["layers"]) == len(shown[0].splitlines()) - 2


def test_compare_says_what_is_shared_and_what_chance_would_share(prune, radiogen):
    prune("a")
    prune("b", "--criterion", "random")
    answer = radiogen("prune", "compare", "a", "b/weight_masks.safetensors")
    assert answer.code == 0 and answer.out.splitlines()[-1].startswith("all ")
    both = json.loads(radiogen("prune", "compare", "a", "b", "--json").out)["all"]
    assert both["kept_first"] == both["kept_second"]
    assert both["kept_both"] == pytest.approx(both["expected_both"], rel=0.15)


def test_what_cannot_be_shown_or_compared_is_refused(prune, radiogen, cases, small, tmp_path):
    prune("pruned")
    prune("other", "--set", "network.decoder_widths=[6, 4, 3]")
    assert radiogen("prune", "compare", "pruned", "other").refuses("decoder4.conv.weight", "masks")
    assert radiogen("prune", "compare", "pruned", "absent").refuses("absent")
    assert radiogen("prune", "compare", "pruned", tmp_path).refuses("holds no weight masks")
    narrow = ("--structure", "channel", "--keep", "0.7", "--step", "1", "--samples", "6", "--device", "cpu")
    assert radiogen("prune", cases, "-o", "narrow", *small, *narrow).code == 0
    assert radiogen("prune", "compare", "pruned", "narrow").refuses(
        "narrow", "keeps channels, pruned weights"
    )
    assert radiogen("prune", "show", tmp_path).refuses("not a pruned folder")
    (tmp_path / "pruned" / "layers.csv").write_text("name,weights\nstem,many\n")
    assert radiogen("prune", "show", "pruned").refuses("layers.csv")


def test_the_default_says_which_layers_are_bypassed_and_marks_them(radiogen, cases, small):
    answer = radiogen("prune", cases, "-o", "pruned", *small, "--sparsity", "0.98", "--samples", "2")
    assert answer.code == 0, answer.err
    assert "recurrence" in answer.err and "bypassed: no path leads through" in answer.err
    marked = [line.split()[0] for line in answer.out.splitlines() if line.endswith("  bypassed")]
    assert any(name.startswith("recurrence") for name in marked)
    trained = radiogen("train", cases, "-o", "model", *small, "--pruned", "pruned")
    assert trained.code == 0, trained.err
    shown = [radiogen("prune", "show", folder).out for folder in ("pruned", "model")]
    assert shown[0] == shown[1] == "\n".join(answer.out.splitlines()[:-1]) + "\n"


def test_a_network_without_a_path_is_refused_with_a_sparsity_that_works_or_accepted(radiogen, cases, small):
    words = ("prune", cases, "-o", "out", *small, "--samples", "2", "--criterion", "random", "--sparsity")
    answer = radiogen(*words, "0.998")
    assert answer.refuses("sparsity 0.998", "leaves no path", "at which a path is left")
    accepted = radiogen(*words, "0.998", "--allow-collapse")
    assert accepted.code == 0 and "no path is left" in accepted.err
    named = answer.err.split("take sparsity ")[1].split(",")[0]
    assert radiogen(*words, named).code == 0
