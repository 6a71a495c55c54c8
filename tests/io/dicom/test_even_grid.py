"""Gaps and tilt: refused, or resampled when asked, and then every voxel lies where the scanner saw it."""

import numpy as np
import pytest
import SimpleITK as sitk
from dicom_phantom import ORIGIN, box_hu, ct_slices, save

from radiogen.errors import SeriesError
from radiogen.io.dicom.files import find_dicom
from radiogen.io.dicom.series import SeriesRules, group_series, read_series

BOTH = SeriesRules(gaps="resample", tilt="resample")


def read(slices, folder, rules=BOTH):
    save(slices, folder)
    (series,) = group_series(find_dicom(folder).slices)
    return read_series(series, rules)


def tilted(degrees=20.0, size=(21, 17, 9), field=None):
    """Slices of a smooth field of HU in space, their planes turned about x; the table moves along z."""
    turn = np.radians(degrees)
    row, column = np.array([1.0, 0, 0]), np.array([0, np.cos(turn), np.sin(turn)])
    slices = ct_slices(np.full(size[::-1], 40))
    for k, item in enumerate(slices):
        origin = np.array([*ORIGIN[:2], ORIGIN[2] + 2.5 * k])
        item.ImagePositionPatient = [float(v) for v in np.round(origin, 6)]
        item.ImageOrientationPatient = [float(v) for v in np.round([*row, *column], 6)]
        if field is not None:
            x, y = np.meshgrid(np.arange(size[0]) * 0.75, np.arange(size[1]) * 1.25)
            points = origin + x[..., None] * row + y[..., None] * column
            item.PixelData = (np.rint(field(points)) + 1024).astype(np.uint16).tobytes()
    return slices


def slope(points):
    """HU that grow evenly along every axis, so that linear interpolation is exact."""
    return 100 + 8 * points[..., 0] - 6 * points[..., 1] + 2 * points[..., 2]


def points_of(volume):
    size = volume.GetSize()
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in size), indexing="ij"), axis=-1)
    direction = np.array(volume.GetDirection()).reshape(3, 3)
    return np.array(volume.GetOrigin()) + (grid * np.array(volume.GetSpacing())) @ direction.T


def test_a_tilt_is_refused_unless_resampling_was_asked_for(tmp_path):
    with pytest.raises(SeriesError, match=r"gantry tilt of 20\.0 degrees.*--tilt resample"):
        read(tilted(), tmp_path, SeriesRules(gaps="resample"))


@pytest.mark.parametrize("degrees", [20.0, -12.5])
def test_an_upright_volume_shows_every_point_where_the_tilted_scanner_saw_it(tmp_path, degrees):
    ct = read(tilted(degrees, field=slope), tmp_path)
    direction = np.array(ct.volume.GetDirection()).reshape(3, 3)
    assert np.allclose(direction @ direction.T, np.eye(3), atol=1e-6)
    hu = sitk.GetArrayFromImage(ct.volume).transpose(2, 1, 0)
    inside = hu > -1024
    assert inside.sum() >= 21 * 16 * 9
    assert np.abs(hu - slope(points_of(ct.volume)))[inside].max() <= 1.5
    assert any("gantry tilt" in line for line in ct.decisions)


@pytest.mark.parametrize("gone", [1, 4, 7])
def test_a_single_missing_slice_of_a_tilted_scan_is_interpolated(tmp_path, gone):
    slices = tilted(field=slope)
    del slices[gone]
    with pytest.raises(SeriesError, match="missing between"):
        read(slices, tmp_path / "a", SeriesRules(tilt="resample"))
    ct = read(slices, tmp_path / "b")
    assert ct.volume.GetSize()[2] == 9
    assert any("1 of 9 planes interpolated" in line for line in ct.decisions)
    hu = sitk.GetArrayFromImage(ct.volume).transpose(2, 1, 0)[:, 8:-8, gone]
    assert np.abs(hu - slope(points_of(ct.volume))[:, 8:-8, gone]).max() <= 2


def test_a_missing_slice_of_an_upright_scan_is_the_mean_of_its_neighbours(tmp_path):
    slices = ct_slices()
    del slices[2]
    ct = read(slices, tmp_path)
    hu = sitk.GetArrayFromImage(ct.volume)
    assert np.array_equal(np.delete(hu, 2, axis=0), np.delete(box_hu(), 2, axis=0))
    assert np.abs(hu[2] - (box_hu()[1] + box_hu()[3]) / 2).max() <= 0.5
    assert "uneven spacing: 1 of 5 planes interpolated, 2.500 mm apart" in ct.decisions


def test_two_missing_slices_in_a_row_are_never_interpolated(tmp_path):
    slices = ct_slices(box_hu((11, 7, 9)))
    del slices[3:5]
    with pytest.raises(SeriesError, match=r"2 of the slices missing between .*\(give the whole series\)"):
        read(slices, tmp_path)


def test_spacing_that_changes_within_the_scan_becomes_even(tmp_path):
    slices = ct_slices(np.stack([np.full((7, 11), -900 + 100 * k) for k in range(8)]))
    heights = [0, 1, 2, 3, 4, 5.5, 7, 8.5]
    for item, height in zip(slices, heights, strict=True):
        item.ImagePositionPatient = [*ORIGIN[:2], ORIGIN[2] + height]
    ct = read(slices, tmp_path)
    assert ct.volume.GetSize()[2] == 9 and ct.volume.GetSpacing()[2] == 1.0
    expected = np.interp(np.arange(9), heights, -900 + 100 * np.arange(8))
    assert np.abs(sitk.GetArrayFromImage(ct.volume)[:, 3, 3] - expected).max() <= 1


def test_what_needs_no_resampling_is_left_as_it_is(tmp_path):
    ct = read(ct_slices(), tmp_path)
    assert np.array_equal(sitk.GetArrayFromImage(ct.volume), box_hu()) and ct.decisions == ()
