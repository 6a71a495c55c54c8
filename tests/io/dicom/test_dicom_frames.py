"""Enhanced multi-frame CT: every frame is a slice, whatever the order, and damage is one line."""

import numpy as np
import pytest
import SimpleITK as sitk
from dicom_phantom import ORIGIN, SPACING, box_hu, save
from enhanced_phantom import enhanced, item_of
from pydicom.uid import RLELossless

from radiogen.errors import SeriesError
from radiogen.io.dicom.files import find_dicom
from radiogen.io.dicom.series import group_series, read_series


def read(folder):
    (series,) = group_series(find_dicom(folder).slices)
    return read_series(series)


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [2, 0, 4, 1, 3]])
def test_frames_in_any_order_give_the_volume(tmp_path, order):
    save([enhanced(order=order)], tmp_path, ["one"])
    volume = read(tmp_path).volume
    assert np.array_equal(sitk.GetArrayFromImage(volume), box_hu())
    assert np.allclose(volume.GetOrigin(), ORIGIN) and np.allclose(volume.GetSpacing(), SPACING)


def test_every_frame_has_its_own_rescale(tmp_path):
    save([enhanced(rescale=lambda k: (0.5, -1000 - 10 * k))], tmp_path, ["one"])
    assert np.array_equal(sitk.GetArrayFromImage(read(tmp_path).volume), box_hu())


def test_compressed_frames_give_the_same_volume(tmp_path):
    dataset = enhanced(order=[3, 1, 0, 2, 4])
    dataset.compress(RLELossless)
    save([dataset], tmp_path, ["one"])
    assert np.array_equal(sitk.GetArrayFromImage(read(tmp_path).volume), box_hu())


def test_what_the_frames_share_is_known_of_each(tmp_path):
    save([enhanced()], tmp_path, ["one"])
    slices = find_dicom(tmp_path).slices
    assert [item.frame for item in slices] == [0, 1, 2, 3, 4]
    assert {item.kernel for item in slices} == {"B40"} and {item.thickness_mm for item in slices} == {2.5}


def test_time_points_in_one_file_are_two_volumes(tmp_path):
    dataset = enhanced(np.concatenate([box_hu(), box_hu() + 7]))
    for n, group in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        group.FrameContentSequence = [item_of(TemporalPositionIndex=1 + n // 5)]
        z = ORIGIN[2] + (n % 5) * SPACING[2]
        group.PlanePositionSequence[0].ImagePositionPatient = [*ORIGIN[:2], z]
    save([dataset], tmp_path, ["one"])
    series = group_series(find_dicom(tmp_path).slices)
    assert [one.told_apart_by for one in series] == ["time point 1", "time point 2"]
    assert [int(sitk.GetArrayFromImage(read_series(one).volume).max()) for one in series] == [40, 47]


def lose_a_place(dataset):
    del dataset.PerFrameFunctionalGroupsSequence[2]


def lose_pixels(dataset):
    dataset.PixelData = dataset.PixelData[:-100]


def claim_many_frames(dataset):
    dataset.NumberOfFrames = 2_000_000_000


def lose_a_position(dataset):
    del dataset.PerFrameFunctionalGroupsSequence[1].PlanePositionSequence


def lose_the_rows(dataset):
    dataset.Rows = 0


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lose_the_rows, "has no rows or columns"),
        (lose_a_place, "has 5 frames but places for 4"),
        (lose_pixels, "truncated"),
        (claim_many_frames, "has 2000000000 frames but places for 5"),
        (lose_a_position, "ImagePositionPatient is not 3 numbers"),
    ],
)
def test_a_damaged_file_of_frames_is_named_with_its_reason(tmp_path, spoil, says):
    dataset = enhanced()
    spoil(dataset)
    (path,) = save([dataset], tmp_path, ["one"])
    assert says in find_dicom(tmp_path).damaged[path]


def test_a_missing_frame_is_a_gap(tmp_path):
    dataset = enhanced()
    del dataset.PerFrameFunctionalGroupsSequence[2]
    dataset.NumberOfFrames = 4
    dataset.PixelData = np.delete(
        np.frombuffer(dataset.PixelData, np.uint16).reshape(5, 7, 11), 2, 0
    ).tobytes()
    save([dataset], tmp_path, ["one"])
    with pytest.raises(SeriesError, match="missing between"):
        read(tmp_path)
