"""Synthetic lesions in a patch of CT keep the laws of the patch, and look like what they are called."""

import numpy as np
import pytest
from scipy import ndimage

from radiogen.training.synthetic_lesions import add_synthetic_lesion
from radiogen.training.synthetic_shapes import draw_noise, measure_noise

SPACING_MM = (1.5, 1.5, 2.0)
SHAPE = (48, 64, 64)
RIB = (slice(None), slice(30, 36), slice(50, 53))
BRONCHUS = (slice(None), slice(10, 16), slice(52, 58))
VESSEL = (slice(None), slice(20, 24), slice(20, 24))


@pytest.fixture(scope="module")
def patch():
    """Lung with upright vessels, muscle to one side, a rib and a bronchus in it; noise of 20 HU."""
    hu = np.full(SHAPE, -860, dtype=np.float32)
    hu[VESSEL] = 40
    hu[:, :, 44:] = 50
    hu += np.random.default_rng(5).normal(0, 20, SHAPE).astype(np.float32)
    hu[RIB] = 700
    hu[BRONCHUS] = -960
    lungs = np.zeros(SHAPE, dtype=bool)
    lungs[:, :, :44] = True
    return np.round(hu).astype(np.int16), lungs


@pytest.fixture(scope="module")
def sixty(patch):
    found = [
        add_synthetic_lesion(*patch, SPACING_MM, np.random.default_rng(seed), outside=False)
        for seed in range(60)
    ]
    return [one for one in found if one is not None]


def test_most_draws_give_a_lesion_of_every_kind(sixty):
    assert len(sixty) >= 57
    assert {one.kind for one in sixty} == {"solid", "part-solid", "ground glass"}


def test_inputs_stay_and_the_same_rng_gives_the_same_lesion(patch):
    hu, lungs = patch[0].copy(), patch[1].copy()
    taken = np.zeros(SHAPE, dtype=bool)
    first, again = (
        add_synthetic_lesion(hu, lungs, SPACING_MM, np.random.default_rng(3), taken=taken) for _ in "ab"
    )
    other = add_synthetic_lesion(hu, lungs, SPACING_MM, np.random.default_rng(4))
    assert np.array_equal(hu, patch[0]) and np.array_equal(lungs, patch[1]) and not taken.any()
    assert np.array_equal(first.hu, again.hu) and np.array_equal(first.lesion, again.lesion)
    assert not np.array_equal(first.lesion, other.lesion)


def test_a_lesion_is_one_piece_of_possible_hu_and_shows(patch, sixty, tumours):
    for one in sixty + tumours:
        assert one.hu.shape == one.lesion.shape == SHAPE
        assert one.hu.dtype == np.float32 and one.lesion.dtype == bool
        assert one.hu.min() >= -1024 and one.hu.max() <= 3071
        sizes = np.bincount(ndimage.label(one.lesion)[0].ravel())[1:]
        assert sizes.max() >= 0.95 * sizes.sum()
        in_lung = one.lesion & (patch[0] < -700)
        assert np.median(one.hu[in_lung] - patch[0][in_lung]) > 50


@pytest.fixture(scope="module")
def tumours(patch):
    found = [add_synthetic_lesion(*patch, SPACING_MM, np.random.default_rng(n), (20, 40)) for n in range(60)]
    return [one for one in found if one is not None]


@pytest.mark.parametrize("spared", [RIB, BRONCHUS], ids=["bone", "bronchus"])
def test_nothing_is_laid_over_bone_or_airways(patch, sixty, tumours, spared):
    for one in sixty + tumours:
        assert np.array_equal(one.hu[spared], patch[0][spared].astype(np.float32))
        assert not one.lesion[spared].any()


def test_a_part_of_the_tumours_lies_mostly_beyond_the_lungs(tumours):
    """A tumour of the mediastinum or the wall shows a third of its surface to the lung, or less."""
    solid = [one.lesion for one in tumours if one.kind == "solid"]
    outside = np.array([lesion[:, :, 44:].sum() / lesion.sum() for lesion in solid])
    assert 0.1 < np.mean(outside > 0.5) < 0.5
    assert outside.max() < 0.95  # a part of it was lung before
    assert np.mean(outside == 0) > 0.2


