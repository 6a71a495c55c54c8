"""Made cases and a model trained on them once."""

import pytest
import torch
from engines.tiny_run import tiny_settings

from radiogen.engines.model_folder import load_model
from radiogen.engines.train import TrainOptions, train
from radiogen.phantoms.cases import tiny_cases

CPU = torch.device("cpu")


@pytest.fixture(scope="session")
def made_cases(tmp_path_factory):
    root = tmp_path_factory.mktemp("made") / "cases"
    tiny_cases(root, 4)
    return root


@pytest.fixture(scope="session")
def tiny_model(made_cases, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "model"
    train(made_cases, folder, tiny_settings(), TrainOptions(preset="small"), CPU)
    return load_model(folder, CPU)
