"""Augmentation: what is switched off changes nothing, and HU and labels move together."""

import numpy as np
import pytest

from radiogen.training.augmentation import (
    CONTROL_MM,
    apply_along,
    augment_intensity,
    change_kernel,
    draw_affine,
    draw_elastic,
    draw_warp,
    gaussian_matrix,
    lower_dose,
    spline_matrix,
    thicken_slices,
)
from radiogen.training.settings import Augmentation, load_preset

SPACING = (1.5, 1.5, 2.0)
SHAPE = (32, 40, 48)
OFF = {"flip": False, "affine": 0, "elastic": 0, "kernel": 0, "thick": 0, "dose": 0}
NOTHING = Augmentation(**OFF, noise_hu=0, shift_hu=0, slope=0)


def only(**changes):
    """Nothing but what is named."""
    return NOTHING.model_copy(update=changes)


def rng(seed=0):
    return np.random.default_rng(seed)


def ball(shape=SHAPE, radius_mm=15.0):
    steps = SPACING[::-1]
    far = sum(
        ((axis - (n - 1) / 2) * step) ** 2
        for axis, n, step in zip(np.ogrid[tuple(map(slice, shape))], shape, steps, strict=True)
    )
    return far <= radius_mm**2


def patch():
    return (np.where(ball(), 40.0, -850.0) + rng(7).normal(0, 10, SHAPE)).astype(np.float32)


def test_what_is_switched_off_changes_nothing():
    hu = patch()
    assert np.array_equal(augment_intensity(hu, SPACING, NOTHING, rng()), hu)
    warp = draw_warp(SHAPE, SPACING, NOTHING, rng())
    assert warp.region.low == (0, 0, 0) and warp.region.high == SHAPE
    assert np.array_equal(warp.sample(hu[None], "bilinear")[0], hu)


@pytest.mark.parametrize(
    "zero",
    [
        {"kernel": 1.0, "blur_mm": 0.0, "sharpen": 0.0},
        {"thick": 1.0, "thickness_mm": 0.0},
        {"dose": 1.0, "dose_hu": 0.0},
        {"affine": 1.0, "rotation_deg": 0.0, "scale": 0.0},
        {"elastic": 1.0, "elastic_mm": 0.0},
    ],
)
def test_a_strength_of_zero_switches_a_change_off(zero):
    hu = patch()
    assert np.array_equal(augment_intensity(hu, SPACING, only(**zero), rng()), hu)
    assert draw_warp(SHAPE, SPACING, only(**zero), rng()).points is None


@pytest.mark.parametrize(
    "one",
    [
        {"kernel": 1.0},
        {"thick": 1.0},
        {"dose": 1.0},
        {"noise_hu": 25.0},
        {"shift_hu": 20.0},
        {"slope": 0.03},
    ],
)
def test_each_change_is_drawn_from_the_rng_alone(one):
    hu = patch()
    seen = [augment_intensity(hu, SPACING, only(**one), rng(seed)) for seed in (1, 1, 2)]
    assert np.array_equal(seen[0], seen[1])
    assert not np.array_equal(seen[0], seen[2])
    assert not np.array_equal(seen[0], hu)


def test_one_change_switched_off_leaves_the_others_as_they_were():
    hu = patch()
    noisy = augment_intensity(hu, SPACING, only(noise_hu=25.0), rng())
    both = augment_intensity(hu, SPACING, only(noise_hu=25.0, shift_hu=20.0), rng())
    shift = both - noisy
    assert np.ptp(shift) < 1e-3 and abs(shift.mean()) > 1


def test_a_blur_lowers_detail_and_a_sharper_kernel_raises_it_and_both_keep_the_mean_of_flat_tissue():
    hu, flat = patch(), np.full(SHAPE, -300.0, np.float32)
    soft, sharp = only(kernel=1.0, sharpen=0.0), only(kernel=1.0, blur_mm=0.0)
    blurred = [change_kernel(hu, SPACING, soft, rng(seed)) for seed in range(8)]
    sharpened = [change_kernel(hu, SPACING, sharp, rng(seed)) for seed in range(8)]
    assert min(array.std() for array in blurred) < hu.std() < max(array.std() for array in sharpened)
    assert all(array.std() <= hu.std() + 1e-3 for array in blurred)
    for settings in (soft, sharp):
        assert np.allclose(change_kernel(flat, SPACING, settings, rng(1)), -300.0, atol=1e-2)


def test_thick_slices_smooth_along_z_alone():
    settings = only(thick=1.0, thickness_mm=12.0)
    slices = np.where(np.arange(32) % 2, 100.0, -100.0).astype(np.float32)
    along_z = np.broadcast_to(slices[:, None, None], SHAPE)
    along_x = np.broadcast_to(np.resize(slices, 48), SHAPE)
    seen = [thicken_slices(np.ascontiguousarray(along_z), 2.0, settings, rng(s)) for s in range(6)]
    assert min(array.std() for array in seen) < 25
    for seed in range(6):
        assert np.allclose(thicken_slices(np.ascontiguousarray(along_x), 2.0, settings, rng(seed)), along_x)


