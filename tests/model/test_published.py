"""Our RA-Seg computes what the published one computes."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from radiogen.errors import ModelError
from radiogen.model.importing import from_published, load_published, published_settings


@pytest.fixture(scope="module")
def published(golden):
    with np.load(golden / "raseg_tiny.npz") as file:
        return {name: torch.from_numpy(file[name]) for name in file.files}


@pytest.fixture(scope="module")
def weights(published):
    return {
        name.split("/", 1)[1]: tensor
        for name, tensor in published.items()
        if name.startswith(("param/", "buffer/"))
    }


def test_probability_and_decoder2_equal_the_published_ones(published, weights):
    network = load_published(weights).eval()
    with torch.no_grad():
        levels = network.levels(published["input/image"], published["input/prior"])
    torch.testing.assert_close(
        torch.sigmoid(levels["logits"]), published["output/probability"], atol=1e-8, rtol=0
    )
    torch.testing.assert_close(levels["decoder2"], published["output/decoder2"], atol=1e-8, rtol=0)


def test_gradient_norms_equal_the_published_ones(published, weights):
    network = load_published(weights).eval()
    logits = network(published["input/image"], published["input/prior"])
    loss = functional.binary_cross_entropy_with_logits(logits, published["target"].double())
    assert abs(loss.item() - published["output/bce"].item()) < 1e-8
    loss.backward()
    gradients = {name: parameter.grad for name, parameter in network.named_parameters()}
    checked = 0
    for name in weights:
        if f"gradnorm/{name}" not in published:
            continue
        pieces = from_published({name: weights[name]})
        norm = torch.sqrt(sum(gradients[ours].square().sum() for ours in pieces)).item()
        expected = published[f"gradnorm/{name}"].item()
        assert norm == pytest.approx(expected, rel=1e-6, abs=1e-14), name
        checked += 1
    assert checked == sum(name.startswith("gradnorm/") for name in published)


def test_widths_are_read_from_the_shapes(weights):
    settings = published_settings(weights)
    assert settings.encoder_widths == (4, 6, 8, 10)
    assert settings.recurrent_widths == (10, 10, 10)
    assert settings.decoder_widths == (8, 6, 4)


def test_a_name_the_published_network_lacks_is_named():
    with pytest.raises(ModelError, match=r"weight encoder9\.conv\.weight"):
        from_published({"encoder9.conv.weight": torch.zeros(1)})


def test_a_missing_weight_is_named(weights):
    short = {name: tensor for name, tensor in weights.items() if not name.startswith("decoder3")}
    with pytest.raises(ModelError, match="decoder3"):
        load_published(short)
