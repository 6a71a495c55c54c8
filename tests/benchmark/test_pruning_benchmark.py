"""The classifier benchmark from end to end on a few digits, killed and gone on with."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from radiogen.benchmark import classifiers
from radiogen.benchmark.classifiers import ClassifierSettings
from radiogen.benchmark.plans import BenchmarkGrid
from radiogen.benchmark.pruning import benchmark_pruning
from radiogen.errors import OutputError, TrainingError
from radiogen.pruning.controls import overlap
from radiogen.pruning.weight_masks import kept_count, load_weight_masks

DIGITS = Path("digits")
SETTINGS = ClassifierSettings.model_validate(
    {"network": "resnet8", "width": 4, "samples": 2, "training": {"epochs": 1, "batch_size": 32}}
)
GRID = BenchmarkGrid(
    criteria=("snip", "fts"), sparsities=(0.5,), seeds=(0, 1), controls=("shuffle", "reinit")
)
WORDS = (
    *("digits", "-o", "bench", "--criteria", "snip,fts", "--sparsities", "0.5", "--seeds", "0,1"),
    *("--width", "4", "--samples", "2", "--limit", "6", "--epochs", "1", "--device", "cpu"),
    *("--set", "training.batch_size=32", "--set", "training.augment=true"),
)


@pytest.fixture(autouse=True)
def one_thread():
    """Sums in one order, as in the processes that are started with OMP_NUM_THREADS=1."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def run(out, grid=GRID, **more):
    return benchmark_pruning(DIGITS, out, SETTINGS, grid, limit=6, **more)


