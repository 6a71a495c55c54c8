import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given
from hypothesis import strategies as st

from radiogen.errors import VolumeError
from radiogen.volume import (
    AIR_HU,
    Box,
    array_of,
    bounding_box,
    corners_mm,
    crop,
    grid_over,
    grid_with_spacing,
    resample_to,
    same_grid,
    volume_like,
    voxel_ml,
)

SIZE = (9, 8, 7)  # x, y, z
SPACING = (0.7, 0.8, 1.5)


def tilted(degrees: float = 25.0, about: tuple[float, float, float] = (0.3, 0.5, 0.8)) -> sitk.Image:
    """A volume on an oblique grid whose value at each voxel is a linear function of its millimetres."""
    rotation = sitk.VersorTransform(tuple(np.array(about) / np.linalg.norm(about)), np.radians(degrees))
    volume = sitk.Image(SIZE, sitk.sitkFloat32)
    volume.SetSpacing(SPACING)
    volume.SetOrigin((-31.0, 12.5, 104.0))
    volume.SetDirection(rotation.GetMatrix())
    return volume_like(ramp_at(volume), volume)


def ramp_at(grid: sitk.Image) -> np.ndarray:
    """x + 2 y - 3 z (mm) at every voxel of a grid, shape (z, y, x)."""
    x, y, z = grid.GetSize()
    place = [
        grid.TransformIndexToPhysicalPoint((i, j, k)) for k in range(z) for j in range(y) for i in range(x)
    ]
    return (np.array(place) @ (1.0, 2.0, -3.0)).reshape(z, y, x).astype(np.float32)


@given(start=st.tuples(*[st.integers(0, n - 1) for n in SIZE]), data=st.data())
def test_cropping_an_oblique_volume_leaves_every_voxel_at_its_millimetre(start, data):
    size = data.draw(st.tuples(*[st.integers(1, n - s) for n, s in zip(SIZE, start, strict=True)]))
    volume, box = tilted(), Box(start, size)
    piece = crop(volume, box)
    np.testing.assert_allclose(array_of(piece), ramp_at(piece), atol=1e-3)
    np.testing.assert_array_equal(array_of(piece), array_of(volume)[box.array_slices()])


@given(degrees=st.floats(-80, 80), spacing=st.tuples(*[st.floats(0.4, 2.5)] * 3))
def test_resampling_an_oblique_volume_keeps_every_value_at_its_millimetre(degrees, spacing):
    volume = tilted(degrees)
    finer = resample_to(volume, grid_with_spacing(volume, spacing), outside=1e6)
    array, truth = array_of(finer), ramp_at(finer)
    inside = array < 1e5
    # ITK clamps to the nearest voxel within half a voxel of the edge; judge what lies further in.
    index = np.array(
        [
            volume.TransformPhysicalPointToContinuousIndex(finer.TransformIndexToPhysicalPoint((i, j, k)))
            for k, j, i in np.ndindex(array.shape)
        ]
    ).reshape(*array.shape, 3)
    within = ((index >= 0) & (index <= np.array(SIZE) - 1)).all(axis=-1)
    assert within.any() and inside[within].all()
    np.testing.assert_allclose(array[within], truth[within], atol=2e-3)


@given(spacing=st.tuples(*[st.floats(0.3, 3)] * 3))
def test_a_new_spacing_covers_the_old_extent_to_within_one_voxel(spacing):
    volume = tilted()
    grid = grid_with_spacing(volume, spacing)
    extent, old = np.array(grid.GetSize()) * spacing, np.array(SIZE) * SPACING
    assert (extent >= old - 1e-4).all() and (extent < old + spacing).all()
    np.testing.assert_allclose(outer_corner_mm(grid), outer_corner_mm(volume), atol=1e-6)


def outer_corner_mm(volume: sitk.Image) -> tuple[float, ...]:
    """The corner of the first voxel, half a voxel before its centre."""
    return volume.TransformContinuousIndexToPhysicalPoint((-0.5, -0.5, -0.5))


