"""Which lesions belong together, on boxes of a few voxels and by laws; FROC points by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from radiogen.measures.detection import (
    FROC_RATES,
    Detection,
    count_matches,
    froc,
    match_lesions,
    number_lesions,
    stray_parts,
)

MASKS = arrays(np.uint8, (4, 5, 7), elements=st.sampled_from([0, 0, 1, 2, 3]))


def row(*parts: tuple[int, int, int], length: int = 40) -> np.ndarray:
    """A row of voxels with parts (start, end, label)."""
    mask = np.zeros((1, 1, length), np.uint8)
    for start, end, label in parts:
        mask[0, 0, start:end] = label
    return mask


def outcomes(predicted: np.ndarray, reference: np.ndarray, least_iou: float = 0.1) -> list[str]:
    matches = match_lesions(number_lesions(predicted), number_lesions(reference), least_iou)
    return [match.outcome for match in matches]


def counted(predicted: np.ndarray, reference: np.ndarray) -> Detection:
    return count_matches(match_lesions(number_lesions(predicted), number_lesions(reference)))


def test_lesions_of_one_label_are_told_apart_by_the_gaps_and_touching_ones_by_their_labels() -> None:
    mask = row((0, 3, 1), (5, 8, 1), (8, 10, 2))
    lesions = number_lesions(mask)
    assert lesions.numbers[0, 0, :10].tolist() == [1, 1, 1, 0, 0, 2, 2, 2, 3, 3]
    assert lesions.labels == (1, 1, 2)
    assert [lesions.name(number) for number in (1, 2, 3)] == [1, 2, 3]


def test_by_label_the_pieces_of_a_label_are_one_lesion_and_keep_its_name() -> None:
    lesions = number_lesions(row((0, 3, 7), (5, 8, 2), (9, 10, 7)), by_label=True)
    assert len(lesions) == 2
    assert lesions.labels == (7, 2)
    assert lesions.name(1) == 7
    assert lesions.numbers[0, 0, :10].tolist() == [1, 1, 1, 0, 0, 2, 2, 2, 0, 1]


def test_a_corner_connects() -> None:
    mask = np.zeros((2, 2, 2), np.uint8)
    mask[0, 0, 0] = mask[1, 1, 1] = 1
    assert len(number_lesions(mask)) == 1


def test_parts_below_a_ball_of_3_mm_are_stray_but_not_where_nothing_is_larger() -> None:
    lesions = number_lesions(row((0, 13, 1), (15, 29, 1), (31, 32, 2)))
    assert stray_parts(lesions, voxel_ml=0.001) == {1, 3}  # 13, 14 and 1 microlitres
    assert stray_parts(lesions, voxel_ml=0.0001) == set()
    assert stray_parts(lesions, voxel_ml=0.1) == {3}  # a single voxel of any size
    assert stray_parts(number_lesions(np.zeros((2, 2, 2), np.uint8)), 0.001) == set()


def test_an_iou_at_the_limit_is_a_match_and_below_it_none() -> None:
    reference = row((0, 10, 1))
    assert outcomes(row((0, 1, 1)), reference) == ["found"]  # 1 of 10
    assert outcomes(row((0, 1, 1)), row((0, 11, 1))) == ["missed", "fragment"]
    assert outcomes(row((0, 5, 1)), reference, least_iou=0.51) == ["missed", "fragment"]


def test_nobody_finds_a_nodule_by_painting_everything_round_it() -> None:
    assert outcomes(row((0, 31, 1)), row((9, 12, 1))) == ["missed", "false"]
    assert outcomes(row((0, 30, 1)), row((9, 12, 1))) == ["found"]


def test_the_sum_of_the_ious_decides_and_each_has_one_partner() -> None:
    # The prediction shares 6 of 14 voxels with the first and 4 of 16 with the second.
    reference = row((0, 10, 1), (10, 20, 2))
    matches = match_lesions(number_lesions(row((4, 14, 1))), number_lesions(reference))
    assert [(m.outcome, m.reference, m.predicted) for m in matches] == [("found", 1, 1), ("missed", 2, None)]
    assert matches[0].iou == pytest.approx(6 / 14)


def test_one_prediction_over_a_tumour_and_its_satellite_finds_the_tumour_and_merges_the_satellite() -> None:
    assert outcomes(row((0, 15, 1)), row((0, 10, 1), (12, 15, 2))) == ["found", "merged"]


def test_a_tumour_in_two_pieces_is_found_by_the_larger_and_the_other_is_a_fragment() -> None:
    reference, predicted = row((0, 20, 1)), row((0, 5, 1), (6, 20, 1))
    matches = match_lesions(number_lesions(predicted), number_lesions(reference))
    assert [(m.outcome, m.predicted) for m in matches] == [("found", 2), ("fragment", 1)]


def test_counts_and_qualities_by_hand() -> None:
    found = counted(row((0, 5, 1), (20, 25, 1), (30, 32, 1)), row((0, 10, 1), (12, 15, 1), (20, 25, 1)))
    assert (found.found, found.missed, found.false) == (2, 1, 1)
    assert found.sensitivity == pytest.approx(2 / 3)
    assert found.f1 == pytest.approx(4 / 6)
    assert found.panoptic_quality == pytest.approx((0.5 + 1.0) / 3)
    assert found.panoptic_quality == pytest.approx(found.f1 * (0.5 + 1.0) / 2)  # recognition x segmentation


def test_two_scans_add_up() -> None:
    first, second = counted(row((0, 5, 1)), row((0, 10, 1))), counted(row((30, 35, 1)), row((0, 10, 1)))
    assert first + second == Detection(found=1, missed=1, false=1, iou_sum=0.5)


def test_empty_masks_have_no_rates() -> None:
    assert counted(row(), row()) == Detection()
    assert (Detection().sensitivity, Detection().f1, Detection().panoptic_quality) == (None, None, None)
    assert counted(row((0, 3, 1)), row()).f1 == 0
    assert counted(row(), row((0, 3, 1))).sensitivity == 0


@settings(max_examples=60, deadline=None)
@given(MASKS)
def test_a_mask_finds_all_of_itself(mask: np.ndarray) -> None:
    lesions = number_lesions(mask)
    found = counted(mask, mask)
    assert (found.found, found.lesions, found.predicted) == (len(lesions),) * 3
    assert found.iou_sum == len(lesions)


@settings(max_examples=60, deadline=None)
@given(MASKS, MASKS, st.permutations([1, 2, 3]), st.permutations([1, 2, 3]))
def test_other_labels_change_no_match(a: np.ndarray, b: np.ndarray, one: list[int], two: list[int]) -> None:
    relabelled = [np.array([0, *order], np.uint8)[mask] for mask, order in ((a, one), (b, two))]
    plain = match_lesions(number_lesions(a), number_lesions(b))
    assert match_lesions(*(number_lesions(mask) for mask in relabelled)) == plain


@settings(max_examples=60, deadline=None)
@given(MASKS, MASKS)
def test_a_shift_of_both_changes_no_match_and_every_lesion_comes_once(a: np.ndarray, b: np.ndarray) -> None:
    shift = ((1, 0), (0, 2), (3, 1))
    plain = match_lesions(number_lesions(a), number_lesions(b))
    assert match_lesions(number_lesions(np.pad(a, shift)), number_lesions(np.pad(b, shift))) == plain
    for side, mask in (("reference", b), ("predicted", a)):
        numbers = sorted(getattr(match, side) for match in plain if getattr(match, side))
        assert numbers == list(range(1, len(number_lesions(mask)) + 1))


def test_froc_by_hand() -> None:
    # 4 scans, 5 lesions. From the top: hit 0.9, false 0.8, hits 0.7 and 0.7, false 0.6, false 0.6, hit 0.2.
    curve = froc([0.9, 0.7, 0.7, 0.2], [0.8, 0.6, 0.6], lesions=5, scans=4, rates=(0.125, 0.25, 0.5, 0.75))
    assert curve is not None
    assert curve.sensitivities == pytest.approx((0.2, 0.6, 0.6, 0.8))
    assert curve.score == pytest.approx(0.55)


def test_a_hit_and_a_false_lesion_of_one_score_come_together() -> None:
    curve = froc([0.5], [0.5], lesions=1, scans=1, rates=(0.5, 1.0))
    assert curve is not None and curve.sensitivities == (0.0, 1.0)


def test_without_false_lesions_every_rate_has_the_same_sensitivity() -> None:
    curve = froc([0.5, 0.1], [], lesions=4, scans=3)
    assert curve is not None and curve.sensitivities == (0.5,) * len(FROC_RATES)


def test_nothing_predicted_finds_nothing_and_no_lesion_has_no_curve() -> None:
    nothing = froc([], [], lesions=2, scans=1)
    assert nothing is not None and nothing.score == 0
    assert froc([], [0.5], lesions=0, scans=3) is None
