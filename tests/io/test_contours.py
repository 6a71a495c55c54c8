from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given
from hypothesis import strategies as st

from radiogen.errors import OutlineError
from radiogen.io.contours import fill_contours
from radiogen.io.polygons import polygon_area

SOURCE = Path("plan.dcm")


def rectangle(x0, y0, x1, y1):
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], dtype=float)


def ct(size=(11, 7, 5), spacing=(0.75, 1.25, 2.5), origin=(-20.0, 10.0, -100.0)):
    volume = sitk.Image(size, sitk.sitkInt16)
    volume.SetSpacing(spacing)
    volume.SetOrigin(origin)
    return volume


def in_mm(volume, corners, k):
    return np.array([volume.TransformContinuousIndexToPhysicalPoint((x, y, k)) for x, y in corners])


def lay(heights, volume=None, box=(1.5, 1.5, 4.5, 3.5)):
    """A rectangle at each height (in slices): what was laid, and the slices it fills."""
    volume = volume or ct()
    laid = fill_contours([in_mm(volume, rectangle(*box), k) for k in heights], volume, SOURCE)
    return laid, np.flatnonzero(laid.inside.any(axis=(1, 2))).tolist()


def test_a_contour_between_two_slices_goes_to_the_nearer_one_and_that_is_said():
    laid, slices = lay([2.4])
    assert slices == [2]
    assert laid.inside.sum() == 3 * 2
    assert laid.decisions == (
        "contours lie up to 1.00 mm off the slices: each slice takes the nearest plane",
    )


@pytest.mark.parametrize("k", [-0.5, -0.499, 0.5, 4.499])
def test_no_contour_within_the_ct_is_lost_between_slices(k):
    assert len(lay([k])[1]) == 1


def test_of_two_planes_on_one_slice_the_nearer_counts():
    volume = ct()
    near = in_mm(volume, rectangle(1.5, 1.5, 4.5, 3.5), 2.1)
    far = in_mm(volume, rectangle(1.5, 1.5, 6.5, 5.5), 2.4)
    laid = fill_contours([far, near], volume, SOURCE)
    assert laid.inside.sum() == 3 * 2
    assert "1 planes of contours left out: their slice has a nearer one" in laid.decisions


def test_a_missing_plane_stays_empty_and_its_place_is_said():
    laid, slices = lay([0, 1, 3, 4])
    assert slices == [0, 1, 3, 4]
    assert laid.decisions == ("1 slices between the contours have none and stay empty (z -95.0 mm)",)


def test_two_lonely_planes_do_not_fill_what_lies_between_them():
    assert lay([0, 3])[1] == [0, 3]


def test_contours_on_every_second_slice_stand_for_the_slices_between():
    laid, slices = lay([2, 4, 6], ct((11, 7, 9)))
    assert slices == [1, 2, 3, 4, 5, 6]  # three slabs of two slices
    assert laid.decisions == (
        "contours every 5.00 mm on slices every 2.50 mm: each slice takes the nearest plane",
    )


def test_contours_finer_than_the_slices_fill_no_more_than_they_are_thick():
    laid, slices = lay([k / 4 for k in range(4, 21)], ct((11, 7, 9)))
    assert slices == [1, 2, 3, 4, 5]
    assert "contours every 0.62 mm" in laid.decisions[0]


@given(
    every=st.floats(0.3, 3.5),
    start=st.floats(3.0, 4.0),
    planes=st.integers(3, 20),
    slice_mm=st.floats(0.8, 2.8),
)
def test_the_filled_thickness_is_that_of_the_slabs_whatever_the_spacings(every, start, planes, slice_mm):
    volume = ct((6, 5, 90), (1.0, 1.0, slice_mm))
    heights = start + every * np.arange(planes)
    if round(every * slice_mm, 1) != round(np.diff(np.round(heights * slice_mm, 6)).mean(), 1):
        return
    _, slices = lay(heights, volume)
    assert abs(len(slices) - every * planes) <= 1 + 0.1 * planes / slice_mm
    assert slices == list(range(slices[0], slices[-1] + 1))


def test_a_contour_in_another_is_a_hole_and_one_in_the_hole_an_island():
    volume = ct()
    boxes = [(0.5, 0.5, 9.5, 5.5), (2.5, 1.5, 7.5, 4.5), (3.5, 2.5, 5.5, 3.5)]
    laid = fill_contours([in_mm(volume, rectangle(*box), 2) for box in boxes], volume, SOURCE)
    assert laid.inside.sum() == 9 * 5 - 5 * 3 + 2 * 1
    assert laid.polygon_ml == pytest.approx((9 * 5 - 5 * 3 + 2) * 0.75 * 1.25 * 2.5 / 1000)
    assert laid.decisions == ()


