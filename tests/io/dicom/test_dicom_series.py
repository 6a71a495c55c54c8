import random

import numpy as np
import pytest
import SimpleITK as sitk
from dicom_phantom import ORIGIN, SPACING, box_hu, ct_slices, save, write_ct
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.uid import RLELossless

from radiogen.errors import SeriesError
from radiogen.io.dicom.files import find_dicom
from radiogen.io.dicom.series import group_series, read_series


def read(folder):
    (series,) = group_series(find_dicom(folder).slices)
    return read_series(series)


def test_voxels_and_place_are_those_that_were_written(tmp_path):
    write_ct(tmp_path)
    volume = read(tmp_path).volume
    assert np.array_equal(sitk.GetArrayFromImage(volume), box_hu())
    assert volume.GetPixelID() == sitk.sitkInt16
    assert np.allclose(volume.GetSpacing(), SPACING)
    assert np.allclose(volume.GetOrigin(), ORIGIN)


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=st.permutations(range(5)))
def test_names_and_instance_numbers_do_not_order_the_slices(tmp_path_factory, order):
    folder = tmp_path_factory.mktemp("series")
    slices = ct_slices()
    for item, number in zip(slices, order, strict=True):
        item.InstanceNumber = number
    save(slices, folder, [f"{number}.dcm" for number in order])
    assert np.array_equal(sitk.GetArrayFromImage(read(folder).volume), box_hu())


@pytest.mark.parametrize(
    ("orientation", "normal"),
    [([1, 0, 0, 0, 1, 0], (0, 0, 1)), ([-1, 0, 0, 0, 1, 0], (0, 0, -1)), ([0, 1, 0, 0, 0, -1], (-1, 0, 0))],
)
def test_every_voxel_lies_where_its_slice_says(tmp_path, orientation, normal):
    slices = ct_slices()
    for k, item in enumerate(slices):
        item.ImageOrientationPatient = orientation
        item.ImagePositionPatient = [float(o + 2.5 * k * n) for o, n in zip(ORIGIN, normal, strict=True)]
    save(slices, tmp_path)
    volume = read(tmp_path).volume
    for k, item in enumerate(slices):
        row, column = np.array(orientation).reshape(2, 3)
        point = np.array(item.ImagePositionPatient) + 3 * SPACING[0] * row + 2 * SPACING[1] * column
        assert volume[volume.TransformPhysicalPointToIndex(point.tolist())] == box_hu()[k, 2, 3]


@pytest.mark.parametrize("gone", [1, 2, 3])
def test_a_missing_slice_is_named_by_its_position(tmp_path, gone):
    slices = ct_slices()
    z = slices[gone].ImagePositionPatient[2]
    del slices[gone]
    save(slices, tmp_path)
    with pytest.raises(SeriesError, match=rf"missing between z {z - 2.5:.2f} and {z + 2.5:.2f} mm"):
        read(tmp_path)


def test_a_doubled_slice_with_equal_voxels_is_left_out_and_said(tmp_path):
    paths = write_ct(tmp_path)
    (tmp_path / "copy").write_bytes(paths[2].read_bytes())
    ct = read(tmp_path)
    assert np.array_equal(sitk.GetArrayFromImage(ct.volume), box_hu())
    assert "1 doubled slices with equal voxels left out" in ct.decisions


def test_two_different_slices_at_one_place_are_refused(tmp_path):
    slices = ct_slices()
    other = ct_slices(box_hu() + 1)[3]
    save([*slices, other], tmp_path)
    with pytest.raises(SeriesError, match="but holds other voxels"):
        read(tmp_path)


def test_uneven_spacing_is_refused(tmp_path):
    slices = ct_slices()
    slices[2].ImagePositionPatient = [*ORIGIN[:2], ORIGIN[2] + 2 * 2.5 + 0.8]
    save(slices, tmp_path)
    with pytest.raises(SeriesError, match=r"mm apart, the others 2\.50 mm"):
        read(tmp_path)


def test_positions_rounded_to_a_tenth_of_a_millimetre_are_even(tmp_path):
    slices = ct_slices(spacing=(0.75, 1.25, 0.625))
    for item in slices:
        item.ImagePositionPatient = [round(float(v), 1) for v in item.ImagePositionPatient]
    save(slices, tmp_path)
    assert read(tmp_path).volume.GetSpacing()[2] == pytest.approx(0.625, abs=0.02)


def test_a_gantry_tilt_is_refused_with_its_angle(tmp_path):
    slices = ct_slices()
    for k, item in enumerate(slices):
        item.ImagePositionPatient = [
            ORIGIN[0],
            ORIGIN[1] + 2.5 * k * np.tan(np.radians(12)),
            ORIGIN[2] + 2.5 * k,
        ]
    save(slices, tmp_path)
    with pytest.raises(SeriesError, match=r"gantry tilt of 12\.0 degrees"):
        read(tmp_path)


