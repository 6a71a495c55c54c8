import sys

import numpy as np
import pytest
import SimpleITK as sitk
from tiny_cases import TINY

from radiogen.errors import ConfigError, MissingPackageError
from radiogen.ingestion.lungs import LEFT, RIGHT, find_lungs, is_crop, threshold_lungs
from radiogen.phantoms.chest import make_chest
from radiogen.phantoms.traits import draw_traits
from radiogen.volume import Box, array_of, crop, same_grid, volume_like


@pytest.fixture(scope="module")
def chest():
    return make_chest(draw_traits(0, 2), 0)


@pytest.fixture(scope="module")
def found(chest):
    return threshold_lungs(chest.volume)


def overlap(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


@pytest.mark.parametrize("side", [RIGHT, LEFT])
def test_each_lung_of_a_phantom_is_found(chest, found, side):
    assert same_grid(found, chest.volume)
    assert overlap(array_of(found) == side, array_of(chest.lungs) == side) > 0.95


@pytest.mark.parametrize("number", range(1, 9))
def test_lungs_are_found_and_told_apart_in_voxels_of_six_millimetres(number):
    small = make_chest(draw_traits(3, number), 3, TINY)
    labels, truth = array_of(threshold_lungs(small.volume)), array_of(small.lungs)
    assert min(overlap(labels == side, truth == side) for side in (RIGHT, LEFT)) > 0.93


def test_the_windpipe_bowel_gas_and_the_air_outside_are_no_lung(chest, found):
    hu, labels = array_of(chest.volume), array_of(found)
    truth = array_of(chest.lungs) > 0
    air_elsewhere = (hu < -940) & ~sitk.GetArrayFromImage(
        sitk.BinaryDilate(chest.lungs > 0, (2, 2, 1))
    ).astype(bool)
    assert air_elsewhere.sum() > 1000
    assert (labels[air_elsewhere] > 0).mean() < 0.001
    assert (labels > 0)[truth].mean() > 0.95


def test_right_stays_right_when_the_image_is_stored_mirrored(chest, found):
    flipped = sitk.Flip(chest.volume, (True, True, False))
    back = sitk.Flip(threshold_lungs(flipped), (True, True, False))
    for side in (RIGHT, LEFT):
        assert overlap(array_of(back) == side, array_of(found) == side) > 0.97


@pytest.mark.parametrize("slices", [(0, 14), (12, 14), (24, 14)])
def test_a_part_of_the_chest_gives_that_part_of_the_lungs(chest, slices):
    first, count = slices
    x, y, _ = chest.volume.GetSize()
    part = Box((0, 0, first), (x, y, count))
    found = find_lungs(crop(chest.volume, part))
    truth = array_of(crop(chest.lungs, part)) > 0
    assert overlap(array_of(found.mask) > 0, truth) > 0.9
    assert any("cut off" in line for line in found.decisions) and not found.is_crop


def test_a_chest_that_fills_the_image_to_the_edge_keeps_its_lungs(chest):
    x, y, z = chest.volume.GetSize()
    box = Box((x // 6, y // 4, 0), (x - x // 3, y // 2, z))
    mask = threshold_lungs(crop(chest.volume, box))
    assert overlap(array_of(mask) > 0, array_of(crop(chest.lungs, box)) > 0) > 0.85


def test_lungs_that_touch_in_front_are_split(chest):
    hu = array_of(chest.volume).copy()
    truth = array_of(chest.lungs)
    middle = np.zeros_like(truth, dtype=bool)
    between = slice(truth.shape[2] // 2 - 4, truth.shape[2] // 2 + 4)
    rows = np.flatnonzero((truth[18] > 0).any(axis=1))
    middle[16:20, rows[0] + 3 : rows[0] + 7, between] = True
    hu[middle] = -850
    labels = array_of(threshold_lungs(volume_like(hu, chest.volume)))
    for side in (RIGHT, LEFT):
        assert overlap(labels == side, truth == side) > 0.93


def test_a_volume_without_lungs_gives_an_empty_mask_and_says_so():
    found = find_lungs(water((20, 18, 9), (10.0, 10.0, 10.0)))
    assert not array_of(found.mask).any()
    assert found.decisions == ("lungs by threshold: none were found",)


def water(size, spacing_mm):
    volume = sitk.Image(size, sitk.sitkInt16)
    volume.SetSpacing(spacing_mm)
    return volume


def test_a_volume_too_small_for_a_chest_is_a_crop_and_all_of_it_counts_as_lung():
    found = find_lungs(water((64, 52, 14), (1.0, 1.0, 2.0)))
    assert found.is_crop and (array_of(found.mask) == RIGHT).all()
    assert found.decisions == ("64 x 52 x 28 mm: a crop round a lesion, all of it counts as lung",)


@pytest.mark.parametrize(
    ("size", "expected"),
    [((119, 119, 300), True), ((120, 20, 20), False), ((20, 120, 20), False), ((119, 20, 3), True)],
)
def test_a_crop_is_below_120_mm_from_side_to_side_and_from_front_to_back(size, expected):
    assert is_crop(water(size, (1.0, 1.0, 1.0))) is expected
    # Stored with the slices first: the length along the body still does not count.
    assert is_crop(sitk.PermuteAxes(water(size, (1.0, 1.0, 1.0)), (2, 0, 1))) is expected


@pytest.mark.parametrize("method", ["threshold", "lungmask"])
def test_no_lungs_are_looked_for_in_a_crop(monkeypatch, method):
    monkeypatch.setitem(sys.modules, "lungmask", None)
    assert find_lungs(water((4, 4, 4), (1.0, 1.0, 1.0)), method).is_crop


def test_a_larger_volume_is_a_crop_where_the_user_says_so(chest):
    assert not find_lungs(chest.volume).is_crop
    found = find_lungs(chest.volume, "whole")
    assert found.is_crop and array_of(found.mask).all() and same_grid(found.mask, chest.volume)


def test_lungmask_is_asked_for_by_name_and_named_if_absent(monkeypatch):
    monkeypatch.setitem(sys.modules, "lungmask", None)
    with pytest.raises(MissingPackageError, match="radiogen\\[lungs\\]"):
        find_lungs(water((4, 4, 4), (100.0, 100.0, 100.0)), "lungmask")
    with pytest.raises(ConfigError, match="threshold, lungmask, whole"):
        find_lungs(sitk.Image((4, 4, 4), sitk.sitkInt16), "network")


def test_the_lungs_of_a_real_scan_have_the_volume_of_lungs(shared_data):
    volume = sitk.ReadImage(str(shared_data / "pyradiomics_lung1" / "lung1_image.nrrd"))
    found = find_lungs(volume)
    labels = array_of(found.mask)
    ml = float(np.prod(volume.GetSpacing())) / 1000
    assert 1500 < (labels == RIGHT).sum() * ml < 2100
    assert 900 < (labels == LEFT).sum() * ml < 1300
    assert np.median(array_of(volume)[labels > 0]) < -750
    assert "lungs: cut off at the bottom of the scan" in found.decisions
