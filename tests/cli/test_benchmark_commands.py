"""radiogen benchmark on a few images: what it prints, what it refuses."""

import json

import pytest
from training.tiny_run import TINY

from radiogen.provenance import record_path

FEW = (
    *("digits", "-o", "bench", "--limit", "4", "--epochs", "1", "--width", "2", "--samples", "1"),
    *("--seeds", "0", "--sparsities", "0.5", "--device", "cpu"),
)
PRUNING = ("benchmark", "pruning")
SEGMENTATION = ("benchmark", "segmentation-pruning")


def test_pruning_prints_a_line_for_everything_compared(radiogen):
    answer = radiogen(*PRUNING, *FEW, "--criteria", "magnitude,snip", "--controls", "none")
    assert answer.code == 0, answer.err
    lines = answer.out.splitlines()
    assert [line.split()[0] for line in lines] == ["criterion", "dense", "magnitude", "snip"]
    assert {"bench/table.csv", "bench/accuracy.png", "bench/runs/snip-0_5-0.json"} <= set(answer.touched)
    again = radiogen(*PRUNING, *FEW, "--criteria", "magnitude,snip", "--controls", "none", "--json")
    rows = json.loads(again.out)
    assert [row["criterion"] for row in rows] == ["dense", "magnitude", "snip"]
    assert not any(name.startswith("bench/runs") for name in again.touched)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("--criteria", "best"), "criterion best"),
        (("--sparsities", "1.0"), "sparsity 1"),
        (("--sparsities", "much"), "sparsities"),
        (("--controls", "swap"), "control swap"),
        (("--criteria", "snip"), "controls of fts"),
        (("--network", "vgg16"), "network vgg16"),
        (("--network", "vgg19"), "8 x 8"),
        (("--device", "cuda:9"), "--device cuda:9"),
        (("--device", "cpu,cpu"), "names a device twice"),
        (("--set", "training.epoch=3"), "training.epoch"),
    ],
)
def test_pruning_refuses_what_it_cannot_do(radiogen, words, named):
    assert radiogen(*PRUNING, *FEW, *words).refuses(named)


def test_a_protocol_is_part_of_the_record(radiogen, tmp_path):
    words = ("--criteria", "magnitude", "--controls", "none", "--protocol", "successor")
    answer = radiogen(*PRUNING, *FEW, *words)
    assert answer.code == 0, answer.err
    settings = json.loads(record_path(tmp_path / "bench").read_text())["options"]["settings"]
    assert (settings["warmup"], settings["fisher_scale"], settings["held_out"]) == ("bn", 1.0, 0.2)


def test_pruning_refuses_what_are_no_images(radiogen, tmp_path):
    assert radiogen(*PRUNING, "absent", "-o", "bench").refuses("absent", "not a folder of images")
    (tmp_path / "cifar").mkdir()
    (tmp_path / "cifar" / "data_batch_1.bin").write_bytes(b"\x00" * 3072)
    assert radiogen(*PRUNING, "cifar", "-o", "bench").refuses("data_batch_1.bin", "3072 bytes")


def test_segmentation_pruning_prints_dice_and_costs(radiogen, cases):
    assert radiogen("split", cases, "--test", "0.5", "--seed", "0").code == 0
    sets = [word for pair in (*TINY, "training.epochs=1") for word in ("--set", pair)]
    answer = radiogen(
        *(*SEGMENTATION, cases, "-o", "bench", "--preset", "small", "--seeds", "0", "--sparsities", "0.5"),
        *("--keep", "none", "--samples", "2", "--device", "cpu", *sets),
    )
    assert answer.code == 0, answer.err
    dice, costs = answer.out.split("\n\n")
    assert [line.split()[0] for line in dice.splitlines()] == ["structure", "dense", "weight"]
    assert [line.split()[0] for line in costs.splitlines()] == ["structure", "dense", "weight"]


def test_segmentation_pruning_needs_test_cases_and_real_shares(radiogen, cases):
    words = (*SEGMENTATION, cases, "-o", "bench", "--device", "cpu")
    assert radiogen(*words).refuses("no case of split 'test'")
    assert radiogen(*words, "--keep", "half").refuses("--keep half")
    assert radiogen(*words, "--keep", "1.5").refuses("--keep 1.5")
    assert radiogen(*words, "--sparsities", "0").refuses("sparsity 0")
