"""Signs of a lesion, against shapes and numbers worked out by hand."""

from math import isfinite, isnan, pi
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from radiogen.errors import VolumeError
from radiogen.features.signs import distance_to_pleura_mm, signs, skewness

SPACING = (0.8, 1.1, 2.5)
LUNG_SIGNS = ("shape_distance_to_pleura_mm", "shape_is_right", "intensity_lungs_laa950")


def volume_of(
    array: np.ndarray, dtype: type = np.uint8, spacing: tuple[float, float, float] = SPACING
) -> sitk.Image:
    volume = sitk.GetImageFromArray(array.astype(dtype))
    volume.SetSpacing(spacing)
    volume.SetOrigin((-12.0, 7.5, -900.0))
    return volume


def ball(radius_mm: float, spacing: tuple[float, float, float]) -> sitk.Image:
    half = [int(radius_mm / step) + 3 for step in spacing]
    x, y, z = (np.arange(-n, n + 1) * step for n, step in zip(half, spacing, strict=True))
    return volume_of(z[:, None, None] ** 2 + y[:, None] ** 2 + x**2 <= radius_mm**2, np.uint8, spacing)


def flat_ct(mask: sitk.Image, hu: float = 30) -> sitk.Image:
    return sitk.Cast(mask, sitk.sitkInt16) * 0 + hu


@pytest.fixture
def chest() -> tuple[sitk.Image, sitk.Image, sitk.Image]:
    """CT, a lesion two voxels from the front edge of the right lung, and both lungs."""
    lungs = np.zeros((7, 12, 20))
    lungs[1:6, 2:11, 1:9] = 1
    lungs[1:6, 2:11, 11:19] = 2
    lesion = np.zeros_like(lungs)
    lesion[3, 4:6, 4:6] = 1
    hu = np.where(lungs > 0, -850, 40)
    hu[1, 2:11, 1:9] = -960
    hu[lesion > 0] = -960
    return volume_of(hu, np.int16), volume_of(lesion), volume_of(lungs)


def test_a_ball_has_the_form_of_a_ball() -> None:
    mask = ball(12.0, (0.8, 0.9, 1.5))
    found = signs(flat_ct(mask), mask, None)
    assert found["shape_volume_ml"] == pytest.approx(4 / 3 * pi * 1.2**3, rel=0.02)
    assert found["shape_surface_cm2"] == pytest.approx(4 * pi * 1.2**2, rel=0.03)
    assert found["shape_sphericity"] == pytest.approx(1.0, abs=0.03)
    assert found["shape_elongation"] == pytest.approx(1.0, abs=0.02)
    assert found["shape_flatness"] == pytest.approx(1.0, abs=0.02)
    assert found["shape_longest_diameter_mm"] == pytest.approx(24.0, abs=1.6)


def test_a_box_has_the_ratios_of_its_edges() -> None:
    array = np.zeros((8, 9, 14))
    array[2:4, 1:7, 2:12] = 1  # 8.0 x 6.6 x 5.0 mm
    mask = volume_of(array)
    found = signs(flat_ct(mask), mask, None)
    assert found["shape_elongation"] == pytest.approx(6.6 / 8.0)
    assert found["shape_flatness"] == pytest.approx(5.0 / 8.0)
    assert found["shape_volume_ml"] == pytest.approx(8.0 * 6.6 * 5.0 / 1000)


def test_densities_are_those_of_the_voxels_of_the_lesion() -> None:
    hu = np.full((3, 4, 6), 3000)
    hu[1, 1, 1:5] = (-800, -750, -300, 50)
    mask = volume_of(hu < 3000)
    found = signs(volume_of(hu, np.int16), mask, None)
    assert found["intensity_mean_hu"] == -450
    assert found["intensity_std_hu"] == pytest.approx(np.sqrt((350**2 + 300**2 + 150**2 + 500**2) / 4))
    assert found["intensity_p50_hu"] == -525
    assert found["intensity_ground_glass_share"] == 0.5
    assert found["intensity_solid_share"] == 0.25
    assert found["intensity_entropy_bits"] == 2.0


def test_the_gradient_is_in_hu_a_millimetre() -> None:
    x = np.broadcast_to(np.arange(9) * 8, (5, 6, 9))  # 8 HU a voxel of 0.8 mm
    lesion = np.zeros(x.shape)
    lesion[2, 2:4, 3:6] = 1
    found = signs(volume_of(x, np.int16), volume_of(lesion), None)
    assert found["intensity_gradient_mean"] == pytest.approx(10.0, rel=1e-5)


def test_skewness_of_the_ibsi_phantom_values() -> None:
    counts = {1: 50, 3: 1, 4: 16, 6: 7}  # the digital phantom of IBSI: mean 2.15, skewness 1.08
    values = np.repeat(list(counts), list(counts.values())).astype(float)
    assert values.mean() == pytest.approx(2.15, abs=0.005)
    assert skewness(values) == pytest.approx(1.08, abs=0.005)


