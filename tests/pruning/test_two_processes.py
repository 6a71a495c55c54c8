"""Scoring and training in two processes of torch.distributed."""

from pathlib import Path

import pytest
import torch
from pruning_networks import classifier, cross_entropy, images, scores, short_last
from side_by_side import run_two
from training.tiny_run import TINY, tiny_settings

from radiogen.io.tensors import load_tensors
from radiogen.pruning.settings import CriterionSettings
from radiogen.training.prune import PruneOptions, prune
from radiogen.training.pruned_folder import compare_pruned

TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    run_two([str(TESTS / "pruning" / "two_processes.py"), str(folder)], folder)
    return folder


@pytest.mark.parametrize("criterion", ["fts", "grasp", "hts"])
def test_two_processes_find_the_scores_of_one(two: Path, criterion: str) -> None:
    settings = CriterionSettings(criterion=criterion)
    alone = scores(classifier(), images(23, size=1), cross_entropy, settings)
    first, second = (load_tensors(two / f"{criterion}{rank}.safetensors") for rank in range(2))
    for name, score in alone.items():
        assert torch.equal(first[name], second[name])
        torch.testing.assert_close(first[name], score, rtol=1e-9, atol=1e-12 * float(score.abs().max()))


def test_a_process_with_the_short_mini_batch_scales_by_the_full_one(two: Path) -> None:
    alone = scores(classifier(), short_last(), cross_entropy)
    for name, score in load_tensors(two / "short1.safetensors").items():
        torch.testing.assert_close(score, alone[name], rtol=1e-9, atol=1e-15)


def test_weight_masks_hold_under_ddp(two: Path) -> None:
    trained, other = (load_tensors(two / f"trained{rank}.safetensors") for rank in range(2))
    masks = load_tensors(two / "masks0.safetensors")
    for name, mask in masks.items():
        assert torch.equal(trained[name], other[name])
        assert not trained[name][~mask].any() and bool(trained[name][mask].any())
    assert any(not torch.equal(trained[name], value) for name, value in classifier().state_dict().items())


def test_prune_under_torchrun_writes_once_what_one_process_writes(made_cases: Path, tmp_path: Path) -> None:
    words = ["prune", str(made_cases), "--sparsity", "0.5", "--scope", "layer", "--samples", "12"]
    words += ["--warmup", "epoch", "--device", "cpu", "--preset", "small"]
    words += [word for pair in TINY for word in ("--set", pair)]
    program = ["-m", "radiogen.cli.main", *words, "-o"]
    first, second = run_two([*program, "two"], tmp_path)
    assert first.stdout.splitlines()[-1] == "two" and not second.stdout
    assert sorted(path.name for path in (tmp_path / "two").iterdir()) == [
        *("config.json", "layers.csv", "start.safetensors", "two.run.json", "weight_masks.safetensors")
    ]
    scoring = CriterionSettings(sparsity=0.5, scope="layer")
    options = PruneOptions(preset="small", samples=12, warmup={"kind": "epoch"}, criterion=scoring)
    prune(made_cases, tmp_path / "one", tiny_settings(), options, torch.device("cpu"))
    assert compare_pruned(tmp_path / "one", tmp_path / "two")[1].shared > 0.99