def test_a_grid_over_a_volume_has_the_size_and_spacing_asked_for():
    grid = grid_over(tilted(), (4, 5, 6), (2.0, 1.0, 0.5))
    assert grid.GetSize() == (4, 5, 6)
    assert grid.GetSpacing() == (2.0, 1.0, 0.5)
    assert grid.GetDirection() == tilted().GetDirection()


def test_what_lies_outside_gets_the_value_for_outside():
    volume = tilted()
    far = sitk.Image(volume)
    far.SetOrigin((900.0, 900.0, 900.0))
    assert (array_of(resample_to(volume, far, outside=AIR_HU)) == AIR_HU).all()


def test_a_mask_stays_a_mask_when_it_is_resampled():
    mask = sitk.Cast(tilted() > -400, sitk.sitkUInt8) * 3
    coarse = resample_to(mask, grid_with_spacing(mask, (1.1, 1.3, 0.9)), outside=0, nearest=True)
    assert coarse.GetPixelID() == sitk.sitkUInt8
    assert set(np.unique(array_of(coarse))) <= {0, 3}


def test_an_array_laid_on_a_grid_comes_back_and_lies_where_the_grid_lies():
    array = np.arange(np.prod(SIZE), dtype=np.int16).reshape(SIZE[::-1])
    volume = volume_like(array, tilted())
    np.testing.assert_array_equal(array_of(volume), array)
    assert volume[2, 3, 4] == array[4, 3, 2]
    assert same_grid(volume, tilted())


def test_an_array_in_the_order_x_y_z_is_refused():
    with pytest.raises(VolumeError, match=r"\(z, y, x\)"):
        volume_like(np.zeros(SIZE), tilted())


def test_the_voxels_of_a_volume_are_a_copy():
    volume = tilted()
    array_of(volume)[:] = 0
    np.testing.assert_allclose(array_of(volume), ramp_at(volume))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_grid_moved_or_turned_or_cut_is_another_grid(axis):
    volume = tilted()
    moved, cut = sitk.Image(volume), list(SIZE)
    moved.SetOrigin(tuple(np.array(volume.GetOrigin()) + 0.05 * np.eye(3)[axis]))
    cut[axis] -= 1
    assert same_grid(volume, sitk.Image(volume))
    assert not same_grid(volume, moved)
    assert not same_grid(volume, crop(volume, Box((0, 0, 0), tuple(cut))))
    assert not same_grid(volume, tilted(degrees=26))


def test_the_corners_are_those_of_the_first_and_the_last_voxel():
    volume = tilted()
    corners = corners_mm(volume)
    assert corners.shape == (8, 3)
    np.testing.assert_allclose(corners[0], volume.GetOrigin())
    np.testing.assert_allclose(corners[-1], volume.TransformIndexToPhysicalPoint((8, 7, 6)))


def test_a_voxel_of_one_by_two_by_five_millimetres_is_a_hundredth_of_a_millilitre():
    volume = sitk.Image(SIZE, sitk.sitkUInt8)
    volume.SetSpacing((1, 2, 5))
    assert voxel_ml(volume) == pytest.approx(0.01)


def test_the_box_round_a_mask_holds_it_and_no_plane_more():
    array = np.zeros(SIZE[::-1], np.uint8)
    array[2:5, 1:3, 4:8] = 1
    assert bounding_box(volume_like(array, tilted())) == Box(start=(4, 1, 2), size=(4, 2, 3))


def test_a_margin_in_millimetres_is_rounded_up_to_voxels_and_cut_at_the_edge():
    array = np.zeros(SIZE[::-1], np.uint8)
    array[3, 4, 4] = 1
    assert bounding_box(volume_like(array, tilted()), margin_mm=0.8) == Box((2, 3, 2), (5, 3, 3))
    assert bounding_box(volume_like(array, tilted()), margin_mm=500) == Box((0, 0, 0), SIZE)


def test_an_empty_mask_has_no_box():
    assert bounding_box(sitk.Image(SIZE, sitk.sitkUInt8)) is None
