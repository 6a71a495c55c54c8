from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given
from hypothesis import strategies as st

from radiogen.errors import OutlineError
from radiogen.io.contours import fill_polygons, indices_of, lay_contours

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


def test_pixels_count_whose_centre_lies_inside():
    filled = fill_polygons([rectangle(1.4, 0.6, 4.2, 2.1)], (7, 4))
    assert np.argwhere(filled).tolist() == [[y, x] for y in (1, 2) for x in (2, 3, 4)]


def test_a_polygon_within_another_is_a_hole():
    filled = fill_polygons([rectangle(0.5, 0.5, 6.5, 5.5), rectangle(2.5, 1.5, 4.5, 3.5)], (9, 8))
    assert filled.sum() == 6 * 5 - 2 * 2
    assert not filled[2:4, 3:5].any()


def test_a_keyhole_polygon_leaves_its_hole_empty():
    outer, inner = rectangle(0.5, 0.5, 6.5, 5.5), rectangle(2.5, 1.5, 4.5, 3.5)[::-1]
    keyhole = np.vstack([outer, outer[:1], inner, inner[:1]])
    assert np.array_equal(fill_polygons([keyhole], (9, 8)), fill_polygons([outer, inner], (9, 8)))


@given(st.floats(0.5, 5.5), st.floats(0.5, 5.5), st.floats(0.5, 5.5), st.floats(0.5, 5.5))
def test_polygons_that_share_an_edge_share_no_pixel_and_leave_none_between(a, b, c, d):
    left = np.array([[-0.5, -0.5], [a, -0.5], [b, 2.0], [c, 4.0], [d, 6.5], [-0.5, 6.5]])
    right = np.array([[6.5, -0.5], [a, -0.5], [b, 2.0], [c, 4.0], [d, 6.5], [6.5, 6.5]])
    one, other = (fill_polygons([polygon], (7, 7)) for polygon in (left, right))
    assert not (one & other).any()
    assert (one | other).all()


@given(st.integers(0, 360), st.floats(4, 9), st.floats(6, 11))
def test_the_filled_area_agrees_with_that_of_the_polygon(degrees, small, large):
    angles = np.radians(np.arange(0, 360, 5))
    turn = np.radians(degrees)
    ring = np.stack([large * np.cos(angles), small * np.sin(angles)])
    turned = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) @ ring
    filled = fill_polygons([turned.T * 4 + 50], (101, 101))
    x, y = turned
    area = abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2
    assert filled.sum() / 16 == pytest.approx(area, rel=0.02)


def test_a_contour_between_two_slices_goes_to_the_nearer_one():
    volume = ct()
    inside = lay_contours([in_mm(volume, rectangle(1.5, 1.5, 4.5, 3.5), 2.4)], volume, SOURCE)
    assert np.flatnonzero(inside.any(axis=(1, 2))).tolist() == [2]
    assert inside.sum() == 3 * 2


def test_of_two_planes_on_one_slice_the_nearer_counts():
    volume = ct()
    near = in_mm(volume, rectangle(1.5, 1.5, 4.5, 3.5), 2.1)
    far = in_mm(volume, rectangle(1.5, 1.5, 6.5, 5.5), 2.4)
    assert lay_contours([far, near], volume, SOURCE).sum() == 3 * 2


def test_a_contour_follows_a_volume_that_is_turned():
    volume = ct()
    volume.SetDirection((0, 0, 1, 1, 0, 0, 0, 1, 0))
    inside = lay_contours([in_mm(volume, rectangle(1.5, 1.5, 4.5, 3.5), 3)], volume, SOURCE)
    assert np.argwhere(inside).tolist() == [[3, y, x] for y in (2, 3) for x in (2, 3, 4)]


@pytest.mark.parametrize(("k", "distance"), [(4.9, "1.0 mm"), (-20, "48.8 mm")])
def test_a_contour_beyond_the_last_slice_is_refused_with_the_distance(k, distance):
    volume = ct()
    with pytest.raises(OutlineError, match=f"plan.dcm: lies outside the CT by {distance}"):
        lay_contours([in_mm(volume, rectangle(1, 1, 4, 3), k)], volume, SOURCE)


def test_a_contour_beside_the_image_is_refused_with_the_distance():
    volume = ct()
    with pytest.raises(OutlineError, match=r"by 7\.1 mm"):
        lay_contours([in_mm(volume, rectangle(15, 1, 20, 3), 1)], volume, SOURCE)


def test_a_contour_across_the_slices_is_refused():
    volume = ct()
    corners = np.array(
        [volume.TransformContinuousIndexToPhysicalPoint(p) for p in ((1, 1, 1), (4, 1, 1), (4, 1, 3))]
    )
    with pytest.raises(OutlineError, match="not parallel"):
        lay_contours([corners], volume, SOURCE)


def test_indices_are_those_of_itk():
    volume = ct()
    points = np.array([[-19.0, 11.0, -97.0], [3.0, 4.0, 5.0]])
    expected = [volume.TransformPhysicalPointToContinuousIndex(point) for point in points.tolist()]
    assert np.allclose(indices_of(points, volume), expected)