def test_none_lies_mostly_beyond_the_lungs_where_it_may_not(patch):
    for seed in range(60):
        one = add_synthetic_lesion(*patch, SPACING_MM, np.random.default_rng(seed), (20, 40), outside=False)
        assert one is None or one.lesion[:, :, 44:].sum() < 0.6 * one.lesion.sum()


def test_lesions_touch_the_wall_often_and_grow_into_it_sometimes(patch, sixty):
    beyond = [one.lesion[:, :, 44:].any() for one in sixty]
    deep = [one.lesion[:, :, 47:].any() for one in sixty]
    assert np.mean(beyond) > 0.2
    assert 0.02 < np.mean(deep) < np.mean(beyond)


def test_what_is_taken_stays_free_and_apart(patch):
    taken = np.zeros(SHAPE, dtype=bool)
    taken[10:40, 10:40, 10:24] = True
    found = [
        add_synthetic_lesion(*patch, SPACING_MM, np.random.default_rng(n), taken=taken) for n in range(20)
    ]
    made = [one for one in found if one is not None]
    assert len(made) >= 10
    for one in made:
        assert not (ndimage.binary_dilation(one.lesion) & taken).any()
        assert np.array_equal(one.hu[taken], patch[0][taken].astype(np.float32))


def test_ground_glass_keeps_vessels_and_lies_between_lung_and_tissue(patch, sixty):
    glass = [one for one in sixty if one.kind == "ground glass"]
    vessel = np.zeros(SHAPE, dtype=bool)
    vessel[VESSEL] = True
    for one in glass:
        lung = ndimage.binary_erosion(one.lesion) & (patch[0] < -700)
        if lung.any():
            assert -800 < np.median(one.hu[lung]) < -250
        covered = one.lesion & vessel & (patch[0] > 30)
        assert np.array_equal(one.hu[covered], patch[0][covered].astype(np.float32))


def test_boxes_are_filled_as_differently_as_by_real_tumours(sixty):
    filled = [one.lesion.sum() / np.prod(np.ptp(np.argwhere(one.lesion), axis=0) + 1) for one in sixty]
    low, middle, high = np.percentile(filled, [5, 50, 95])
    assert low < 0.27 < middle < 0.5 < high


def test_sizes_follow_what_is_asked_for(patch):
    for size in (6.0, 30.0):
        ml = [
            one.lesion.sum() * np.prod(SPACING_MM) / 1000
            for seed in range(12)
            if (one := add_synthetic_lesion(*patch, SPACING_MM, np.random.default_rng(seed), (size, size)))
        ]
        ball = np.pi / 6 * size**3 / 1000
        assert 0.3 * ball < np.median(ml) < 1.6 * ball


@pytest.mark.parametrize("sigma", [0.45, 0.7])
def test_noise_is_measured_back(sigma):
    from radiogen.training.synthetic_shapes import NoiseModel

    made = draw_noise(SHAPE, NoiseModel(20.0, (sigma, sigma, sigma)), np.random.default_rng(0))
    found = measure_noise(50 + made)
    assert 15 < found.hu < 21
    assert found.sigma_voxels == pytest.approx((sigma,) * 3, abs=0.08)


def test_a_patch_without_lung_holds_no_lesion(patch):
    nothing = np.zeros(SHAPE, dtype=np.uint8)
    assert add_synthetic_lesion(patch[0], nothing, SPACING_MM, np.random.default_rng(0)) is None


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.5), (0.7, 0.7, 5.0)])
def test_other_grids_hold_lesions_too(patch, spacing_mm):
    found = [add_synthetic_lesion(*patch, spacing_mm, np.random.default_rng(seed)) for seed in range(6)]
    assert sum(one is not None and bool(one.lesion.any()) for one in found) >= 5
