"""PyRadiomics behind its door, against the published values of the IBSI-1 phantom."""

import sys

import numpy as np
import pytest
import SimpleITK as sitk

from radiogen.errors import ConfigError, MissingPackageError
from radiogen.features.radiomics import Radiomics
from radiogen.features.signs import signs
from radiogen.volume import array_of

# Reference values and tolerances of configuration A (no interpolation, re-segmented to -500..400 HU): Image
# biomarker standardisation initiative, reference manual (arXiv:1612.07003), chapter 3. IBSI's kurtosis
# is the excess over 3. Feature -> value, tolerance.
CONFIG_A = {
    "shape_VoxelVolume": (3.59e5, 5e3),
    "shape_SurfaceArea": (3.57e4, 300),
    "shape_SurfaceVolumeRatio": (0.0996, 0.0005),
    "shape_Sphericity": (0.683, 0.001),
    "shape_Maximum3DDiameter": (125, 1),
    "shape_MajorAxisLength": (92.7, 0.4),
    "shape_MinorAxisLength": (81.5, 0.4),
    "shape_LeastAxisLength": (70.1, 0.3),
    "shape_Elongation": (0.879, 0.001),
    "shape_Flatness": (0.756, 0.001),
    "firstorder_Mean": (13.4, 1.1),
    "firstorder_Variance": (1.42e4, 400),
    "firstorder_Skewness": (-2.47, 0.05),
    "firstorder_Kurtosis": (5.96 + 3, 0.24),
    "firstorder_Median": (46, 0.3),
    "firstorder_Minimum": (-500, 0),
    "firstorder_10Percentile": (-129, 8),
    "firstorder_90Percentile": (95, 0),
    "firstorder_Maximum": (377, 9),
    "firstorder_InterquartileRange": (56, 0.5),
    "firstorder_Range": (877, 9),
    "firstorder_MeanAbsoluteDeviation": (73.6, 1.4),
}
OURS = {
    "intensity_mean_hu": "firstorder_Mean",
    "intensity_skewness": "firstorder_Skewness",
    "intensity_p10_hu": "firstorder_10Percentile",
    "intensity_p50_hu": "firstorder_Median",
    "intensity_p90_hu": "firstorder_90Percentile",
}


@pytest.fixture(scope="module")
def ibsi(shared_data):
    folder = shared_data / "ibsi_ct_phantom" / "nifti"
    ct = sitk.ReadImage(str(folder / "image" / "phantom.nii.gz"))
    return ct, sitk.ReadImage(str(folder / "mask" / "mask.nii.gz"))


def test_the_initial_image_has_the_published_mean(ibsi):
    assert round(float(array_of(ibsi[0]).mean())) == -266


def test_the_published_values_of_the_phantom_are_met(ibsi, tmp_path):
    pytest.importorskip("radiomics")
    parameters = tmp_path / "a.yaml"
    parameters.write_text(
        "setting: {binWidth: 25, resegmentRange: [-500, 400]}\nimageType: {Original: {}}\n"
        "featureClass: {shape: [], firstorder: []}\n"
    )
    found = Radiomics(parameters).measure(*ibsi)
    for name, (value, tolerance) in CONFIG_A.items():
        digits = 0.005 * abs(value) if tolerance == 0 else tolerance
        assert found[f"original_{name}"] == pytest.approx(value, abs=digits), name


def test_our_own_signs_meet_them_too(ibsi):
    ct, mask = ibsi
    ct = sitk.Cast(ct, sitk.sitkInt16)
    kept = sitk.And(sitk.Cast(mask, sitk.sitkUInt8), sitk.BinaryThreshold(ct, -500, 400, 1, 0))
    kept.CopyInformation(ct)
    found = signs(ct, kept, None)
    for ours, name in OURS.items():
        assert found[ours] == pytest.approx(CONFIG_A[name][0], abs=CONFIG_A[name][1] or 0.5), ours
    assert found["intensity_std_hu"] ** 2 == pytest.approx(*[CONFIG_A["firstorder_Variance"][0]], abs=400)


def small(voxels):
    array = np.zeros((12, 12, 12), np.uint8)
    array.flat[800 : 800 + voxels] = 1
    mask = sitk.GetImageFromArray(array)
    return sitk.Cast(mask, sitk.sitkInt16) * 30 - 800, mask


def test_the_names_and_settings_are_those_of_the_package():
    pytest.importorskip("radiomics")
    found = Radiomics()
    values = found.measure(*small(200))
    assert {"original_firstorder_Mean", "original_glcm_JointEnergy", "original_shape_Sphericity"} <= set(
        values
    )
    assert values["original_firstorder_Mean"] == -770 and not any("diagnostics" in name for name in values)
    about = found.about()
    assert about["settings"]["binWidth"] == 25 and about["version"] == "3.1.4"


def test_a_lesion_of_one_voxel_has_no_radiomics_rather_than_zeros():
    pytest.importorskip("radiomics")
    assert Radiomics().measure(*small(1)) == {}


def test_a_file_that_is_no_parameter_file_is_refused(tmp_path):
    pytest.importorskip("radiomics")
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("setting: {binWidth: wide}\n")
    with pytest.raises(ConfigError, match=r"wrong\.yaml: are no parameters"):
        Radiomics(wrong)


def test_without_the_package_the_way_to_it_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "radiomics", None)
    with pytest.raises(MissingPackageError, match=r"radiogen\[radiomics\]"):
        Radiomics()