def test_two_patients_in_one_series_are_refused(tmp_path):
    slices = ct_slices()
    slices[3].PatientID = "B 2"
    save(slices, tmp_path)
    with pytest.raises(SeriesError, match="two patients"):
        read(tmp_path)


def test_slices_of_two_sizes_are_refused(tmp_path):
    save([*ct_slices()[:3], *ct_slices(box_hu((9, 7, 5)))[3:]], tmp_path)
    with pytest.raises(SeriesError, match="has"):
        read(tmp_path)


def test_one_slice_is_no_volume(tmp_path):
    save(ct_slices()[:1], tmp_path)
    with pytest.raises(SeriesError, match="one slice"):
        read(tmp_path)


@pytest.mark.parametrize("share", [0.5, 0.95])
def test_a_truncated_file_is_named(tmp_path, share):
    paths = write_ct(tmp_path)
    whole = paths[2].read_bytes()
    paths[2].write_bytes(whole[: int(share * len(whole))])
    tree = find_dicom(tmp_path)
    if paths[2] in tree.damaged:
        assert len(tree.slices) == 4
    else:
        with pytest.raises(SeriesError, match=f"{paths[2].name}: is truncated"):
            read(tmp_path)


def test_rescale_is_applied_slice_by_slice(tmp_path):
    slices = ct_slices()
    for k, item in enumerate(slices):
        stored = (box_hu()[k].astype(int) + 1000 + 10 * k) * 2
        item.PixelData = stored.astype(np.uint16).tobytes()
        item.RescaleSlope, item.RescaleIntercept = 0.5, -1000 - 10 * k
    save(slices, tmp_path)
    assert np.array_equal(sitk.GetArrayFromImage(read(tmp_path).volume), box_hu())


def test_signed_voxels_of_twelve_bits_keep_their_sign_and_lose_what_lies_above(tmp_path):
    slices = ct_slices()
    for k, item in enumerate(slices):
        item.BitsStored, item.HighBit, item.PixelRepresentation, item.RescaleIntercept = 12, 11, 1, 0
        overlay = 0x5000 if k == 1 else 0
        item.PixelData = ((box_hu()[k].astype(np.uint16) & 0x0FFF) | overlay).tobytes()
    save(slices, tmp_path)
    assert np.array_equal(sitk.GetArrayFromImage(read(tmp_path).volume), box_hu())


def test_what_lies_outside_the_reconstruction_becomes_air_and_is_counted(tmp_path):
    slices = ct_slices()
    for item in slices:
        item.PixelRepresentation, item.RescaleIntercept = 1, -1024
        item.add_new("PixelPaddingValue", "US", 63536)  # -2000 by a writer that confuses signs
        voxels = np.frombuffer(item.PixelData, np.int16).copy()
        voxels[:3] = -2000
        item.PixelData = voxels.tobytes()
    save(slices, tmp_path)
    ct = read(tmp_path)
    assert (sitk.GetArrayFromImage(ct.volume)[:, 0, :3] == -1024).all()
    assert ct.decisions == ("15 voxels below -1024 HU (outside the reconstruction) set to -1024",)


def test_a_padding_value_far_above_bone_becomes_air(tmp_path):
    slices = ct_slices()
    for item in slices:
        item.add_new("PixelPaddingValue", "US", 30000)
        voxels = np.frombuffer(item.PixelData, np.uint16).copy()
        voxels[:3] = 30000
        item.PixelData = voxels.tobytes()
    save(slices, tmp_path)
    ct = read(tmp_path)
    assert (sitk.GetArrayFromImage(ct.volume)[:, 0, :3] == -1024).all()
    assert ct.decisions == ("15 voxels of the padding value set to -1024",)


def test_compressed_slices_give_the_same_volume(tmp_path):
    slices = ct_slices()
    for item in slices:
        item.compress(RLELossless)
    save(slices, tmp_path)
    assert np.array_equal(sitk.GetArrayFromImage(read(tmp_path).volume), box_hu())


def test_files_without_a_preamble_are_read(tmp_path):
    paths = write_ct(tmp_path)
    for path in paths[::2]:
        path.write_bytes(path.read_bytes()[132:])
    assert np.array_equal(sitk.GetArrayFromImage(read(tmp_path).volume), box_hu())


def test_no_cut_of_a_file_gives_a_traceback_or_another_volume(tmp_path):
    paths = write_ct(tmp_path)
    whole = paths[1].read_bytes()
    for length in random.Random(0).sample(range(len(whole)), 60):
        paths[1].write_bytes(whole[:length])
        tree = find_dicom(tmp_path)
        (series,) = group_series(tree.slices)
        is_noticed = bool(tree.damaged) or len(series.slices) < 5
        try:
            read_series(series)
        except SeriesError:
            is_noticed = True
        assert is_noticed, length
