"""Masks as other readers might draw them, and the ICC of what is measured in them."""

import numpy as np
import pytest
import SimpleITK as sitk

from radiogen.features.perturb import draw_masks, icc, perturb_mask, stability_rows
from radiogen.volume import array_of


def ball(radius_mm=8.0, spacing=(1.0, 1.0, 1.0), size=40):
    axis = np.arange(size) - size / 2
    z, y, x = np.meshgrid(axis * spacing[2], axis * spacing[1], axis * spacing[0], indexing="ij")
    image = sitk.GetImageFromArray((x**2 + y**2 + z**2 <= radius_mm**2).astype(np.uint8))
    image.SetSpacing(spacing)
    return image


def test_perturbed_masks_move_and_change_size_both_ways_but_not_much():
    mask = ball()
    volume = array_of(mask).sum()
    drawn = [array_of(each) for each in list(draw_masks(mask, 20, (0,)))[1:]]
    sizes = np.array([each.sum() for each in drawn]) / volume
    assert sizes.min() < 0.9 and sizes.max() > 1.1 and sizes.min() > 0.5 and sizes.max() < 1.6
    overlap = [2 * (each & array_of(mask)).sum() / (each.sum() + volume) for each in drawn]
    assert min(overlap) > 0.6 and np.median(overlap) < 0.97
    centres = np.array([np.argwhere(each).mean(axis=0) for each in drawn])
    assert 0.4 < centres.std(axis=0).mean() < 1.6  # millimetres


def test_one_voxel_and_a_mask_at_the_edge_stay_lesions():
    for voxel in [(0, 0, 0), (39, 39, 39), (5, 20, 39)]:
        array = np.zeros((40, 40, 40), np.uint8)
        array[voxel] = 1
        single = sitk.GetImageFromArray(array)
        single.SetSpacing((0.7, 0.7, 5.0))
        for repeat in range(10):
            assert array_of(perturb_mask(single, np.random.default_rng(repeat))).any()


def test_a_perturbed_mask_keeps_its_place_in_space_and_depends_on_the_seed_alone():
    mask = ball(spacing=(0.8, 0.9, 2.0))
    first, again = (list(draw_masks(mask, 3, (1, 2))) for _ in range(2))
    assert all((array_of(a) == array_of(b)).all() for a, b in zip(first, again, strict=True))
    assert first[0] is mask and first[1].GetSpacing() == mask.GetSpacing()
    longer = list(draw_masks(mask, 5, (1, 2)))
    assert (array_of(longer[3]) == array_of(first[3])).all()


# Shrout and Fleiss, Psychol Bull 86:420, 1979, table 2: six targets, four judges; ICC(1,1) is .17.
RATINGS = [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]


def test_the_icc_is_that_of_shrout_and_fleiss():
    assert icc(np.array(RATINGS, float)[:, :, None])[0] == pytest.approx(0.17, abs=0.005)


def test_the_icc_of_a_feature_without_error_is_1_and_of_pure_error_0():
    rng = np.random.default_rng(0)
    same = np.repeat(rng.normal(size=(50, 1)), 4, axis=1)
    noise = rng.normal(size=(400, 4))
    half = rng.normal(size=(400, 1)) + rng.normal(size=(400, 4))
    assert icc(same[:, :, None])[0] == pytest.approx(1)
    assert icc(noise[:, :, None])[0] == pytest.approx(0, abs=0.06)
    assert icc(half[:, :, None])[0] == pytest.approx(0.5, abs=0.06)


def test_a_constant_feature_has_none_and_a_lesion_with_a_gap_does_not_count():
    rng = np.random.default_rng(0)
    measured = np.repeat(rng.normal(size=(30, 1)), 3, axis=1)
    gap = measured.copy()
    gap[0, 1] = np.nan
    gap[0, 0] = 1e6
    assert np.isnan(icc(np.ones((5, 3, 1)))[0])
    assert icc(gap[:, :, None])[0] == pytest.approx(1)


def test_the_table_of_stability_groups_the_repeats_of_a_lesion():
    rows = [{"case": "a", "repeat": r, "x": 1.0 + r, "y": 5.0} for r in (0, 1)]
    rows += [{"case": "b", "repeat": r, "x": 9.0 + r, "y": 7.0} for r in (0, 1)]
    found = stability_rows(rows, ["case"], ["x", "y"])
    assert [each["feature"] for each in found] == ["x", "y"] and found[0]["lesions"] == 2
    assert float(found[1]["icc"]) == 1 > float(found[0]["icc"]) > 0.9
