"""Boxes larger than a window: seen whole in coarser voxels, laid back where they are."""

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from engines.oracles import CopyOfPrior, oracle

from radiogen.engines.losses import dice_of_patches_ce
from radiogen.engines.segmentation import Prompt, segment_volume
from radiogen.engines.zoom import BOX_SHARE, MOST_ZOOM, zoom_for, zoomed
from radiogen.preprocess.priors import BoxMm, box_voxels
from radiogen.volume import array_of, volume_like


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


@pytest.mark.parametrize("size_mm", [40.0, 90.0, 130.0])
def test_a_box_comes_back_where_it_is_however_large(chest, size_mm):
    ct, lungs = chest
    middle = np.array(ct.TransformContinuousIndexToPhysicalPoint((29.5, 29.5, 29.5)))
    box = BoxMm(tuple(middle - size_mm / 2), tuple(middle + size_mm / 2))
    network = Watching()
    found = array_of(segment_volume(oracle(network), ct, lungs, Prompt("box", (box,))).lesion) > 0
    truth = box_voxels(box, ct)
    assert 2 * (found & truth).sum() / (found.sum() + truth.sum()) > 0.9
    if size_mm <= MOST_ZOOM * BOX_SHARE * 96:  # the window is 32 voxels of 3 mm
        assert network.shares and max(network.shares) < (BOX_SHARE + 0.1) ** 2


def test_the_zoom_is_just_enough_and_no_more_than_the_most():
    size = (48, 64, 64)
    assert zoom_for((slice(0, 10), slice(5, 40), slice(0, 48)), size) == 1.0
    assert zoom_for((slice(0, 72), slice(0, 10), slice(0, 10)), size) == 2.0
    assert zoom_for((slice(0, 300), slice(0, 10), slice(0, 10)), size) == MOST_ZOOM
    assert zoomed(size, 1.5) == (72, 96, 96)


def test_dice_patch_by_patch_is_that_of_each_patch_that_holds_a_lesion():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 1, 4, 4, 4, generator=generator)
    target = (torch.rand(3, 1, 4, 4, 4, generator=generator) > 0.7).float()
    target[2] = 0
    probability = torch.sigmoid(logits)
    missed = [
        1 - 2 * float((probability[i] * target[i]).sum()) / float(probability[i].sum() + target[i].sum())
        for i in (0, 1)
    ]
    entropy = torch.nn.functional.binary_cross_entropy_with_logits(logits, target)
    assert float(dice_of_patches_ce(logits, target)) == pytest.approx(
        sum(missed) / 3 + float(entropy), rel=1e-4
    )
