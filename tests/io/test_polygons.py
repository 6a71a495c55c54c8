import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.path import Path as Outline

from radiogen.io import polygons
from radiogen.io.polygons import fill_polygon, fill_polygons, polygon_area


def rectangle(x0, y0, x1, y1):
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], dtype=float)


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


SHAPES = st.tuples(
    st.integers(3, 40),  # corners
    st.floats(0.01, 60),  # size in pixels
    st.floats(0.2, 1),  # the shortest radius beside the longest
    st.floats(0.3, 3),  # pixels twice as high as wide, and the reverse
    st.integers(0, 2**32 - 1),
)


def star(corners, size, shortest, stretch, seed):
    """A polygon round a point that sees all of it, so that it does not cross itself; (column, row)."""
    rng = np.random.default_rng(seed)
    angles = np.sort(rng.uniform(0, 2 * np.pi, corners)) + rng.uniform(0, 2 * np.pi)
    radii = size * rng.uniform(shortest, 1, corners)
    middle = np.array([200, 120]) + rng.uniform(-10, 10, 2)  # the widest stays within 400 x 240
    return np.stack([radii * np.cos(angles) * stretch, radii * np.sin(angles)], axis=1) + middle


def length(corners):
    return float(np.linalg.norm(corners - np.roll(corners, -1, axis=0), axis=1).sum())


@given(SHAPES)
def test_pixels_differ_from_the_area_by_less_than_the_outline_is_long(shape):
    # V. Jarnik (1925): a closed curve of length L >= 1 holds its area of grid points, to less than L.
    corners = star(*shape)
    pixels = int(fill_polygons([corners], (400, 240)).sum())
    assert abs(pixels - polygon_area(corners)) < max(length(corners), 1.0)


@given(SHAPES)
def test_over_all_places_between_the_pixels_the_mean_is_the_area(shape):
    corners = star(*shape)
    shifts = (np.arange(5) + 0.5) / 5
    pixels = [
        fill_polygon(corners + np.array([dx, dy]), (400, 240)).inside.sum() for dx in shifts for dy in shifts
    ]  # the same as pixels five times as small
    assert abs(np.mean(pixels) - polygon_area(corners)) < max(length(corners) / 5, 1 / 25)


@given(SHAPES)
def test_a_pixel_is_in_exactly_if_matplotlib_finds_its_centre_inside(shape):
    corners = np.round(star(*shape), 6)
    x, y = np.meshgrid(np.arange(400), np.arange(240))
    centres = np.stack([x.ravel(), y.ravel()], axis=1)
    ours = fill_polygons([corners], (400, 240)).ravel()
    theirs = Outline(corners, closed=False).contains_points(centres)
    assert np.array_equal(ours, theirs) or _lies_on_an_edge(corners, centres[ours != theirs])


def _lies_on_an_edge(corners, points):
    start, way = corners, np.roll(corners, -1, axis=0) - corners
    for point in points:
        x, y = (point - start).T
        off = np.abs(way[:, 0] * y - way[:, 1] * x)
        if (off / np.linalg.norm(way, axis=1).clip(1e-9)).min() > 1e-5:
            return False
    return True


def test_a_polygon_in_pieces_is_the_same_polygon(monkeypatch):
    corners = star(40, 60, 0.2, 1, 7)
    whole = fill_polygons([corners], (400, 240))
    monkeypatch.setattr(polygons, "CUTS_AT_ONCE", 11)
    assert np.array_equal(fill_polygons([corners], (400, 240)), whole)


def test_what_lies_outside_the_image_is_cut_off():
    whole = fill_polygons([rectangle(-3.5, -2.5, 4.5, 3.5)], (7, 6))
    assert whole.sum() == 5 * 4
    assert fill_polygons([rectangle(-9.0, -9.0, -2.0, -2.0), rectangle(30, 1, 40, 2)], (7, 6)).sum() == 0


@pytest.mark.parametrize("count", [1, 2])
def test_a_point_and_a_line_enclose_nothing(count):
    corners = rectangle(1, 1, 4, 3)[:count]
    assert not fill_polygons([corners], (7, 6)).any()
    assert polygon_area(corners) == 0


def test_the_area_of_a_keyhole_is_that_without_its_hole():
    outer, inner = rectangle(0, 0, 6, 5), rectangle(2, 1, 4, 3)[::-1]
    assert polygon_area(np.vstack([outer, outer[:1], inner, inner[:1]])) == pytest.approx(30 - 4)