def test_noise_of_a_low_dose_is_shared_by_neighbours_in_a_slice_and_not_across_slices():
    noise = lower_dose(np.zeros(SHAPE, np.float32), only(dose=1.0), rng(3))
    assert 0 < noise.std() <= 40

    def shared(a, b):
        return np.corrcoef(a.ravel(), b.ravel())[0, 1]

    assert shared(noise[:, :, 1:], noise[:, :, :-1]) > 0.3
    assert shared(noise[:, 1:], noise[:, :-1]) > 0.3
    assert abs(shared(noise[1:], noise[:-1])) < 0.05


def test_smoothing_rows_keep_what_is_constant():
    rows = gaussian_matrix(20, 1.7)
    assert np.allclose(rows.sum(axis=1), 1)
    assert np.allclose(apply_along(np.full((3, 20, 4), 5.0, np.float32), rows, 1), 5.0)


@pytest.mark.parametrize("seed", range(6))
def test_a_warp_moves_hu_and_labels_together(seed):
    settings = only(affine=1.0, elastic=1.0)
    warp = draw_warp(SHAPE, SPACING, settings, rng(seed))
    inside = np.zeros(warp.region.shape, bool)
    middle = [-low + n // 2 for low, n in zip(warp.region.low, SHAPE, strict=True)]
    inside[tuple(slice(m - 7, m + 8) for m in middle)] = True
    hu = np.where(inside, 40.0, -850.0).astype(np.float32)
    label = warp.sample(inside[None].astype(np.int16), "nearest")[0].astype(np.int16)
    moved = warp.sample(hu[None], "bilinear")[0]
    assert label.any() and set(np.unique(label)) == {0, 1}
    assert np.mean((moved > -405.0) == (label > 0)) > 0.98  # they differ on the rim alone
    assert moved[label == 0].mean() < -750 and moved[label > 0].mean() > -150


@pytest.mark.parametrize("seed", range(20))
def test_a_warp_reads_nothing_beyond_what_it_asks_for(seed):
    warp = draw_warp(SHAPE, SPACING, only(affine=1.0, elastic=1.0), rng(seed))
    assert warp.points is not None
    for axis in range(3):
        assert warp.points[axis].min() >= 0
        assert warp.points[axis].max() <= warp.region.shape[axis] - 1


def test_a_turn_keeps_volumes_and_spheres_stay_round_though_voxels_are_not():
    settings = only(affine=1.0, scale=0.0, rotation_deg=40.0)
    matrix = draw_affine(settings, rng(2))
    assert np.allclose(matrix @ matrix.T, np.eye(3))
    warp = draw_warp(SHAPE, SPACING, settings, rng(4))
    step = np.array(SPACING[::-1])[:, None]
    low = np.array(warp.region.low)[:, None]
    middle = (np.array(SHAPE)[:, None] - 1) / 2
    source = (warp.points.reshape(3, -1) + low - middle) * step
    target = (np.indices(SHAPE).reshape(3, -1) - middle) * step
    assert np.allclose(np.linalg.norm(source, axis=0), np.linalg.norm(target, axis=0), atol=1e-2)


def test_a_scale_stays_within_what_was_asked_for():
    sizes = [np.cbrt(np.linalg.det(draw_affine(only(affine=1.0, scale=0.2), rng(s)))) for s in range(50)]
    assert 1 / 1.2 <= min(sizes) < 0.9 and 1.1 < max(sizes) <= 1.2


def test_a_zoom_shows_more_of_the_case_and_never_less():
    zooms = only(zoom=1.0, zoom_most=1.6)
    spans = [np.ptp(draw_warp(SHAPE, SPACING, zooms, rng(seed)).points[2]) for seed in range(30)]
    shown = np.array(spans) / (SHAPE[2] - 1)
    assert shown.min() >= 1 - 1e-5 and shown.max() <= 1.6 + 1e-5 and np.ptp(shown) > 0.3


@pytest.mark.parametrize("zoom", [0.4, 1.0, 1.5])
def test_a_zoom_that_is_asked_for_is_what_the_patch_covers(zoom):
    warp = draw_warp(SHAPE, SPACING, NOTHING, rng(), zoom)
    covers = [min(zoom, 1) * n for n in SHAPE]
    assert np.allclose(warp.covered, covers, atol=1)
    if zoom == 1:
        assert warp.points is None
        return
    shown = np.ptp(warp.points, axis=(1, 2, 3)) / (np.array(SHAPE) - 1)
    assert np.allclose(shown, zoom)
    middle = np.array(warp.region.low) + warp.points.mean(axis=(1, 2, 3))
    assert np.allclose(middle, (np.array(SHAPE) - 1) / 2, atol=1e-3)


def test_a_bend_is_smooth_bounded_and_does_not_fold():
    step = np.array(SPACING[::-1])
    largest = 10.0  # the most that the settings allow
    for seed in range(10):
        shift = draw_elastic(SHAPE, step, largest, rng(seed))
        assert np.abs(shift).max() <= largest
        for axis in range(3):
            stretch = 1 + np.diff(shift[axis], axis=axis) / step[axis]
            assert stretch.min() > 0
    assert np.allclose(spline_matrix(48, 1.5 / CONTROL_MM).sum(axis=1), 1)


def test_paper_keeps_to_flips_noise_and_a_shift():
    settings = load_preset("paper").training.augmentation
    assert settings == NOTHING.model_copy(update={"flip": True, "noise_hu": 25.0, "shift_hu": 20.0})
