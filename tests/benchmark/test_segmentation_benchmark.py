"""The segmentation benchmark from end to end on made cases, and its table by hand."""

import shutil
from pathlib import Path

import pytest
import torch
from training.tiny_run import tiny_settings

from radiogen.benchmark import variants
from radiogen.benchmark.segmentation import benchmark_segmentation, segmentation_table, time_networks
from radiogen.benchmark.variants import Variant, VariantSettings, plan_variants
from radiogen.cohorts.split import draw_split
from radiogen.errors import CaseError, ConfigError
from radiogen.io.cases import find_cases, read_manifest, write_manifest
from radiogen.networks.raseg import build_raseg

WIDE = (  # wide enough that channels can leave in steps of 8
    "network.full_width=0",
    "network.joint=false",
    "network.encoder_widths=[16, 16, 16, 16]",
    "network.recurrent_widths=[32]",
    "network.decoder_widths=[16, 16, 16]",
    "training.epochs=1",
    "training.patches_per_case=1",
)
SETTINGS = VariantSettings(preset="small", run=tiny_settings(*WIDE), samples=2)
PLANS = plan_variants(["fts"], [0.5], [0.6], [0])


@pytest.fixture(scope="module")
def parted(made_cases, tmp_path_factory):
    """Four cases, of which two are for testing, one of them without an outline."""
    cases = tmp_path_factory.mktemp("parted") / "cases"
    shutil.copytree(made_cases, cases)
    draw_split(cases, 0.5, 0)
    last = [case for case in find_cases(cases) if case.split == "test"][-1]
    last.lesion_path.unlink()
    return cases


@pytest.fixture(scope="module")
def whole(parted, tmp_path_factory):
    """A benchmark that nothing disturbed."""
    torch.set_num_threads(1)
    return benchmark_segmentation(parted, tmp_path_factory.mktemp("whole") / "bench", SETTINGS, PLANS)


def test_each_variant_is_what_its_row_says(whole):
    dense, pruned, narrow = whole.rows
    assert [row["structure"] for row in whole.rows] == ["dense", "weight", "channel"]
    assert dense["difference"] is None and pruned["seeds"] == narrow["seeds"] == 1
    assert pruned["weights"] == dense["weights"] > narrow["weights"]
    assert 0.5 < pruned["not_zero"] / dense["not_zero"] < 0.55  # biases and the head stay
    assert (
        pruned["checkpoint_mb"] < dense["checkpoint_mb"] and narrow["checkpoint_mb"] < dense["checkpoint_mb"]
    )
    for row in (pruned, narrow):
        assert row["difference"] == pytest.approx(row["dice_mean"] - dense["dice_mean"], abs=1e-4)
        assert row["prompt"] == "oracle"


def test_zeros_cost_what_weights_cost_and_channels_do_not(whole):
    dense, pruned, narrow = whole.costs
    for name in ("macs", "inference_mb", "training_mb"):
        assert pruned[name] == dense[name] > narrow[name] > 0
    assert all(row["forward_ms"] > 0 and row["step_ms"] > row["forward_ms"] for row in whole.costs)


def test_a_killed_benchmark_goes_on_and_gives_the_same_table(whole, parted, tmp_path, monkeypatch):
    original, calls = variants.segment, []

    def killed_in_the_second(*given):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(*given)

    out = tmp_path / "bench"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(variants, "segment", killed_in_the_second)
        benchmark_segmentation(parted, out, SETTINGS, PLANS)
    trained = {path: path.stat().st_mtime_ns for path in out.glob("runs/*/model/model.safetensors")}
    assert len(trained) == 2
    benchmark_segmentation(parted, out, SETTINGS, PLANS)
    assert {path: path.stat().st_mtime_ns for path in trained} == trained
    assert (out / "table.csv").read_bytes() == (whole.folder / "table.csv").read_bytes()
    for name in ("dense-0", "weight-fts-0_5-0", "channel-fts-0_6-0"):
        path = f"runs/{name}.json"
        assert (out / path).read_bytes() == (whole.folder / path).read_bytes()


def test_costs_are_measured_once(whole, parted):
    before = (whole.folder / "costs.csv").read_bytes()
    assert benchmark_segmentation(parted, whole.folder, SETTINGS, PLANS).costs == whole.costs
    assert (whole.folder / "costs.csv").read_bytes() == before


def test_the_table_by_hand():
    common = {"dice_of_the_box": 0.43, "prompt": "oracle", "weights": 10, "not_zero": 4, "collapsed": []}
    dice = {("dense", 0): 0.70, ("dense", 1): 0.72, ("weight", 0): 0.68, ("weight", 1): 0.66}
    results = {
        Variant(
            structure, "fts" if structure == "weight" else "", 0.9 if structure == "weight" else 0.0, seed
        ): {
            **common,
            "dice": value,
            "checkpoint_bytes": 2_500_000,
        }
        for (structure, seed), value in dice.items()
    }
    dense, pruned = segmentation_table(results)
    assert (dense["dice_mean"], dense["dice_sd"]) == pytest.approx((0.71, 0.02 / 2**0.5))
    assert dense["low"] is None
    half = 12.706204736432095 * 0.02  # differences -0.02 and -0.06: deviation 0.02 sqrt 2, over sqrt 2
    assert (pruned["difference"], pruned["low"]) == pytest.approx((-0.04, -0.04 - half))
    assert (pruned["high"], pruned["checkpoint_mb"]) == (pytest.approx(-0.04 + half), 2.5)


def test_what_cannot_be_compared_is_refused_before_anything_runs(parted, made_cases, tmp_path):
    out = tmp_path / "bench"
    with pytest.raises(CaseError, match="no case of split 'test'"):
        benchmark_segmentation(made_cases, out, SETTINGS, PLANS)
    with pytest.raises(ConfigError, match="--prior mask: is not trained with"):
        benchmark_segmentation(parted, out, SETTINGS.model_copy(update={"prior": "mask"}), PLANS)
    shutil.copytree(parted, tmp_path / "cases")
    rows = read_manifest(tmp_path / "cases")
    bare = {case.case_id for case in find_cases(parted) if not case.has_lesion}
    for row in rows:
        row["split"] = "test" if row["case_id"] in bare else "train"
    write_manifest(tmp_path / "cases", rows)
    with pytest.raises(CaseError, match="has no test case with an outline"):
        benchmark_segmentation(tmp_path / "cases", out, SETTINGS, PLANS)
    assert not out.exists()
    with pytest.raises(ConfigError, match="--keep 1: is not a share"):
        plan_variants(["fts"], [0.5], [1.0], [0])


def test_timing_does_every_network_in_every_round():
    networks = {name: build_raseg(SETTINGS.run.network, 0) for name in ("a", "b")}
    seconds = time_networks(networks, (32, 32, 32), 1, torch.device("cpu"), repeats=2)
    assert all(len(one.forward) == len(one.step) == 2 for one in seconds.values())


def test_a_variant_has_a_name_of_its_own():
    plans = plan_variants(["fts", "random"], [0.5, 0.9], [0.5, 0.3], [0, 1])
    assert len({plan.name for plan in plans}) == len(plans) == 2 * (1 + 2 * 4)
    assert Path(plans[1].name).name == "weight-fts-0_5-0"
