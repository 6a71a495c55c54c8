"""Lesions told apart, measured and written."""

from math import hypot
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from radiogen.errors import VolumeError
from radiogen.measures.lesions import LESION_COLUMNS, lesion_rows, measure_lesions, split_lesions
from radiogen.volume import array_of

SPACING = (0.8, 1.1, 2.5)


def mask_of(array: np.ndarray, spacing: tuple[float, float, float] = SPACING) -> sitk.Image:
    mask = sitk.GetImageFromArray(array.astype(np.uint8))
    mask.SetSpacing(spacing)
    mask.SetOrigin((-12.0, 7.5, -900.0))
    return mask


def turned(mask: sitk.Image) -> sitk.Image:
    """The same voxels with x and y of the patient exchanged and the head at the other end."""
    other = sitk.Image(mask)
    other.SetDirection((0, 1, 0, 1, 0, 0, 0, 0, -1))
    return other


def test_an_empty_mask_has_no_lesions() -> None:
    assert measure_lesions(mask_of(np.zeros((4, 5, 6)))) == []


def test_one_voxel_is_as_long_as_its_longest_edge() -> None:
    array = np.zeros((4, 5, 6))
    array[0, 0, 0] = 1
    (lesion,) = measure_lesions(mask_of(array))
    assert lesion.longest_diameter_mm == pytest.approx(2.5)
    assert lesion.volume_ml == pytest.approx(0.8 * 1.1 * 2.5 / 1000)
    assert lesion.center_mm == pytest.approx((-12.0, 7.5, -900.0))


def test_a_row_of_voxels_at_the_edge_of_the_volume_is_measured_to_its_ends() -> None:
    array = np.zeros((3, 4, 9))
    array[1, 3, :] = 1
    (lesion,) = measure_lesions(mask_of(array))
    assert lesion.longest_diameter_mm == pytest.approx(9 * 0.8)


def test_the_longest_diameter_of_a_box_runs_between_faces_of_opposite_corner_voxels() -> None:
    array = np.zeros((6, 8, 10))
    array[1:4, 2:7, 1:9] = 1
    (lesion,) = measure_lesions(mask_of(array))
    x, y, z = 7 * 0.8, 4 * 1.1, 2 * 2.5
    assert lesion.longest_diameter_mm == pytest.approx(hypot(x, y, z + 2.5))


def test_labels_are_measured_each_by_itself_and_missing_numbers_do_not_matter() -> None:
    array = np.zeros((5, 6, 7))
    array[0, 0, 0], array[2, 2:4, 3] = 4, 2
    lesions = measure_lesions(mask_of(array))
    assert [lesion.label for lesion in lesions] == [2, 4]
    assert lesions[0].center_mm == pytest.approx((-12 + 3 * 0.8, 7.5 + 2.5 * 1.1, -900 + 2 * 2.5))
    assert lesions[0].longest_diameter_mm == pytest.approx(hypot(1.1, 2.5))


def test_the_direction_of_the_volume_moves_the_centre_and_nothing_else() -> None:
    array = np.zeros((5, 6, 7))
    array[1:4, 2:5, 3:6] = 1
    (straight,) = measure_lesions(mask_of(array))
    (other,) = measure_lesions(turned(mask_of(array)))
    assert other.longest_diameter_mm == pytest.approx(straight.longest_diameter_mm)
    assert other.center_mm == pytest.approx((-12 + 3 * 1.1, 7.5 + 4 * 0.8, -900 - 2 * 2.5))


def test_the_ibsi_lesion_has_its_published_diameter(shared_data: Path) -> None:
    mask = sitk.ReadImage(str(shared_data / "ibsi_ct_phantom" / "nifti" / "mask" / "mask.nii.gz"))
    (lesion,) = measure_lesions(sitk.Cast(mask, sitk.sitkUInt8))
    assert lesion.longest_diameter_mm == pytest.approx(125, abs=0.5)  # IBSI-1, configuration A
    assert lesion.volume_ml == pytest.approx(358.68, abs=0.01)


def test_parts_are_numbered_by_size_and_a_shared_corner_connects() -> None:
    array = np.zeros((6, 7, 8))
    array[0, 0, 0] = 1
    array[2, 2, 2] = array[3, 3, 3] = 1
    array[5, 5:7, 5:7] = 9
    labels = array_of(split_lesions(mask_of(array)))
    assert labels.dtype == np.uint8
    assert (labels[5, 5, 5], labels[2, 2, 2], labels[3, 3, 3], labels[0, 0, 0]) == (1, 2, 2, 3)
    assert np.array_equal(labels != 0, array != 0)


def test_splitting_twice_changes_nothing_and_keeps_the_grid() -> None:
    rng = np.random.default_rng(3)
    mask = turned(mask_of(rng.random((5, 6, 7)) < 0.12))
    once = split_lesions(mask)
    assert np.array_equal(array_of(split_lesions(once)), array_of(once))
    assert once.GetDirection() == mask.GetDirection() and once.GetOrigin() == mask.GetOrigin()


def test_parts_below_the_smallest_volume_are_left_out_and_those_at_it_stay() -> None:
    array = np.zeros((5, 6, 7))
    array[0, 0, 0] = 1
    array[2, 2, 2:4] = 1
    array[4, 4, 4:7] = 1
    mask = mask_of(array)
    kept = array_of(split_lesions(mask, smallest_ml=2 * 0.8 * 1.1 * 2.5 / 1000))
    assert kept.max() == 2 and kept[2, 2, 2] == 2 and kept[0, 0, 0] == 0


def test_an_empty_mask_splits_into_nothing() -> None:
    assert array_of(split_lesions(mask_of(np.zeros((3, 4, 5))))).max() == 0


def test_more_than_255_parts_are_refused_with_a_way_out() -> None:
    array = np.zeros((13, 15, 17))
    array[::2, ::2, ::2] = 1
    with pytest.raises(VolumeError, match=r"504 parts.*smallest"):
        split_lesions(mask_of(array))
    array[::2, ::2, ::2] = 0
    array[0, ::2, ::2] = 1
    array[4, 4, 4:6] = 1
    assert array_of(split_lesions(mask_of(array), smallest_ml=0.004)).max() == 1


def test_the_table_of_lesions_has_the_agreed_columns() -> None:
    array = np.zeros((4, 5, 6))
    array[1, 2, 3] = 1
    (row,) = lesion_rows("R01-001", measure_lesions(mask_of(array)))
    assert tuple(row) == LESION_COLUMNS
    assert list(row.values()) == ["R01-001", 1, 0.0022, 2.5, -9.6, 9.7, -897.5]
    assert lesion_rows("R01-002", []) == []
