"""Patient planes, cut from volumes stored in any order."""

from itertools import permutations, product

import numpy as np
import pytest
import SimpleITK as sitk

from radiogen.drawing.planes import body_edges_mm, cut_planes, patient_axes, widest_cut
from radiogen.errors import VolumeError

EVERY_ORIENTATION = [
    "".join(letters) for pairs in permutations(("LR", "PA", "SI")) for letters in product(*pairs)
]


@pytest.fixture
def ct() -> sitk.Image:
    """Every voxel different; x to the left, y to the back, z to the head."""
    volume = sitk.GetImageFromArray(np.arange(3 * 4 * 5, dtype=np.int16).reshape(3, 4, 5))
    volume.SetSpacing((0.7, 0.9, 2.5))
    volume.SetOrigin((-10.0, 5.0, -700.0))
    return volume


@pytest.mark.parametrize("orientation", EVERY_ORIENTATION)
def test_planes_do_not_depend_on_the_order_in_which_voxels_are_stored(
    ct: sitk.Image, orientation: str
) -> None:
    stored = sitk.DICOMOrient(ct, orientation)
    axes = patient_axes(stored)
    index = axes.index_at(stored, ct.TransformIndexToPhysicalPoint((3, 1, 2)))
    assert index == (3, 1, 2)
    planes = cut_planes(stored, {"lesion": stored}, index, axes)
    array = sitk.GetArrayFromImage(ct)
    assert np.array_equal(planes["axial"].hu, array[2])
    assert np.array_equal(planes["coronal"].hu, array[::-1, 1, :])
    assert np.array_equal(planes["sagittal"].hu, array[::-1, :, 3])
    assert np.array_equal(planes["sagittal"].masks["lesion"], planes["sagittal"].hu)
    assert planes["axial"].size_mm == pytest.approx((5 * 0.7, 4 * 0.9))
    assert planes["coronal"].size_mm == pytest.approx((5 * 0.7, 3 * 2.5))
    assert [planes[name].position for name in planes] == ["z -695.0 mm", "y 5.9 mm", "x -7.9 mm"]


def test_the_common_point_lies_in_the_middle_of_its_voxel(ct: sitk.Image) -> None:
    planes = cut_planes(ct, {}, (3, 1, 2), patient_axes(ct))
    assert planes["axial"].at_mm == pytest.approx((3.5 * 0.7, 1.5 * 0.9))
    assert planes["coronal"].at_mm == pytest.approx((3.5 * 0.7, 0.5 * 2.5))
    assert planes["sagittal"].at_mm == pytest.approx((1.5 * 0.9, 0.5 * 2.5))


def test_an_oblique_volume_says_its_tilt(ct: sitk.Image) -> None:
    cosine, sine = np.cos(np.radians(12)), np.sin(np.radians(12))
    ct.SetDirection((1, 0, 0, 0, cosine, -sine, 0, sine, cosine))
    assert patient_axes(ct).tilt_degrees == pytest.approx(12)


@pytest.mark.parametrize("point", [(-10.0, 5.0, -702.0), (99.0, 5.0, -700.0), (float("nan"), 5.0, -700.0)])
def test_a_point_outside_is_refused(ct: sitk.Image, point: tuple[float, float, float]) -> None:
    with pytest.raises(VolumeError, match="mm LPS"):
        patient_axes(ct).index_at(ct, point)


def test_the_widest_cut_goes_through_the_largest_part_where_it_covers_most() -> None:
    mask = np.zeros((6, 7, 8), np.uint8)
    mask[0, 0, 0:3] = 1  # a smaller part
    mask[2, 3, 4] = 2
    mask[3, 2:5, 3:7] = 2
    cut = widest_cut(mask, (1.0, 2.0, 3.0))
    assert cut is not None
    assert cut.index[1:] == (3, 3)
    assert cut.extent_mm == (4.0, 6.0, 6.0)


def test_an_empty_mask_has_no_widest_cut() -> None:
    assert widest_cut(np.zeros((2, 3, 4), np.uint8), (1.0, 1.0, 1.0)) is None


def body(array: np.ndarray, index: tuple[int, int, int]) -> tuple:
    volume = sitk.GetImageFromArray(array)
    return body_edges_mm(cut_planes(volume, {}, index, patient_axes(volume))["axial"])


def test_air_and_table_are_left_out_and_a_margin_stays() -> None:
    array = np.full((2, 60, 80), -1000, np.int16)
    array[:, 20:40, 25:60] = 40
    array[:, 55, :] = 200  # the table
    assert body(array, (30, 30, 1)) == ((13.0, 72.0), (8.0, 52.0))


def test_all_is_shown_where_no_body_is_found_or_the_point_lies_outside_of_it() -> None:
    air = np.full((2, 60, 80), -1000, np.int16)
    assert body(air, (30, 30, 1)) == ((0.0, 80.0), (0.0, 60.0))
    air[:, 20:40, 25:60] = 40
    assert body(air, (2, 30, 1)) == ((0.0, 80.0), (0.0, 60.0))
