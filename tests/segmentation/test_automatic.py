"""Without a prompt: what is a candidate, what is joined, what is dropped and counted."""

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from model.test_where_masks_land import chest
from training.oracles import SoftTissueInPrior, oracle

from radiogen.model.network_input import NetworkInput
from radiogen.segmentation.automatic import (
    FEATURES,
    JudgedCandidate,
    LesionCandidate,
    best_of_overlapping,
    candidate_features,
    confirmed_voxels,
    find_candidates,
    join_overlapping,
    keep_only,
    loosen,
)
from radiogen.segmentation.inference import CaseRegion
from radiogen.segmentation.volume import AutoSettings, Prompt, SegmentationSettings, segment_volume
from radiogen.volume import Box, array_of, volume_like

WHOLE = (slice(0, 12), slice(0, 20), slice(0, 20))


def candidate(z, y, x, score=0.9):
    box = (slice(*z), slice(*y), slice(*x))
    return LesionCandidate(box, np.ones([edge.stop - edge.start for edge in box], bool), score)


@pytest.fixture
def first():
    """Two parts: one sure of 3 x 3 x 3 voxels, one faint of 2 x 2 x 2; and a single voxel."""
    logits = np.full((12, 20, 20), -9, np.float16)
    logits[2:5, 3:6, 4:7] = 3
    logits[8:10, 12:14, 15:17] = -0.5
    logits[11, 1, 1] = 5
    grid = sitk.Image((20, 20, 12), sitk.sitkUInt8)
    grid.SetSpacing((10.0, 10.0, 10.0))  # 1 ml
    return CaseRegion(WHOLE, logits, None), NetworkInput(grid, grid, None, Box((0, 0, 0), (20, 20, 12)))


def test_candidates_are_the_parts_above_the_threshold_with_their_mean_probability(first):
    found = find_candidates(*first, threshold=0.3, smallest_ml=2)
    assert [each.box for each in found] == [
        (slice(2, 5), slice(3, 6), slice(4, 7)),
        (slice(8, 10), slice(12, 14), slice(15, 17)),
    ]
    assert [each.score for each in found] == pytest.approx([0.9526, 0.3775], abs=1e-3)
    assert len(find_candidates(*first, threshold=0.5, smallest_ml=2)) == 1
    assert find_candidates(*first, threshold=0.5, smallest_ml=28) == []


def test_a_mass_that_sticks_to_the_spleen_is_a_candidate_of_its_own():
    logits = np.full((12, 20, 20), -9, np.float16)
    logits[2:10, 2:8, 2:8] = 4  # the mass
    logits[2:10, 8:18, 2:18] = 0.2  # what it touches
    grid = sitk.Image((20, 20, 12), sitk.sitkUInt8)
    sample = NetworkInput(grid, grid, None, Box((0, 0, 0), (20, 20, 12)))
    found = find_candidates(CaseRegion(WHOLE, logits, None), sample, threshold=0.3, smallest_ml=0)
    assert [each.box for each in found] == [
        (slice(2, 10), slice(2, 8), slice(2, 8)),
        (slice(2, 10), slice(2, 18), slice(2, 18)),
    ]
    assert found[0].score > 0.98 and found[1].voxels.sum() == (logits > -1).sum()


def test_what_the_first_pass_did_not_see_is_no_part_of_a_candidate(first):
    logits = np.full((6, 10, 20), -9, np.float16)
    logits[1:4, 2:5, 3:6] = 4  # touches what was seen
    logits[1:4, 2:5, 12:15] = 4  # does not
    near = (slice(0, 6), slice(0, 10), slice(0, 20))
    detail = sitk.Image((40, 20, 12), sitk.sitkFloat32)  # the same box in voxels of half the size
    detail.SetSpacing((5.0, 5.0, 5.0))
    detail.SetOrigin((-2.5, -2.5, -2.5))
    detail = volume_like(logits.astype(np.float32).repeat(2, 0).repeat(2, 1).repeat(2, 2), detail)
    region = CaseRegion(near, logits, None, detail)
    seen = find_candidates(*first, threshold=0.3, smallest_ml=2)[0]
    voxels = confirmed_voxels(region, seen, 0.5)
    assert np.array_equal(voxels, (logits > 0) & (np.arange(20) < 9))
    found = keep_only(region, voxels, first[1], 0.5)
    assert (found.logits[:, :, :9] == logits[:, :, :9]).all()
    assert (found.logits[:, :, 9:] < -5).all()
    assert np.array_equal(array_of(found.detail)[::2, ::2, ::2] > 0, found.logits > 0)


def test_a_box_is_loosened_by_its_share_or_a_voxel_and_stays_inside():
    wide = loosen((slice(0, 4), slice(20, 60), slice(90, 100)), (50, 100, 100), 0.1)
    assert wide == (slice(0, 5), slice(16, 64), slice(89, 100))


def judged(number, box, score=0.9):
    each = candidate(*box, score=score)
    logits = np.where(each.voxels, np.float16(4), np.float16(-9))
    return JudgedCandidate(number, each, CaseRegion(each.box, logits, None), each.voxels, score, {})


def test_candidates_that_are_one_lesion_are_one_and_the_better_one_stays():
    large = judged(1, ((0, 10), (0, 10), (0, 10)))
    inside = judged(2, ((2, 6), (2, 6), (4, 9)))
    beside = judged(3, ((0, 10), (0, 10), (8, 18)))  # shares a fifth with the first
    far = judged(4, ((30, 33), (0, 3), (0, 3)))
    shape = (40, 20, 20)
    assert best_of_overlapping([large, inside, beside, far], shape) == [large, beside, far]
    assert best_of_overlapping([inside, large, far], shape) == [inside, far]
    assert best_of_overlapping([], shape) == []


