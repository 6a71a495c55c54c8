"""What filling a box gives, worked out by hand."""

from math import isnan, pi

import numpy as np
import pytest
import SimpleITK as sitk

from radiogen.measures.floors import FLOORS, floors


def volume_of(array: np.ndarray, dtype: type = np.uint8) -> sitk.Image:
    volume = sitk.GetImageFromArray(array.astype(dtype))
    volume.SetSpacing((0.8, 1.1, 2.5))
    return volume


def test_a_lesion_that_fills_its_box_is_found_by_the_box() -> None:
    array = np.zeros((6, 20, 24))
    array[1:5, 2:18, 3:22] = 1
    found = floors(volume_of(array), None)
    assert found["floor_box"] == 1
    share = pi / 6
    assert found["floor_ellipsoid"] == pytest.approx(2 * share / (1 + share), abs=0.03)
    assert isnan(found["floor_threshold"])
    assert isnan(found["floor_threshold_ellipsoid"])


def test_the_threshold_cuts_away_air_and_bone() -> None:
    lesion = np.zeros((3, 4, 6))
    lesion[1, 1:3, 1:5] = 1
    lesion[1, 1, 1] = 0  # 7 voxels in a box of 8
    hu = np.where(lesion > 0, 40, -850)
    found = floors(volume_of(lesion), volume_of(hu, np.int16))
    assert found["floor_box"] == pytest.approx(2 * 7 / 15)
    assert found["floor_threshold"] == 1
    hu[1, 2, 4] = 251
    assert floors(volume_of(lesion), volume_of(hu, np.int16))["floor_threshold"] == pytest.approx(12 / 13)


def test_each_lesion_has_a_box_of_its_own() -> None:
    lesion = np.zeros((5, 9, 9))
    lesion[0, 0, 0] = lesion[4, 8, 8] = 1
    assert floors(volume_of(lesion), None)["floor_box"] == 1


def test_without_a_lesion_there_is_no_floor() -> None:
    found = floors(volume_of(np.zeros((3, 4, 5))), None)
    assert tuple(found) == FLOORS
    assert all(isnan(value) for value in found.values())
