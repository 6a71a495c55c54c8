"""Masks land where the lesion is: oblique, flipped, shifted and uneven grids, whatever the slabs."""

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from training.oracles import CopyOfPrior, SoftTissueInPrior, oracle

from radiogen.model import network_input
from radiogen.model.priors import BoxMm, box_region, box_round, box_voxels
from radiogen.segmentation import lesion_map
from radiogen.segmentation.volume import Prompt, segment_volume
from radiogen.volume import array_of, bounding_box, crop, same_grid


def euler(x, y, z):
    turn = sitk.Euler3DTransform()
    turn.SetRotation(x, y, z)
    return turn.GetMatrix()


GRIDS = {
    "upright": ((60, 52, 44), (4.0, 4.0, 5.0), euler(0, 0, 0)),
    "oblique": ((60, 52, 44), (4.0, 4.0, 5.0), euler(0.3, -0.2, 0.5)),
    "flipped": ((60, 52, 44), (4.0, 4.0, 5.0), (-1, 0, 0, 0, 1, 0, 0, 0, -1)),
    "uneven": ((71, 33, 47), (2.7, 5.1, 3.3), (0, 1, 0, 0, 0, -1, -1, 0, 0)),
    "thin": ((50, 61, 90), (4.0, 3.6, 1.1), euler(0.0, 0.4, 0.0)),
}


def chest(name):
    """A block of lung with a ball of soft tissue in it: CT, lungs, lesion."""
    size, spacing, direction = GRIDS[name]
    grid = sitk.Image(size, sitk.sitkUInt8)
    grid.SetSpacing(spacing)
    grid.SetDirection(direction)
    grid.SetOrigin((-35.0, 210.0, -900.0))
    middle = grid.TransformContinuousIndexToPhysicalPoint([0.55 * n for n in size])
    index = np.stack(np.meshgrid(*(np.arange(n) for n in size), indexing="ij"), axis=-1)
    mm = (index * np.array(spacing)) @ np.array(direction).reshape(3, 3).T + np.array(grid.GetOrigin())
    ball = (((mm - middle) ** 2).sum(axis=-1) < 18.0**2).transpose(2, 1, 0)
    inside = np.zeros(ball.shape, bool)
    inside[4:-4, 4:-4, 4:-4] = True
    volumes = [np.where(ball, 30, -850).astype(np.int16), inside.astype(np.uint8), ball.astype(np.uint8)]
    images = [sitk.GetImageFromArray(volume) for volume in volumes]
    for image in images:
        image.CopyInformation(grid)
    return images


def dice(a, b):
    a, b = array_of(a) != 0, array_of(b) != 0
    return 2 * (a & b).sum() / (a.sum() + b.sum())


@pytest.fixture(scope="module")
def copying():
    return oracle(CopyOfPrior())


@pytest.fixture(scope="module")
def knowing():
    return oracle(SoftTissueInPrior())


@pytest.mark.parametrize("name", GRIDS)
def test_a_mask_that_is_copied_comes_back_where_it_was(copying, name):
    ct, lungs, lesion = chest(name)
    found = segment_volume(copying, ct, lungs, Prompt("mask", mask=lesion))
    assert same_grid(found.lesion, ct)
    assert dice(found.lesion, lesion) > 0.88  # of voxels of 3 mm on a ball of 36 mm


@pytest.mark.parametrize("prior", ["box", "lungs", "auto"])
@pytest.mark.parametrize("name", GRIDS)
def test_a_ball_of_soft_tissue_is_found_where_it_is(knowing, name, prior):
    ct, lungs, lesion = chest(name)
    boxes = (box_round(lesion, 1),) if prior == "box" else ()
    found = segment_volume(knowing, ct, lungs, Prompt(prior, boxes))
    assert dice(found.lesion, lesion) > 0.9
    assert [score.label for score in found.scores] == [1]


def test_shifting_the_ct_shifts_the_mask(knowing):
    ct, lungs, _ = chest("oblique")
    before = segment_volume(knowing, ct, lungs, Prompt("auto")).lesion
    for volume in (ct, lungs):
        volume.SetOrigin(np.add(volume.GetOrigin(), (100.0, -40.0, 7.0)).tolist())
    after = segment_volume(knowing, ct, lungs, Prompt("auto")).lesion
    assert np.array_equal(array_of(before), array_of(after))
    assert after.GetOrigin() == pytest.approx(np.add(before.GetOrigin(), (100.0, -40.0, 7.0)))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_ct_stored_the_other_way_round_gives_the_same_mask_in_space(knowing, axis):
    """Voxels of 3 mm cut the volume from its other end, so the edge may differ by a part of a voxel."""
    ct, lungs, _ = chest("oblique")
    straight = segment_volume(knowing, ct, lungs, Prompt("lungs")).lesion
    turned = [sitk.Flip(volume, [axis == n for n in range(3)]) for volume in (ct, lungs)]
    found = segment_volume(knowing, *turned, Prompt("lungs")).lesion
    back = sitk.Resample(found, ct, sitk.Transform(), sitk.sitkNearestNeighbor)
    assert dice(back, straight) > 0.97


def test_slabs_do_not_change_a_voxel(knowing, monkeypatch):
    ct, lungs, _ = chest("thin")
    whole = segment_volume(knowing, ct, lungs, Prompt("lungs"), keep_probability=True)
    monkeypatch.setattr(lesion_map, "SLAB_VOXELS", 5_000)
    monkeypatch.setattr(network_input, "SLAB_VOXELS", 60_000)
    slabs = segment_volume(knowing, ct, lungs, Prompt("lungs"), keep_probability=True)
    assert np.array_equal(array_of(whole.probability), array_of(slabs.probability))
    assert np.array_equal(array_of(whole.lesion), array_of(slabs.lesion))


@pytest.mark.parametrize("name", GRIDS)
@settings(max_examples=20)
@given(corner=st.tuples(*[st.floats(0, 1)] * 3), size=st.floats(1, 80))
def test_the_region_of_a_box_holds_all_its_voxels_and_no_empty_edge(name, corner, size):
    grid = chest(name)[0]
    at = np.array(
        grid.TransformContinuousIndexToPhysicalPoint(
            [c * n for c, n in zip(corner, grid.GetSize(), strict=True)]
        )
    )
    box = BoxMm(tuple(at - size), tuple(at + size))
    everywhere = sitk.GetImageFromArray(box_voxels(box, grid).astype(np.uint8))
    region = box_region(box, grid)
    assert region == bounding_box(everywhere)
    if region:
        assert box_voxels(box, crop(grid, region)).sum() == array_of(everywhere).sum()