def test_one_voxel_at_the_corner_of_a_scan_has_every_sign_but_those_of_the_lungs() -> None:
    array = np.zeros((3, 4, 5))
    array[0, 0, 0] = 1
    found = signs(flat_ct(volume_of(array)), volume_of(array), None)
    assert [name for name, value in found.items() if not isfinite(value)] == list(LUNG_SIGNS)


def test_a_scan_of_one_voxel_can_be_measured() -> None:
    mask = volume_of(np.ones((1, 1, 1)))
    found = signs(flat_ct(mask), mask, mask)
    assert all(isfinite(value) for name, value in found.items() if name not in LUNG_SIGNS)


def test_the_names_do_not_depend_on_the_lungs(chest: tuple[sitk.Image, ...]) -> None:
    ct, lesion, lungs = chest
    with_lungs = signs(ct, lesion, lungs)
    assert list(with_lungs) == list(signs(ct, lesion, None)) == list(signs(ct, lesion, lungs * 0))
    assert all(isfinite(value) for value in with_lungs.values())
    assert all(name.startswith(("shape_", "intensity_")) for name in with_lungs)


def test_the_lesion_is_as_far_from_the_pleura_as_the_faces_are_apart(
    chest: tuple[sitk.Image, ...],
) -> None:
    _, lesion, lungs = chest
    assert distance_to_pleura_mm(lesion, lungs) == pytest.approx(2 * 1.1)


def test_a_lesion_that_touches_the_chest_wall_is_at_distance_0(chest: tuple[sitk.Image, ...]) -> None:
    _, lesion, lungs = chest
    lesion[4, 2, 3] = 1
    assert distance_to_pleura_mm(lesion, lungs) == 0.0


def test_a_pleura_far_away_is_found() -> None:
    array = np.ones((3, 80, 90))
    lungs, lesion = array.copy(), np.zeros_like(array)
    lungs[:, :, 85:] = 0
    lesion[1, 40, 5] = 1
    assert distance_to_pleura_mm(volume_of(lesion), volume_of(lungs)) == pytest.approx(79 * 0.8)


def test_where_no_pleura_is_on_the_scan_the_distance_is_not_known() -> None:
    array = np.zeros((3, 4, 5))
    array[1, 2, 2] = 1
    assert isnan(distance_to_pleura_mm(volume_of(array), volume_of(np.ones_like(array))))


@pytest.mark.parametrize(("column", "is_right"), [(4, 1.0), (14, 0.0)])
@pytest.mark.parametrize("orientation", ["LPS", "RAI", "SLP"])
def test_the_side_is_that_of_the_patient(
    chest: tuple[sitk.Image, ...], column: int, is_right: float, orientation: str
) -> None:
    ct, lesion, lungs = chest
    lesion = lesion * 0
    lesion[column, 5, 3] = 1
    stored = [sitk.DICOMOrient(volume, orientation) for volume in (ct, lesion, lungs)]
    assert signs(*stored)["shape_is_right"] == is_right


def test_the_side_is_not_known_with_one_lung(chest: tuple[sitk.Image, ...]) -> None:
    ct, lesion, lungs = chest
    assert isnan(signs(ct, lesion, sitk.Cast(lungs == 1, sitk.sitkUInt8))["shape_is_right"])


def test_emphysema_is_the_share_of_lung_below_950_without_the_lesion(
    chest: tuple[sitk.Image, ...],
) -> None:
    found = signs(*chest)
    assert found["intensity_lungs_laa950"] == pytest.approx(72 / (720 - 4))


def test_signs_do_not_depend_on_the_order_in_which_voxels_are_stored(chest: tuple[sitk.Image, ...]) -> None:
    plain, turned = signs(*chest), signs(*(sitk.DICOMOrient(volume, "SRA") for volume in chest))
    assert turned == pytest.approx(plain)


def test_an_empty_lesion_is_refused(chest: tuple[sitk.Image, ...]) -> None:
    ct, lesion, lungs = chest
    with pytest.raises(VolumeError, match="lesion mask: is empty"):
        signs(ct, lesion * 0, lungs)


def test_a_mask_on_another_grid_is_refused(chest: tuple[sitk.Image, ...]) -> None:
    ct, lesion, lungs = chest
    lungs.SetSpacing((1.0, 1.0, 1.0))
    with pytest.raises(VolumeError, match="lung mask: does not lie on the grid"):
        signs(ct, lesion, lungs)


def test_a_real_lesion_has_plausible_signs(shared_data: Path) -> None:
    folder = shared_data / "pyradiomics_lung1"
    ct = sitk.ReadImage(str(folder / "lung1_image.nrrd"))
    lesion = sitk.ReadImage(str(folder / "lung1_label.nrrd")) != 0
    found = signs(ct, sitk.Cast(lesion, sitk.sitkUInt8), None)
    assert 0.8 < found["shape_sphericity"] < 1.05  # three slices of 5 mm
    assert -200 < found["intensity_p50_hu"] < 100
