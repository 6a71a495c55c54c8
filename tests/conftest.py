"""Fixtures that many tests share."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

# The same examples on every machine, and no time limit that a busy machine would break.
settings.register_profile("radiogen", deadline=None, derandomize=True)
# `make nightly`: other examples every night, ten thousand a test marked fuzz; who takes a minute hangs.
settings.register_profile("nightly", deadline=60_000, max_examples=10_000, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "radiogen"))

SHARED = Path(__file__).parents[2] / "shared"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The real scans and tables; the test is skipped where they are absent."""
    folder = SHARED / "data"
    if not folder.is_dir():
        pytest.skip("real data is not at hand")
    return folder


@pytest.fixture(scope="session")
def golden() -> Path:
    """The golden values of the two papers; the test is skipped where they are absent."""
    folder = SHARED / "golden"
    if not folder.is_dir():
        pytest.skip("golden values are not at hand")
    return folder


@pytest.fixture(scope="session")
def made_cases(tmp_path_factory) -> Path:
    """A folder of four made cases."""
    from tiny_cases import tiny_cases

    root = tmp_path_factory.mktemp("made") / "cases"
    tiny_cases(root, 4)
    return root


@pytest.fixture(scope="session")
def tiny_model(made_cases, tmp_path_factory):
    """A model trained on the made cases in a second."""
    import torch
    from training.tiny_run import tiny_settings

    from radiogen.model.folder import load_model
    from radiogen.training.settings import TrainOptions
    from radiogen.training.train import train

    folder = tmp_path_factory.mktemp("trained") / "model"
    train(made_cases, folder, tiny_settings(), TrainOptions(preset="small"), torch.device("cpu"))
    return load_model(folder, torch.device("cpu"))