def test_parts_whose_boxes_lie_in_each_other_are_joined_without_calibration():
    large, inside = candidate((0, 10), (0, 10), (0, 10), 0.6), candidate((3, 5), (3, 5), (5, 8), 0.8)
    beside, far = candidate((0, 10), (0, 10), (8, 18), 0.7), candidate((30, 33), (0, 3), (0, 3))
    wide = ((slice(2, 6), slice(2, 6), slice(4, 9)),)
    boxes = [large.box, *wide, beside.box, far.box]
    joined = join_overlapping([large, inside, beside, far], boxes)
    assert [each.box for each in joined] == [large.box, beside.box, far.box]
    assert [each.score for each in joined] == [0.8, 0.7, 0.9]
    assert joined[0].voxels.sum() == 1000
    (alone,) = join_overlapping([inside], list(wide))
    assert alone.box == wide[0] and alone.voxels.sum() == 12
    assert join_overlapping([], []) == []


def test_the_features_of_a_candidate_are_what_their_names_say():
    hu = np.full((30, 40, 40), -850, np.int16)
    hu[:, :10] = 50  # the chest wall
    lungs = hu < -500
    hu[10:18, 10:18, 20:28] = 30  # a cube of 8 voxels at the wall
    each = candidate((10, 18), (10, 18), (20, 28), score=0.8)
    logits = np.full((16, 20, 20), -9, np.float16)
    logits[4:12, 5:13, 6:14] = 3
    region = CaseRegion((slice(6, 22), slice(5, 25), slice(14, 34)), logits, None)
    features = candidate_features(each, region, logits > 0, hu, lungs, (1.0, 1.0, 2.0))
    assert set(features) == set(FEATURES)
    assert features["log_ml"] == pytest.approx(np.log(8**3 * 2 / 1000))
    assert features["agreement"] == 1 and features["fill"] == pytest.approx(1)
    assert features["first_pass"] == pytest.approx(np.log(4)) and features["second_pass"] == pytest.approx(3)
    assert features["aerated_shell"] == pytest.approx(1 - 2 * 144 / (12**3 - 8**3), abs=0.01)
    assert features["mean_hu"] == pytest.approx(0.3) and features["in_lungs"] == 1
    assert features["elongation"] == pytest.approx(np.log(2))
    assert features["height"] == pytest.approx(14 / 29)


class UnsureOutsideBoxes(SoftTissueInPrior):
    """In the first pass, where the prior is large, it says 0.45 of soft tissue; in a box it is sure."""

    def forward(self, image, prior):
        wide = prior.mean() > 0.5
        bright = ((image[:, :1] > 0.35) & (prior > 0.5)).float()
        return torch.where(wide, -10 + 9.8 * bright, -20 + 40 * bright)


@pytest.fixture(scope="module")
def unsure():
    return oracle(UnsureOutsideBoxes())


def test_the_second_pass_draws_the_lesion_that_the_first_only_suspects(unsure):
    ct, lungs, lesion = chest("upright")
    none = segment_volume(unsure, ct, lungs, Prompt("lungs"))
    assert not array_of(none.lesion).any() and not none.scores
    settings = SegmentationSettings(auto=AutoSettings(least_candidate=0.4, least_score=0.4))
    found = segment_volume(unsure, ct, lungs, Prompt("auto"), settings)
    assert np.sum(array_of(found.lesion) == array_of(lesion)) / array_of(lesion).size > 0.99
    (score,) = found.scores
    assert score.origin == "candidate 1" and score.score > 0.99
    assert score.candidate_score == pytest.approx(0.45, abs=0.01)
    assert score.disagreement is None and score.entropy_bits < 0.1


def test_what_is_too_faint_is_dropped_and_counted(unsure):
    ct, lungs, _ = chest("upright")
    found = segment_volume(unsure, ct, lungs, Prompt("auto"))
    assert not array_of(found.lesion).any()
    assert found.decisions == (
        "1 candidate above 0.3 in the first pass",
        "1 of them dropped, mean probability below 0.5 in the first pass",
    )


class BlindInBoxes(UnsureOutsideBoxes):
    """Sees soft tissue in the first pass only."""

    def forward(self, image, prior):
        return torch.where(prior.mean() > 0.5, SoftTissueInPrior.forward(self, image, prior), -20.0)


def test_a_candidate_whose_box_shows_nothing_is_dropped_and_counted():
    ct, lungs, _ = chest("upright")
    model = oracle(BlindInBoxes())
    found = segment_volume(model, ct, lungs, Prompt("auto"))
    assert not array_of(found.lesion).any()
    assert "1 of them dropped, nothing found in their box" in found.decisions


def test_two_lesions_are_two_and_each_knows_its_candidate():
    ct, lungs, _ = chest("upright")
    voxels = array_of(ct)
    voxels[30:36, 10:16, 12:20] = 40
    model = oracle(SoftTissueInPrior())
    found = segment_volume(model, volume_like(voxels, ct), lungs, Prompt("auto"))
    assert sorted(score.origin for score in found.scores) == ["candidate 1", "candidate 2"]
    assert array_of(found.lesion).max() == 2
    assert found.scores[0].label == 1  # the larger one
