"""Scores and weight masks against the published implementation."""

from pathlib import Path

import numpy as np
import pytest
import torch
from pruning_networks import Classifier, cross_entropy, scores

from radiogen.pruning.settings import Batch, CriterionSettings
from radiogen.pruning.weight_masks import weight_masks

FILES = ["pruning_tiny.npz", "pruning_tiny_batch4.npz"]
SETTINGS = {
    "fts": {"criterion": "fts"},
    "fts_unscaled": {"criterion": "fts", "fisher_scale": 1},
    "fisher_diag": {"criterion": "fisher-diag"},
    "fisher_pruning": {"criterion": "fisher-pruning"},
    "grad_norm": {"criterion": "grad-norm"},
    "snip": {"criterion": "snip"},
    "grasp": {"criterion": "grasp"},
    "magnitude": {"criterion": "magnitude"},
}


@pytest.fixture(params=FILES)
def reference(request: pytest.FixtureRequest, golden: Path) -> dict[str, np.ndarray]:
    return dict(np.load(golden / request.param))


def network_and_batches(reference: dict[str, np.ndarray]) -> tuple[Classifier, list[Batch]]:
    model = Classifier().double()
    state = {k.split("/")[1]: v for k, v in reference.items() if k.startswith(("param/", "buffer/"))}
    model.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in state.items()})
    size = int(reference["config/batch_size"])
    x, y = (torch.from_numpy(reference[f"data/{name}"]) for name in "xy")
    return model, list(zip(x.split(size), y.split(size), strict=True))


def assert_close(found: dict[str, torch.Tensor], reference: dict[str, np.ndarray], criterion: str) -> None:
    assert list(found) == ["conv1.weight", "conv2.weight", "conv3.weight"]
    for name, score in found.items():
        expected = reference[f"score/{criterion}/{name}"]
        scale = np.abs(expected).max()
        np.testing.assert_allclose(score.numpy(), expected, rtol=1e-10, atol=1e-14 * scale)


@pytest.mark.parametrize("criterion", SETTINGS)
def test_scores_and_masks_equal_the_published_ones(reference: dict[str, np.ndarray], criterion: str) -> None:
    model, batches = network_and_batches(reference)
    settings = CriterionSettings.model_validate(SETTINGS[criterion] | {"reference": True})
    found = scores(model, batches, cross_entropy, settings)
    assert_close(found, reference, criterion)
    for scope in ("global", "layer"):
        for sparsity in reference["config/sparsities"]:
            masks = weight_masks(found, float(sparsity), scope, reference=True)
            for name, mask in masks.items():
                expected = reference[f"mask/{criterion}/{scope}/{sparsity}/{name}"]
                assert np.array_equal(mask.numpy(), expected), (scope, sparsity, name)


@pytest.mark.parametrize("criterion", sorted(set(SETTINGS) - {"snip", "grasp"}))
def test_module_types_give_the_published_scores_when_the_output_layer_is_excluded(
    reference: dict[str, np.ndarray], criterion: str
) -> None:
    model, batches = network_and_batches(reference)
    settings = CriterionSettings.model_validate(SETTINGS[criterion])
    assert_close(scores(model, batches, cross_entropy, settings, exclude=["linear"]), reference, criterion)


@pytest.mark.parametrize(("criterion", "sign"), [("snip", 1), ("grasp", -1)])
def test_default_snip_is_the_published_one_unscaled_and_default_grasp_its_opposite(
    reference: dict[str, np.ndarray], criterion: str, sign: int
) -> None:
    model, batches = network_and_batches(reference)
    settings = CriterionSettings(criterion=criterion, temperature=1.0)
    found = scores(model, batches, cross_entropy, settings, exclude=["linear"])
    ours = np.concatenate([s.numpy().ravel() for s in found.values()])
    theirs = np.concatenate([reference[f"score/{criterion}/{name}"].ravel() for name in found])
    factor = (ours @ theirs) / (theirs @ theirs)
    assert np.sign(factor) == sign
    np.testing.assert_allclose(ours, factor * theirs, rtol=1e-9, atol=1e-13 * np.abs(ours).max())
