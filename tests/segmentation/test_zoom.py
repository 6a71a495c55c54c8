"""Boxes in voxels of a size that suits them: large ones whole, small ones in detail, back where they are."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from training.oracles import CopyOfPrior, oracle

from radiogen.model.network_input import Preprocessing
from radiogen.model.priors import BoxMm, box_voxels
from radiogen.segmentation.sliding import COARSEST_ZOOM, FINEST_ZOOM, zoom_for, zoomed
from radiogen.segmentation.volume import Prompt, segment_volume
from radiogen.training.step import patch_dice_ce
from radiogen.training.validation import validate
from radiogen.volume import array_of, volume_like

FILLS = (0.3, 0.75)  # of the preset


class Watching(CopyOfPrior):
    """Remembers how many windows it saw, and the share of each that the prior filled."""

    def __init__(self):
        super().__init__()
        self.shares = []

    def forward(self, image, prior):
        if image.device.type != "meta":
            self.shares.append(float(prior.mean()))
        return super().forward(image, prior)


@pytest.fixture
def chest():
    """A lung of 180 mm cubed in voxels of 3 mm, turned about z."""
    ct = sitk.Image((60, 60, 60), sitk.sitkInt16) - 850
    ct.SetSpacing((3.0, 3.0, 3.0))
    turned = np.deg2rad(20)
    ct.SetDirection([np.cos(turned), -np.sin(turned), 0, np.sin(turned), np.cos(turned), 0, 0, 0, 1])
    return ct, volume_like(np.ones((60, 60, 60), np.uint8), ct)


@pytest.mark.parametrize("size_mm", [12.0, 20.0, 40.0, 90.0, 130.0])
def test_a_box_comes_back_where_it_is_however_large(chest, size_mm):
    ct, lungs = chest
    middle = np.array(ct.TransformContinuousIndexToPhysicalPoint((29.5, 29.5, 29.5)))
    box = BoxMm(tuple(middle - size_mm / 2), tuple(middle + size_mm / 2))
    network = Watching()
    found = array_of(segment_volume(oracle(network), ct, lungs, Prompt("box", (box,))).lesion) > 0
    truth = box_voxels(box, ct)
    assert 2 * (found & truth).sum() / (found.sum() + truth.sum()) > 0.9
    least, most = FILLS
    if size_mm <= COARSEST_ZOOM * most * 96:  # the window is 32 voxels of 3 mm
        assert len(network.shares) == 1  # one look
        assert (min(least, size_mm / FINEST_ZOOM / 96) - 0.1) ** 3 < network.shares[0] < (most + 0.1) ** 3


def test_the_zoom_is_just_enough_and_never_beyond_its_ends():
    size = (48, 64, 64)
    assert zoom_for((slice(0, 15), slice(5, 40), slice(0, 48)), size, FILLS) == 1.0
    assert zoom_for((slice(0, 54), slice(0, 10), slice(0, 10)), size, FILLS) == 1.5
    assert zoom_for((slice(0, 300), slice(0, 10), slice(0, 10)), size, FILLS) == COARSEST_ZOOM
    assert zoom_for((slice(0, 4), slice(0, 10), slice(0, 10)), size, FILLS) == pytest.approx(10 / 64 / 0.3)
    assert zoom_for((slice(0, 2), slice(0, 2), slice(0, 2)), size, FILLS) == FINEST_ZOOM
    assert zoom_for((slice(0, 300), slice(0, 2), slice(0, 2)), size, None) == 1.0
    assert zoomed(size, 1.5) == (72, 96, 96) and zoomed(size, 0.4) == (19, 25, 25)


class Bright(CopyOfPrior):
    """Says lesion where the prior is 1 and it is brighter than half of lung and tissue."""

    def forward(self, image, prior):
        return torch.where(prior > 0.5, 20 * (image[:, :1] - 0.42), -20.0)


@pytest.mark.parametrize("radius", [4, 5, 7])
def test_a_small_lesion_is_seen_in_the_detail_of_the_scanner(radius):
    ct = sitk.Image((96, 96, 96), sitk.sitkInt16) - 850
    lungs = volume_like(np.ones((96, 96, 96), np.uint8), ct)
    z, y, x = np.ogrid[:96, :96, :96]
    ball = (z - 48) ** 2 + (y - 47) ** 2 + (x - 49) ** 2 <= radius**2  # mm; the network has 3
    ct = volume_like(np.where(ball, 30, -850).astype(np.int16), ct)
    low, high = (tuple(at + side * (radius + 0.5) for at in (49, 47, 48)) for side in (-1, 1))
    box = BoxMm(low, high)
    dice = {}
    for fills in (FILLS, None):
        model = oracle(Bright())
        seen = model.config.preprocessing.model_copy(update={"box_fills": fills})
        model = replace(model, config=model.config.model_copy(update={"preprocessing": seen}))
        found = array_of(segment_volume(model, ct, lungs, Prompt("box", (box,))).lesion) > 0
        dice[fills] = 2 * (found & ball).sum() / (found.sum() + ball.sum())
    assert dice[FILLS] > max(0.93, dice[None] + 0.03)


def test_validation_looks_at_a_box_as_segment_does():
    network = Watching()
    seen = Preprocessing(size=(32, 32, 32), spacing_mm=(3, 3, 3), layout="patches", box_fills=FILLS)
    small = (slice(20, 24), slice(20, 24), slice(20, 24))
    lesion = np.zeros((48, 48, 48), np.int16)
    lesion[small] = 1
    case = SimpleNamespace(shape=lesion.shape, lesion_boxes={1: small}, case_id="a")
    case.read = lambda name, _: {"hu": np.full(lesion.shape, -850), "lungs": lesion == 0, "lesion": lesion}[
        name
    ]
    rows = validate(network, [case], seen, ["box"], torch.device("cpu"))
    assert rows[0]["dice"] > 0.8
    assert network.shares[0] > (4 / 32) ** 3 * 8  # in voxels of less than half the size


def test_dice_patch_by_patch_is_that_of_each_patch_that_holds_a_lesion():
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 1, 4, 4, 4, generator=rng)
    target = (torch.rand(3, 1, 4, 4, 4, generator=rng) > 0.7).float()
    target[2] = 0
    probability = torch.sigmoid(logits)
    missed = [
        1 - 2 * float((probability[i] * target[i]).sum()) / float(probability[i].sum() + target[i].sum())
        for i in (0, 1)
    ]
    entropy = torch.nn.functional.binary_cross_entropy_with_logits(logits, target)
    assert float(patch_dice_ce(logits, target)) == pytest.approx(sum(missed) / 3 + float(entropy), rel=1e-4)
