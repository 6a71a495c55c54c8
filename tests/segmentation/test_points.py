"""A click in a lesion: what it gives, wherever it falls, and what is refused."""

import numpy as np
import pytest
import SimpleITK as sitk
from model.test_where_masks_land import chest, dice
from training.oracles import SoftTissueInPrior, oracle

from radiogen.errors import ConfigError
from radiogen.model.priors import parse_point, point_prior, point_within
from radiogen.segmentation.volume import Prompt, segment_crop, segment_volume
from radiogen.volume import Box, array_of, crop, same_grid, volume_like


class SoftTissue(SoftTissueInPrior):
    """Says lesion where the lung window is bright, wherever the prior is; without a prior nothing."""

    def forward(self, image, prior):
        return 40 * ((image[:, :1] > 0.35) & (prior.amax() > 0.5)).float() - 20


@pytest.fixture(scope="module")
def model():
    return oracle(SoftTissue(), priors=("box", "points"))


def points_in(lesion, count, rng):
    inside = np.argwhere(array_of(lesion) > 0)[:, ::-1]
    chosen = inside[rng.integers(len(inside), size=count)]
    return [lesion.TransformIndexToPhysicalPoint([int(n) for n in index]) for index in chosen]


@pytest.mark.parametrize("name", ["upright", "oblique", "thin"])
def test_a_click_anywhere_in_a_ball_gives_the_ball(model, name):
    ct, lungs, lesion = chest(name)
    for point in [point_within(lesion, 1), *points_in(lesion, 4, np.random.default_rng(5))]:
        found = segment_volume(model, ct, lungs, Prompt("points", points=(point,)))
        assert dice(found.lesion, lesion) > 0.9
        assert [score.origin for score in found.scores] == ["point 1"]


def test_each_click_gives_its_own_lesion(model):
    ct, lungs, lesion = chest("upright")
    voxels = array_of(ct)
    voxels[30:36, 10:16, 12:20] = 40
    both = volume_like(voxels, ct)
    second = ct.TransformIndexToPhysicalPoint((16, 13, 33))
    found = segment_volume(model, both, lungs, Prompt("points", points=(point_within(lesion, 1), second)))
    labels = array_of(found.lesion)
    assert labels[33, 13, 16] == 2 and dice(found.lesion == 1, lesion) > 0.9


def test_the_point_of_an_outline_lies_deep_in_it():
    mask = np.zeros((3, 20, 20), np.uint8)
    mask[:, 2:18, 2:5] = 1  # an L: its centre of mass lies beside it
    mask[:, 14:18, 2:18] = 1
    image = sitk.GetImageFromArray(mask)
    x, y, z = image.TransformPhysicalPointToIndex(point_within(image, 1))
    assert mask[z, y, x] == 1 and mask[z, y - 1 : y + 2, x - 1 : x + 2].all()
    with pytest.raises(ConfigError, match="not in the mask"):
        point_within(image, 2)


@pytest.mark.parametrize(
    "index, reason",
    [((200, 0, 0), "outside the CT"), ((10, 10, 10), "in air"), ((1, 1, 1), "in bone or metal")],
)
def test_a_click_where_no_lesion_can_be_is_refused(model, index, reason):
    ct, lungs, lesion = chest("upright")
    voxels = array_of(ct)
    voxels[:3, :3, :3] = 900
    ct = volume_like(voxels, ct)
    point = ct.TransformIndexToPhysicalPoint(index)
    with pytest.raises(ConfigError, match=reason):
        segment_volume(model, ct, lungs, Prompt("points", points=(point,)))
    both = segment_volume(model, ct, lungs, Prompt("points", points=(point, point_within(lesion, 1))))
    assert any(reason in line and "left out" in line for line in both.decisions)
    assert dice(both.lesion, lesion) > 0.9


def test_points_are_three_finite_numbers():
    assert parse_point("1,-2.5,3e1") == (1.0, -2.5, 30.0)
    for text in ("1,2", "1,2,3,4", "a,b,c", "1,2,nan"):
        with pytest.raises(ConfigError, match="--point"):
            parse_point(text)


def test_the_prior_of_a_click_is_a_ball():
    prior = point_prior((9, 9, 9), (4, 4, 0))
    assert prior[4, 4, 0] == prior[4, 4, 2] == prior[4, 3, 1] == 1
    assert prior.sum() == 33 - 10  # of the 33 voxels of the ball the first voxel cuts off 9 + 1
    assert prior[4, 4, 3] == 0


def test_a_crop_is_segmented_on_its_own_grid(model):
    ct, lungs, lesion = chest("upright")
    around = Box((22, 17, 14), (22, 20, 18))
    parts = [crop(volume, around) for volume in (ct, lungs, lesion)]
    found = segment_crop(model, parts[0], parts[1], Prompt("points", points=(point_within(lesion, 1),)))
    assert same_grid(found.lesion, parts[0]) and dice(found.lesion, parts[2]) > 0.9
