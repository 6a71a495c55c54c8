"""Agreement of masks, against numbers worked out by hand and laws."""

from math import inf, isnan

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.distance import cdist

from radiogen.errors import VolumeError
from radiogen.measures.overlap import measure_overlap

SPACING = (0.8, 1.1, 2.5)
MASKS = arrays(np.uint8, (3, 4, 6), elements=st.integers(0, 2))


def mask_of(array: np.ndarray, spacing: tuple[float, float, float] = SPACING) -> sitk.Image:
    mask = sitk.GetImageFromArray(array.astype(np.uint8))
    mask.SetSpacing(spacing)
    mask.SetOrigin((-12.0, 7.5, -900.0))
    return mask


def box(start: tuple[int, int, int], size: tuple[int, int, int], label: int = 1) -> np.ndarray:
    array = np.zeros((9, 14, 20), np.uint8)
    array[tuple(slice(a, a + n) for a, n in zip(start, size, strict=True))] = label
    return array


def surface_mm(array: np.ndarray) -> np.ndarray:
    """Centres of voxels with one of six neighbours outside, found the slow way."""
    inside = np.pad(array != 0, 1)
    steps = [(axis, side) for axis in range(3) for side in (1, -1)]
    open_voxels = [p for p in np.argwhere(inside) if not all(
        np.roll(inside, side, axis)[tuple(p)] for axis, side in steps
    )]  # fmt: skip
    return np.array(open_voxels) * SPACING[::-1]


def test_a_box_moved_by_two_voxels_of_eight() -> None:
    overlap = measure_overlap(mask_of(box((2, 3, 6), (3, 4, 8))), mask_of(box((2, 3, 4), (3, 4, 8))), 0.0)
    assert overlap.dice == pytest.approx(6 / 8)
    assert overlap.predicted_ml == overlap.reference_ml == pytest.approx(96 * 0.8 * 1.1 * 2.5 / 1000)
    assert overlap.volume_error_ml == 0
    assert overlap.hd95_mm == pytest.approx(1.6)


def test_surfaces_agree_up_to_the_tolerance_and_not_below() -> None:
    a, b = mask_of(box((2, 3, 6), (1, 1, 1))), mask_of(box((2, 3, 8), (1, 1, 1)))
    assert measure_overlap(a, b, 1.59).surface_dice == 0
    assert measure_overlap(a, b, 1.61).surface_dice == 1
    assert measure_overlap(a, b).dice == 0
    assert measure_overlap(a, b).hd95_mm == pytest.approx(1.6)


def test_half_of_a_slab_found() -> None:
    overlap = measure_overlap(mask_of(box((4, 5, 0), (1, 1, 5))), mask_of(box((4, 5, 0), (1, 1, 10))), 0.5)
    assert overlap.dice == pytest.approx(2 * 5 / 15)
    assert overlap.surface_dice == pytest.approx((5 + 5) / 15)
    assert overlap.volume_error_share == pytest.approx(-0.5)
    assert overlap.assd_mm == pytest.approx((0.8 + 1.6 + 2.4 + 3.2 + 4.0) / 15)
    assert overlap.hd95_mm == pytest.approx(np.percentile([0] * 5 + [0.8, 1.6, 2.4, 3.2, 4.0], 95), rel=1e-5)


@settings(max_examples=60, deadline=None)
@given(MASKS, MASKS)
def test_surface_measures_agree_with_all_distances_taken_one_by_one(a: np.ndarray, b: np.ndarray) -> None:
    overlap = measure_overlap(mask_of(a), mask_of(b), 1.0)
    if not a.any() or not b.any():
        return
    far = cdist(surface_mm(a), surface_mm(b))
    there, back = far.min(axis=1), far.min(axis=0)
    assert overlap.hd95_mm == pytest.approx(max(np.percentile(there, 95), np.percentile(back, 95)), abs=1e-4)
    assert overlap.assd_mm == pytest.approx((there.sum() + back.sum()) / (len(there) + len(back)))
    assert overlap.surface_dice == pytest.approx(
        ((there <= 1.0).sum() + (back <= 1.0).sum()) / (len(there) + len(back))
    )


@settings(max_examples=40, deadline=None)
@given(MASKS)
def test_a_mask_agrees_fully_with_itself(array: np.ndarray) -> None:
    overlap = measure_overlap(mask_of(array), mask_of(array), 0.0)
    assert (overlap.dice, overlap.surface_dice, overlap.hd95_mm) == (1, 1, 0)
    assert (overlap.assd_mm, overlap.volume_error_ml) == (0, 0)


@settings(max_examples=40, deadline=None)
@given(MASKS, MASKS)
def test_agreement_is_the_same_both_ways_and_anywhere_in_space(a: np.ndarray, b: np.ndarray) -> None:
    there, back = measure_overlap(mask_of(a), mask_of(b)), measure_overlap(mask_of(b), mask_of(a))
    assert (there.dice, there.surface_dice, there.hd95_mm) == (back.dice, back.surface_dice, back.hd95_mm)
    wide = ((2, 3), (4, 1), (0, 5))
    moved = measure_overlap(mask_of(np.pad(a, wide)), mask_of(np.pad(b, wide)))
    assert moved == there


@settings(max_examples=40, deadline=None)
@given(MASKS, MASKS, st.permutations([1, 2]))
def test_other_labels_change_nothing(a: np.ndarray, b: np.ndarray, order: list[int]) -> None:
    relabelled = np.array([0, *order], np.uint8)[a]
    assert measure_overlap(mask_of(relabelled), mask_of(b)) == measure_overlap(mask_of(a), mask_of(b))


def test_two_empty_masks_agree_fully() -> None:
    overlap = measure_overlap(mask_of(np.zeros((3, 4, 5))), mask_of(np.zeros((3, 4, 5))))
    assert (overlap.dice, overlap.surface_dice, overlap.hd95_mm) == (1, 1, 0)
    assert isnan(overlap.volume_error_share)


def test_an_empty_mask_does_not_agree_with_a_lesion() -> None:
    lesion, empty = mask_of(box((1, 2, 3), (2, 2, 2))), mask_of(box((0, 0, 0), (0, 0, 0)))
    for a, b in ((lesion, empty), (empty, lesion)):
        overlap = measure_overlap(a, b)
        assert (overlap.dice, overlap.surface_dice, overlap.hd95_mm) == (0, 0, inf)
    assert measure_overlap(empty, lesion).volume_error_share == -1


def test_masks_on_different_grids_are_refused() -> None:
    a = mask_of(box((1, 2, 3), (2, 2, 2)))
    with pytest.raises(VolumeError, match="grid"):
        measure_overlap(a, mask_of(box((1, 2, 3), (2, 2, 2)), (1.0, 1.0, 1.0)))
