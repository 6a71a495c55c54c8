"""Weight masks on disk."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from radiogen.errors import PruningError
from radiogen.pruning.weight_masks import HEADER, SCHEMA, load_weight_masks, save_weight_masks

MASKS = {
    "z.weight": torch.tensor([[True, False, True], [False, False, True]]),
    "a.weight": torch.ones(4, 1, 3, 3, 3, dtype=torch.bool),
}


@settings(deadline=None, max_examples=30)
@given(st.lists(st.lists(st.integers(0, 5), max_size=4), min_size=1, max_size=3), st.integers(0, 99))
def test_masks_come_back_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory, shapes: list[list[int]], seed: int
) -> None:
    rng = torch.Generator().manual_seed(seed)
    masks = {f"w{i}": torch.rand(shape, generator=rng) > 0.7 for i, shape in enumerate(shapes)}
    path = tmp_path_factory.mktemp("masks") / "weight_masks.safetensors"
    save_weight_masks(path, masks, {"seed": seed})
    found, about = load_weight_masks(path)
    assert list(found) == list(masks)
    assert all(torch.equal(found[name], masks[name]) for name in masks)
    assert about == {"seed": seed}


def test_order_and_origin_are_kept_and_a_weight_takes_a_bit(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "weight_masks.safetensors"
    save_weight_masks(path, MASKS, {"criterion": "fts", "sparsity": 0.9})
    found, about = load_weight_masks(path)
    assert list(found) == ["z.weight", "a.weight"]
    assert about == {"criterion": "fts", "sparsity": 0.9}
    assert {name: t.numel() for name, t in load_file(path).items()} == {"z.weight": 1, "a.weight": 14}


def refused(path: Path) -> str:
    with pytest.raises(PruningError) as caught:
        load_weight_masks(path)
    text = str(caught.value)
    assert "\n" not in text
    assert str(path) in text
    return text


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    assert "cannot be read" in refused(tmp_path / "none.safetensors")


def test_every_way_of_cutting_a_file_short_is_refused(tmp_path: Path) -> None:
    whole = tmp_path / "whole.safetensors"
    save_weight_masks(whole, MASKS, {})
    content = whole.read_bytes()
    for length in (0, 4, 8, 40, len(content) // 2, len(content) - 1):
        cut = tmp_path / f"cut{length}.safetensors"
        cut.write_bytes(content[:length])
        assert "cannot be read" in refused(cut)


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    text = tmp_path / "text.safetensors"
    text.write_text("not a tensor in sight")
    assert "cannot be read" in refused(text)
    weights = tmp_path / "model.safetensors"
    save_file({"w": torch.ones(2)}, weights)
    assert "holds no weight masks" in refused(weights)


@pytest.mark.parametrize(
    ("metadata", "tensor"),
    [
        ({"shapes": {"w": [100]}}, torch.zeros(2, dtype=torch.uint8)),
        ({"shapes": {"w": [16]}}, torch.zeros(2)),
        ({"shapes": {"w": [-16]}}, torch.zeros(2, dtype=torch.uint8)),
        ({"shapes": {"v": [16]}}, torch.zeros(2, dtype=torch.uint8)),
        ({"shapes": "[["}, torch.zeros(2, dtype=torch.uint8)),
        ({}, torch.zeros(2, dtype=torch.uint8)),
    ],
)
def test_a_file_whose_parts_contradict_each_other_is_refused(
    tmp_path: Path, metadata: dict[str, Any], tensor: torch.Tensor
) -> None:
    path = tmp_path / "odd.safetensors"
    header = {"schema": SCHEMA, "about": {}} | metadata
    save_file({"w": tensor}, path, {HEADER: json.dumps(header)})
    refused(path)


def test_the_same_masks_give_the_same_bytes(tmp_path: Path) -> None:
    masks = {f"layer{i}": torch.arange(9).reshape(3, 3) % (i + 2) == 0 for i in range(12)}
    written = set()
    for number in range(8):
        path = tmp_path / f"{number}.safetensors"
        save_weight_masks(path, masks, {"criterion": "fts", "seed": 0, "sparsity": 0.5})
        written.add(path.read_bytes())
    assert len(written) == 1
