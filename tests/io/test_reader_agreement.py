"""Voxel for voxel in space the volumes of SimpleITK's series reader and of dcm2niix, on real series."""

import subprocess
from pathlib import Path

import dcm2niix
import nibabel
import numpy as np
import pydicom.data
import pytest
import SimpleITK as sitk
from pydicom import dcmread
from pydicom.pixels import apply_rescale

from radiogen.io.dicom.files import find_dicom
from radiogen.io.dicom.pixels import HuCounts, convert_to_hu, stored_numbers
from radiogen.io.dicom.series import group_series, read_series

PYDICOM = Path(pydicom.data.__file__).parent / "test_files"
SERIES = {
    "4D-Lung": "lung_4d_113",
    "IBSI": "ibsi_ct_phantom/dicom/image",
    "LIDC 1": "lidc_idri_partial/LIDC-IDRI-0001",
    "LIDC 2": "lidc_idri_partial/LIDC-IDRI-0002",
    "LIDC 3": "lidc_idri_partial/LIDC-IDRI-0003",
}


def ours_and_files(folder, into):
    """Our volume, and a folder with the files of its series and no others."""
    (series,) = group_series(find_dicom(folder).slices)
    into.mkdir()
    for n, item in enumerate(series.slices):
        (into / f"{n:04d}.dcm").symlink_to(item.path)
    return read_series(series).volume, into


@pytest.fixture(params=[*SERIES, "pydicom CT5N"])
def series(request, tmp_path):
    if request.param.startswith("pydicom"):
        return ours_and_files(PYDICOM / "dicomdirtests" / "98892001" / "CT5N", tmp_path / "files")
    shared_data = request.getfixturevalue("shared_data")
    return ours_and_files(shared_data / SERIES[request.param], tmp_path / "files")


def assert_same_in_space(ours, values, affine):
    """`values[i, j, k]` lies at `affine @ (i, j, k, 1)` in LPS; air is compared as we keep it."""
    direction = np.array(ours.GetDirection()).reshape(3, 3) * np.array(ours.GetSpacing())
    turn = np.linalg.inv(direction) @ affine[:3, :3]  # from their voxels to ours
    start = np.linalg.solve(direction, affine[:3, 3] - np.array(ours.GetOrigin()))
    signs, corner = np.rint(np.diag(turn)), np.array(values.shape) - 1
    assert np.abs((turn - np.diag(signs)) @ corner).max() < 0.02, "another place at the far corner"
    assert np.abs(start - np.where(signs < 0, corner, 0)).max() < 0.02, "another place at the origin"
    flipped = values[tuple(slice(None, None, int(sign)) for sign in signs)]
    assert np.array_equal(sitk.GetArrayFromImage(ours).T, np.maximum(flipped, -1024))


def test_simpleitk_sees_the_same_voxels_at_the_same_places(series):
    ours, files = series
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(files)))
    theirs = reader.Execute()
    affine = np.eye(4)
    affine[:3, :3] = np.array(theirs.GetDirection()).reshape(3, 3) * np.array(theirs.GetSpacing())
    affine[:3, 3] = theirs.GetOrigin()
    assert_same_in_space(ours, sitk.GetArrayFromImage(theirs).transpose(2, 1, 0), affine)


def test_dcm2niix_sees_the_same_voxels_at_the_same_places(series, tmp_path):
    ours, files = series
    (tmp_path / "nii").mkdir()
    subprocess.run(
        [dcm2niix.bin, "-z", "n", "-b", "n", "-o", str(tmp_path / "nii"), str(files)],
        check=True,
        capture_output=True,
    )
    (path,) = (tmp_path / "nii").glob("*.nii")
    theirs = nibabel.load(path)
    lps_of_ras = np.diag([-1.0, -1.0, 1.0, 1.0])
    assert_same_in_space(ours, np.asarray(theirs.dataobj).astype(int), lps_of_ras @ theirs.affine)


@pytest.mark.parametrize("name", ["CT_small.dcm", "693_J2KI.dcm", "J2K_pixelrep_mismatch.dcm"])
def test_single_slices_of_pydicom_have_the_hu_that_pydicom_reads(name, tmp_path):
    (tmp_path / name).symlink_to(PYDICOM / name)
    (item,) = find_dicom(tmp_path).slices
    (stored,) = stored_numbers([item])
    hu = np.empty(stored.shape, np.int16)
    convert_to_hu(stored, item.pixels, HuCounts(), hu)
    dataset = dcmread(PYDICOM / name)
    theirs = np.asarray(apply_rescale(dataset.pixel_array, dataset))
    padded = dataset.pixel_array == dataset.get("PixelPaddingValue", None)
    assert np.array_equal(hu[~padded], np.maximum(theirs, -1024)[~padded])
    assert (hu[padded] <= -1000).all()