def test_a_contour_that_is_there_twice_counts_once():
    volume = ct()
    corners = in_mm(volume, rectangle(1.5, 1.5, 4.5, 3.5), 2)
    laid = fill_contours([corners, corners, np.roll(corners, 1, axis=0)], volume, SOURCE)
    assert laid.inside.sum() == 3 * 2
    assert laid.decisions == ("2 contours are there twice and count once",)


def test_contours_that_cross_are_said():
    volume = ct()
    crossing = [in_mm(volume, rectangle(*box), 2) for box in ((0.5, 0.5, 4.5, 4.5), (2.5, 2.5, 7.5, 5.5))]
    laid = fill_contours(crossing, volume, SOURCE)
    assert laid.inside.sum() == 16 + 15 - 2 * 4
    assert "cross another" in laid.decisions[0]


def test_a_contour_smaller_than_a_voxel_is_said():
    volume = ct()
    tiny, large = (in_mm(volume, rectangle(*box), 2) for box in ((6.1, 4.1, 6.4, 4.4), (1.5, 1.5, 4.5, 3.5)))
    laid = fill_contours([tiny, large], volume, SOURCE)
    assert laid.inside.sum() == 3 * 2
    assert laid.decisions == ("1 contours are too small to enclose the centre of a voxel",)


@given(st.integers(0, 2**32 - 1), st.floats(0.5, 2.0), st.floats(0.5, 2.0), st.integers(1, 8))
def test_voxels_and_polygons_have_the_same_volume_to_the_length_of_the_outlines(seed, x_mm, y_mm, planes):
    volume = ct((200, 200, 10), (x_mm, y_mm, 3.0))
    rng = np.random.default_rng(seed)
    angles = np.sort(rng.uniform(0, 2 * np.pi, 24))
    rings, outlines = [], 0.0
    for k in range(planes):
        radii = rng.uniform(2, 90, 24)
        corners = 99 + np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)
        rings.append(in_mm(volume, corners, k))
        outlines += max(1.0, np.linalg.norm(corners - np.roll(corners, -1, axis=0), axis=1).sum())
    laid = fill_contours(rings, volume, SOURCE)
    voxel_ml = x_mm * y_mm * 3.0 / 1000
    polygons_ml = sum(polygon_area(ring[:, :2]) for ring in rings) * 3.0 / 1000
    assert laid.polygon_ml == pytest.approx(polygons_ml)
    assert abs(laid.inside.sum() * voxel_ml - polygons_ml) < outlines * voxel_ml


def test_many_contours_of_one_plane_are_combined_too():
    volume = ct((200, 7, 5))
    boxes = [in_mm(volume, rectangle(k + 0.5, 0.5, k + 1.5, 2.5), 1) for k in range(150)]
    laid = fill_contours(boxes, volume, SOURCE)
    assert laid.inside.sum() == 300
    assert laid.polygon_ml == pytest.approx(300 * 0.75 * 1.25 * 2.5 / 1000)


DIRECTIONS = {
    "turned": (0, 0, 1, 1, 0, 0, 0, 1, 0),
    "flipped": (-1, 0, 0, 0, -1, 0, 0, 0, 1),
    "oblique": tuple(sitk.VersorTransform((0.3, 0.5, 0.2), 0.4).GetMatrix()),
}


@pytest.mark.parametrize("direction", DIRECTIONS.values(), ids=list(DIRECTIONS))
def test_a_contour_follows_a_volume_that_is_turned(direction):
    volume = ct()
    volume.SetDirection(direction)
    laid, _ = lay([3], volume)
    assert np.argwhere(laid.inside).tolist() == [[3, y, x] for y in (2, 3) for x in (2, 3, 4)]


@pytest.mark.parametrize(("k", "distance"), [(4.9, "1.0 mm"), (-20, "48.8 mm")])
def test_a_contour_beyond_the_last_slice_is_refused_with_the_distance(k, distance):
    with pytest.raises(OutlineError, match=f"plan.dcm: lies outside the CT by {distance}"):
        lay([k])


def test_a_contour_beside_the_image_is_refused_with_the_distance():
    with pytest.raises(OutlineError, match=r"by 7\.1 mm"):
        lay([1], box=(15, 1, 20, 3))


def test_a_contour_across_the_slices_is_refused():
    volume = ct()
    corners = np.array(
        [volume.TransformContinuousIndexToPhysicalPoint(p) for p in ((1, 1, 1), (4, 1, 1), (4, 1, 3))]
    )
    with pytest.raises(OutlineError, match="not parallel"):
        fill_contours([corners], volume, SOURCE)


def test_contours_that_nobody_draws_are_refused_before_they_are_filled():
    volume = ct((512, 512, 3), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    zigzag = np.tile([[0.0, 0.0, 0.0], [0.0, 511.0, 0.0]], (100_000, 1))
    with pytest.raises(OutlineError, match="longer than anybody draws"):
        fill_contours([zigzag], volume, SOURCE)
