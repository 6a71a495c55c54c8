"""A training that is killed, again and again, ends as one that nobody touched."""

import json
import os
import subprocess
import sys
from pathlib import Path

import torch
from training.killed_training import EVERY_STEP, FOLDS

from radiogen.io.tensors import load_tensors
from radiogen.provenance import DRAFT
from radiogen.training.train import train

TESTS = Path(__file__).parents[1]
# Each epoch of the fold has two steps and a validation; a new process counts its checkpoints from one.
MOMENTS = ("saved 1", "writing 1", "writing 2", "saved 1", "writing 1", "saved 2")


def test_kills_at_any_moment_change_neither_rows_nor_weights(made_cases, tmp_path):
    program = [sys.executable, str(TESTS / "training" / "killed_training.py")]
    environment = {**os.environ, "PYTHONPATH": str(TESTS), "OMP_NUM_THREADS": "1"}
    again = tmp_path / "again"
    done = subprocess.run(
        [*program, str(made_cases), str(again), *MOMENTS],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    whole = tmp_path / "whole"
    train(made_cases, whole, EVERY_STEP, FOLDS, torch.device("cpu"))
    for name in ("metrics.json", "metrics.jsonl"):
        assert (again / name).read_text() == (whole / name).read_text()
    rows = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert [(row["kind"], row["epoch"]) for row in rows if row["kind"] == "epoch"] == [
        ("epoch", 0),
        ("epoch", 1),
        ("epoch", 2),
    ]
    assert not [path for path in again.iterdir() if path.name.startswith(DRAFT) or "checkpoint" in path.name]
    first, second = (load_tensors(folder / "model.safetensors") for folder in (whole, again))
    assert all(torch.equal(first[name], second[name]) for name in first)