def results(out):
    """Every byte that does not tell the time of day."""
    return {
        path.relative_to(out): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file() and not path.name.endswith(".run.json")
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A benchmark that nothing disturbed."""
    out = tmp_path_factory.mktemp("whole") / "bench"
    torch.set_num_threads(1)
    return run(out)


def test_every_run_leaves_a_result_its_masks_and_its_record(whole):
    names = {path.name for path in (whole.folder / "runs").iterdir()}
    stems = [f"{name}-{seed}" for seed in (0, 1) for name in ("snip-0_5", "fts-0_5", "fts-shuffle-0_5")]
    for stem in stems:
        assert {f"{stem}.json", f"{stem}.safetensors", f"{stem}.run.json"} <= names
    assert {"dense-0.json", "dense-0.run.json"} <= names and "dense-0.safetensors" not in names
    assert len(whole.rows) == 1 + 2 + 2 and whole.failures == []
    assert (whole.folder / "accuracy.png").read_bytes().startswith(b"\x89PNG")


def test_the_masks_keep_what_was_asked_and_a_control_keeps_the_layers(whole):
    masks, shuffled, redrawn = (
        load_weight_masks(whole.folder / "runs" / f"fts{control}-0_5-0.safetensors")[0]
        for control in ("", "-shuffle", "-reinit")
    )
    weights = sum(mask.numel() for mask in masks.values())
    assert sum(int(mask.sum()) for mask in masks.values()) == kept_count(weights, 0.5)
    assert all(int(mask.sum()) == int(shuffled[name].sum()) for name, mask in masks.items())
    assert overlap(masks, shuffled).shared < 0.9 and overlap(masks, redrawn).shared == 1
    assert "linear.weight" not in masks


def test_a_killed_benchmark_goes_on_and_gives_the_same_bytes(whole, tmp_path, monkeypatch):
    original, calls = classifiers.train_classifier, []

    def killed_in_the_fourth(*given):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return original(*given)

    out = tmp_path / "bench"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(classifiers, "train_classifier", killed_in_the_fourth)
        run(out)
    done = {path: path.stat().st_mtime_ns for path in (out / "runs").glob("*.run.json")}
    assert len(done) == 3 and not (out / "table.csv").exists()
    (out / "runs" / ".writing-torn.json").write_text("{")
    run(out)
    assert results(out) == results(whole.folder)
    assert {path: path.stat().st_mtime_ns for path in done} == done


def test_a_result_that_was_changed_is_made_again(whole, tmp_path):
    out = tmp_path / "bench"
    run(out)
    (out / "runs" / "snip-0_5-1.json").write_text("{}")
    run(out)
    assert results(out) == results(whole.folder)


def test_another_grid_adds_to_what_is_there(tmp_path):
    out = tmp_path / "bench"
    first = GRID.model_copy(update={"seeds": (0,), "controls": ()})
    run(out, first)
    before = {path: path.stat().st_mtime_ns for path in (out / "runs").iterdir()}
    rows = run(out, first.model_copy(update={"criteria": ("snip", "fts", "magnitude")})).rows
    assert [row["criterion"] for row in rows] == ["dense", "snip", "fts", "magnitude"]
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_other_settings_or_another_folder_are_refused(whole, tmp_path):
    other = SETTINGS.model_copy(update={"samples": 3})
    with pytest.raises(OutputError, match="another settings"):
        benchmark_pruning(DIGITS, whole.folder, other, GRID, limit=6)
    with pytest.raises(OutputError, match="another images"):
        benchmark_pruning(DIGITS, whole.folder, SETTINGS, GRID, limit=7)
    with pytest.raises(OutputError, match="holds a benchmark"):
        run(whole.folder, existing="fail")
    (tmp_path / "letter.txt").write_text("Dear colleague")
    with pytest.raises(OutputError, match="holds something else"):
        run(tmp_path)


def test_one_bad_run_does_not_stop_the_others(tmp_path, monkeypatch):
    original = classifiers.train_classifier

    def fails_without_masks(network, images, training, masks, seed):
        if not masks and seed == 1:
            raise TrainingError("epoch 0", "the loss is not finite", "lower the learning_rate")
        return original(network, images, training, masks, seed)

    monkeypatch.setattr(classifiers, "train_classifier", fails_without_masks)
    made = run(tmp_path / "bench", GRID.model_copy(update={"controls": ()}))
    assert [name for name, _, _ in made.failures] == ["dense-1"]
    assert [row["seeds"] for row in made.rows] == [1, 2, 2]
    assert "dense-1,benchmark,epoch 0: the loss" in (tmp_path / "bench" / "failures.csv").read_text()


def start(folder, *words):
    code = "import sys, radiogen.cli.main as m; sys.argv[1:1] = ['benchmark', 'pruning']; m.run()"
    command = [sys.executable, "-c", code, *WORDS, *words]
    return subprocess.Popen(
        command, cwd=folder, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True
    )


def test_processes_share_the_runs_and_end_with_their_parent(whole, tmp_path):
    process = start(tmp_path, "--jobs", "2")
    runs = tmp_path / "bench" / "runs"
    deadline = time.monotonic() + 300
    while not list(runs.glob("*.run.json")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=120)[1]
    assert process.returncode == 130 and said.count("\n") == 1, said
    assert list(runs.glob("*.run.json"))
    run(tmp_path / "bench")
    assert results(tmp_path / "bench") == results(whole.folder)


@pytest.mark.parametrize("name", ["resnet18", "vgg19"])
def test_the_networks_of_the_papers_take_cifar(name, tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "cifar").mkdir()
    for file in [*(f"data_batch_{n}.bin" for n in range(1, 6)), "test_batch.bin"]:
        records = rng.integers(0, 256, size=(6, 3073), dtype=np.uint8)
        records[:, 0] = np.arange(6) % 3
        (tmp_path / "cifar" / file).write_bytes(records.tobytes())
    settings = SETTINGS.model_copy(update={"network": name, "width": 2, "samples": 1})
    grid = BenchmarkGrid(criteria=("synflow", "grasp"), sparsities=(0.5,), seeds=(0,), controls=())
    made = benchmark_pruning(tmp_path / "cifar", tmp_path / "bench", settings, grid)
    assert [row["criterion"] for row in made.rows] == ["dense", "synflow", "grasp"]
    assert all(0 <= row["accuracy_mean"] <= 100 for row in made.rows)
