import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from radiogen.errors import VolumeError
from radiogen.io.nifti import is_volume_file, read_mask, read_volume, write_volume
from radiogen.volume import array_of


def scan():
    volume = sitk.GetImageFromArray(np.arange(5 * 7 * 11, dtype=np.int16).reshape(5, 7, 11) - 200)
    volume.SetSpacing((0.75, 1.25, 2.5))
    volume.SetOrigin((-20.0, 10.0, -100.0))
    volume.SetDirection((0, -1, 0, 1, 0, 0, 0, 0, 1))
    return volume


@pytest.mark.parametrize("name", ["a.nii.gz", "a.nii", "a.nrrd", "a.mha"])
def test_what_is_written_is_read_back_in_its_place(tmp_path, name):
    write_volume(scan(), tmp_path / name)
    back = read_volume(tmp_path / name)
    assert is_volume_file(tmp_path / name)
    assert np.array_equal(array_of(back), array_of(scan()))
    for point in ((0, 0, 0), (10, 6, 4), (3, 1, 2)):
        here, there = (one.TransformIndexToPhysicalPoint(point) for one in (back, scan()))
        assert np.allclose(here, there, atol=1e-4)


def test_the_ras_of_nifti_becomes_lps(tmp_path):
    write_volume(scan(), tmp_path / "a.nii.gz")
    affine = nibabel.load(tmp_path / "a.nii.gz").affine
    right, front, up = affine @ [3, 1, 2, 1] @ np.eye(4)[:, :3]
    assert np.allclose(scan().TransformIndexToPhysicalPoint((3, 1, 2)), (-right, -front, up), atol=1e-4)


def test_slope_and_intercept_of_nifti_are_applied(tmp_path):
    image = nibabel.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4), np.eye(4))
    image.header.set_slope_inter(2.0, -1024.0)
    nibabel.save(image, tmp_path / "a.nii")
    stored = nibabel.load(tmp_path / "a.nii").get_fdata()
    assert np.array_equal(array_of(read_volume(tmp_path / "a.nii")), stored.T)


def write_nan(path):
    values = np.zeros((2, 3, 4), np.float32)
    values[1, 2, 3] = np.nan
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), path)


def write_time_points(path):
    nibabel.save(nibabel.Nifti1Image(np.zeros((2, 3, 4, 2), np.int16), np.eye(4)), path)


def write_nonsense(path):
    path.write_bytes(b"nonsense")


def leave_out(_):
    pass


@pytest.mark.parametrize(
    ("write", "says"),
    [
        (write_nan, "values that are not finite"),
        (write_time_points, "is not one 3D volume"),
        (write_nonsense, "cannot be read as a volume"),
        (leave_out, "is not a file"),
    ],
)
def test_a_file_that_is_no_volume_is_one_line(tmp_path, write, says):
    write(tmp_path / "a.nii")
    with pytest.raises(VolumeError, match=says):
        read_volume(tmp_path / "a.nii")


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("lost", [1, 40, 400])
def test_a_file_that_ends_early_is_refused(tmp_path, name, lost):
    values = np.random.default_rng(0).integers(-1000, 400, (5, 7, 11)).astype(np.int16)
    write_volume(sitk.GetImageFromArray(values), tmp_path / name)
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[:-lost])
    with pytest.raises(VolumeError, match="is truncated"):
        read_volume(tmp_path / name)


def test_a_mask_holds_whole_numbers_to_255(tmp_path):
    labels = sitk.GetImageFromArray(np.array([[[0.0, 3.0], [255.0, 1.0]]] * 2, np.float32))
    write_volume(labels, tmp_path / "m.nii.gz")
    assert read_mask(tmp_path / "m.nii.gz").GetPixelID() == sitk.sitkUInt8
    write_volume(labels * 0.5, tmp_path / "m.nii.gz")
    with pytest.raises(VolumeError, match="whole numbers from 0 to 255"):
        read_mask(tmp_path / "m.nii.gz")
