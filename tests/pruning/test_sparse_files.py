"""Tensors on disk, those with many zeros in less space."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pruning_networks import scores
from safetensors.torch import load_file, save_file

from radiogen.errors import PruningError
from radiogen.io.tensors import HEADER, PLACES, load_tensors, read_about, save_tensors
from radiogen.networks.raseg import build_raseg
from radiogen.pruning.settings import CriterionSettings
from radiogen.pruning.weight_masks import apply_weight_masks, hold_weight_masks, weight_masks
from radiogen.training.loop import (
    TrainedWeights,
    load_checkpoint,
    read_checkpoint_header,
    save_checkpoint,
)
from radiogen.training.settings import load_preset

DTYPES = st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.int64])


@settings(max_examples=40)
@given(st.lists(st.integers(0, 40), max_size=3), st.integers(0, 100), DTYPES, st.integers(0, 99))
def test_tensors_come_back_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory, shape: list[int], percent: int, dtype: torch.dtype, seed: int
) -> None:
    rng = torch.Generator().manual_seed(seed)
    values = torch.randn(shape, generator=rng)
    sparse = (values * (torch.rand(shape, generator=rng) * 100 >= percent)).to(dtype)
    path = tmp_path_factory.mktemp("tensors") / "t.safetensors"
    save_tensors(path, {"a": sparse, "b": torch.zeros(2000)})
    found = load_tensors(path)
    assert found["a"].dtype == dtype and found["a"].shape == sparse.shape
    one_by_one = [t.reshape(-1, 1).view(torch.uint8) for t in (found["a"], sparse)]
    assert torch.equal(*one_by_one)
    assert torch.equal(found["b"], torch.zeros(2000))


def test_special_values_and_what_is_said_are_kept(tmp_path: Path) -> None:
    odd = torch.zeros(4000)
    odd[:4] = torch.tensor([float("nan"), float("inf"), -0.0, 1e-42])
    save_tensors(tmp_path / "t.safetensors", {"odd": odd}, {"epoch": 3})
    assert torch.equal(
        load_tensors(tmp_path / "t.safetensors")["odd"].view(torch.int32), odd.view(torch.int32)
    )
    assert read_about(tmp_path / "t.safetensors") == {"epoch": 3}
    assert (tmp_path / "t.safetensors").stat().st_size < 1000


def test_dense_tensors_are_a_plain_file_and_plain_files_are_read(tmp_path: Path) -> None:
    dense = {"w": torch.randn(40, 50)}
    save_tensors(tmp_path / "ours.safetensors", dense)
    assert torch.equal(load_file(tmp_path / "ours.safetensors")["w"], dense["w"])
    save_file(dense, tmp_path / "theirs.safetensors")
    assert torch.equal(load_tensors(tmp_path / "theirs.safetensors")["w"], dense["w"])


@pytest.mark.parametrize(
    ("shape", "values", "bits"),
    [
        ([64], torch.ones(3), torch.zeros(8, dtype=torch.uint8)),
        ([10**12], torch.ones(1), torch.ones(8, dtype=torch.uint8)),
        ([-8, -8], torch.ones(0), torch.zeros(8, dtype=torch.uint8)),
        ([64], torch.zeros(1, 1), torch.ones(8, dtype=torch.uint8)),
        ("all", torch.ones(1), torch.ones(8, dtype=torch.uint8)),
    ],
)
def test_a_file_whose_parts_contradict_each_other_is_refused(
    tmp_path: Path, shape: Any, values: torch.Tensor, bits: torch.Tensor
) -> None:
    path = tmp_path / "odd.safetensors"
    header = {"sparse": {"w": shape}, "about": {}}
    save_file({"w": values, "w" + PLACES: bits}, path, {HEADER: json.dumps(header)})
    with pytest.raises(PruningError, match="is damaged"):
        load_tensors(path)
    save_file({"w": values}, path, {HEADER: json.dumps(header)})
    with pytest.raises(PruningError, match="is damaged"):
        load_tensors(path)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(PruningError, match="is damaged"):
        load_tensors(path)


def test_a_checkpoint_at_sparsity_0_9_takes_at_most_0_14_of_the_dense_one(tmp_path: Path) -> None:
    settings = load_preset("small").network
    network = build_raseg(settings, seed=0)
    magnitude = CriterionSettings(criterion="magnitude")
    masks = weight_masks(scores(network, [], lambda *_: torch.zeros(()), magnitude), 0.9)
    sizes = []
    for kept in ({}, masks):
        apply_weight_masks(network, kept)
        optimizer = torch.optim.AdamW(network.parameters(), 1e-3)
        hold_weight_masks(network, kept, optimizer)
        for parameter in network.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
        save_tensors(tmp_path / "model.safetensors", network.state_dict())
        save_checkpoint(
            tmp_path / "checkpoint.safetensors", TrainedWeights(network, optimizer), {"epochs": []}
        )
        sizes.append([(tmp_path / f"{name}.safetensors").stat().st_size for name in ("model", "checkpoint")])
    ratios = [pruned / dense for dense, pruned in zip(*sizes, strict=True)]
    assert max(ratios) <= 0.14, ratios
    again = build_raseg(settings, seed=1)
    resumed = torch.optim.AdamW(again.parameters(), 1e-3)
    load_checkpoint(tmp_path / "checkpoint.safetensors", TrainedWeights(again, resumed))
    assert read_checkpoint_header(tmp_path / "checkpoint.safetensors") == {"epochs": []}
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), again.parameters(), strict=True))
    for first, second in zip(network.parameters(), again.parameters(), strict=True):
        state, found = optimizer.state[first], resumed.state[second]
        assert all(torch.equal(state[key], found[key]) for key in state)
