"""One series, several volumes: told apart by what the headers say, never by chance."""

import numpy as np
import pytest
import SimpleITK as sitk
from dicom_phantom import ORIGIN, box_hu, ct_slices, save, uid

from radiogen.errors import SeriesError
from radiogen.io.dicom.files import find_dicom
from radiogen.io.dicom.series import group_series, read_series


def found(folder):
    return group_series(find_dicom(folder).slices)


def hu_of(series):
    return sitk.GetArrayFromImage(read_series(series).volume)


def two(change, first=0, second=0, **how):
    """Two volumes under one SeriesInstanceUID; `change(slice, volume)` marks them."""
    volumes = [ct_slices(box_hu() + first), ct_slices(box_hu() + second, **how)]
    for n, volume in enumerate(volumes):
        for item in volume:
            item.SOPInstanceUID = item.file_meta.MediaStorageSOPInstanceUID = uid(item.SOPInstanceUID, n)
            change(item, n)
    return [*volumes[0], *volumes[1]]


def save_all(slices, folder):
    return save(slices, folder, [f"{n}.dcm" for n in range(len(slices))])


def kernel(item, n):
    item.ConvolutionKernel = ("B40", "B70")[n]


def time_point(item, n):
    item.TemporalPositionIdentifier = n + 1


def acquisition(item, n):
    item.AcquisitionNumber = n + 10


def echo(item, n):
    item.EchoNumbers = n + 1


def no_mark(item, n):
    pass


@pytest.mark.parametrize(
    ("mark", "because"),
    [
        (kernel, ["kernel B40", "kernel B70"]),
        (time_point, ["time point 1", "time point 2"]),
        (acquisition, ["acquisition 10", "acquisition 11"]),
        (echo, ["echo 1", "echo 2"]),
    ],
)
def test_volumes_of_one_uid_are_told_apart_by_their_marks(tmp_path, mark, because):
    save_all(two(mark, second=7), tmp_path)
    one, other = found(tmp_path)
    assert [one.told_apart_by, other.told_apart_by] == because
    assert (one.name, other.name) == (f"{one.uid}#1", f"{one.uid}#2")
    assert np.array_equal(hu_of(one), box_hu()) and np.array_equal(hu_of(other), box_hu() + 7)


def test_volumes_that_two_marks_tell_apart_are_told_apart(tmp_path):
    slices = []
    for n, (phase, name) in enumerate([(1, "B40"), (1, "B70"), (2, "B40"), (2, "B70")]):
        for item in ct_slices(box_hu() + n):
            item.TemporalPositionIdentifier, item.ConvolutionKernel = phase, name
            slices.append(item)
    save_all(slices, tmp_path)
    series = found(tmp_path)
    assert sorted(int(hu_of(one).max()) for one in series) == [40, 41, 42, 43]


def test_a_localizer_plane_in_the_series_is_another_volume(tmp_path):
    slices, across = ct_slices(), ct_slices()[0]
    across.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
    across.SOPInstanceUID = across.file_meta.MediaStorageSOPInstanceUID = uid("across")
    save_all([*slices, across], tmp_path)
    axial, plane = found(tmp_path)
    assert len(axial.slices) == 5 and len(plane.slices) == 1 and plane.told_apart_by == "orientation"
    assert np.array_equal(hu_of(axial), box_hu())


def test_two_fields_of_view_at_the_same_places_are_two_volumes(tmp_path):
    wide = ct_slices(box_hu((13, 9, 5)))
    for item in wide:
        item.PixelSpacing = [2.0, 2.0]
    save_all([*ct_slices(), *wide], tmp_path)
    assert sorted(hu_of(one).shape for one in found(tmp_path)) == [(5, 7, 11), (5, 9, 13)]


def test_thick_and_thin_slices_between_each_other_are_two_volumes(tmp_path):
    thick = ct_slices(box_hu((11, 7, 3)), spacing=(0.75, 1.25, 4.0), origin=(*ORIGIN[:2], ORIGIN[2] + 1))
    save_all([*ct_slices(), *thick], tmp_path)
    thin, other = found(tmp_path)
    assert (thin.told_apart_by, other.told_apart_by) == ("slice thickness 2.5", "slice thickness 4")
    assert hu_of(thin).shape[0] == 5 and hu_of(other).shape[0] == 3


def test_doubled_places_that_no_header_explains_are_refused(tmp_path):
    save_all(two(no_mark, second=7), tmp_path)
    (series,) = found(tmp_path)
    with pytest.raises(SeriesError, match=r"holds other voxels .* no header tells two volumes apart"):
        read_series(series)


def test_a_copy_of_the_series_under_other_uids_is_dropped_and_said(tmp_path):
    save_all(two(no_mark), tmp_path)
    (series,) = found(tmp_path)
    ct = read_series(series)
    assert np.array_equal(sitk.GetArrayFromImage(ct.volume), box_hu())
    assert "5 doubled slices with equal voxels left out" in ct.decisions


@pytest.mark.parametrize("gone", [2, 3, 5, 6, 7])
@pytest.mark.parametrize("by", ["halves", "passes"])
def test_a_slice_missing_between_two_acquisitions_is_a_gap_not_two_volumes(tmp_path, gone, by):
    slices = ct_slices(box_hu((11, 7, 10)))
    for k, item in enumerate(slices):
        item.AcquisitionNumber = k // 5 if by == "halves" else k % 2
    del slices[gone]
    save_all(slices, tmp_path)
    (series,) = found(tmp_path)
    with pytest.raises(SeriesError, match="missing between z"):
        read_series(series)


def test_a_phase_that_lacks_a_slice_is_refused_with_the_others(tmp_path):
    slices = two(time_point, second=7)
    del slices[2]
    save_all(slices, tmp_path)
    (series,) = found(tmp_path)
    with pytest.raises(SeriesError, match="holds other voxels"):
        read_series(series)


def test_a_late_start_two_frames_of_reference_and_gaps_between_thin_slices_are_said(tmp_path):
    slices = ct_slices(spacing=(0.75, 1.25, 10.0))
    for k, item in enumerate(slices):
        item.InstanceNumber, item.SliceThickness = 7 + k, 1.25
        item.FrameOfReferenceUID = uid("frame", k // 3)
    save_all(slices, tmp_path)
    (series,) = found(tmp_path)
    assert read_series(series).decisions == (
        "instance numbers start at 7: slices may be missing at an end",
        "its slices name 2 frames of reference; their positions are taken as of one",
        "slices of 1.25 mm lie 10.00 mm apart: what lies between is not seen",
    )
