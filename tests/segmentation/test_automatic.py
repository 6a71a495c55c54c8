"""Without a prompt: what is a candidate, what is joined, what is dropped and counted."""

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from model.test_where_masks_land import chest
from training.oracles import SoftTissueInPrior, oracle

from radiogen.model.network_input import NetworkInput
from radiogen.segmentation.automatic import (
    LesionCandidate,
    find_candidates,
    join_overlapping,
    keep_confirmed,
    loosen,
    mean_probability,
)
from radiogen.segmentation.inference import CaseRegion
from radiogen.segmentation.volume import AutoSettings, Prompt, SegmentationSettings, segment_volume
from radiogen.volume import Box, array_of, volume_like

WHOLE = (slice(0, 12), slice(0, 20), slice(0, 20))


def candidate(z, y, x, score=0.9):
    return LesionCandidate((slice(*z), slice(*y), slice(*x)), score)


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


def test_the_mean_probability_is_that_of_the_box(first):
    piece = first[0]
    assert mean_probability(piece, (slice(0, 6), slice(0, 9), slice(0, 9)), 0.5) == pytest.approx(
        0.9526, abs=1e-3
    )
    assert mean_probability(piece, (slice(6, 9), slice(0, 9), slice(0, 9)), 0.5) is None


def test_what_the_first_pass_did_not_see_is_no_part_of_a_candidate(first):
    whole = first[0]
    logits = np.full((6, 10, 20), -9, np.float16)
    logits[1:4, 2:5, 3:6] = 4  # touches what was seen
    logits[1:4, 2:5, 12:15] = 4  # does not
    near = (slice(0, 6), slice(0, 10), slice(0, 20))
    detail = sitk.Image((40, 20, 12), sitk.sitkFloat32)  # the same box in voxels of half the size
    detail.SetSpacing((5.0, 5.0, 5.0))
    detail.SetOrigin((-2.5, -2.5, -2.5))
    detail = volume_like(logits.astype(np.float32).repeat(2, 0).repeat(2, 1).repeat(2, 2), detail)
    found = keep_confirmed(CaseRegion(near, logits, None, detail), whole, first[1], 0.5, 0.3)
    assert (found.logits[:, :, :9] == logits[:, :, :9]).all()
    assert (found.logits[:, :, 9:] < -5).all()
    assert np.array_equal(array_of(found.detail)[::2, ::2, ::2] > 0, found.logits > 0)


def test_a_box_is_loosened_by_its_share_or_a_voxel_and_stays_inside():
    wide = loosen(candidate((0, 4), (20, 60), (90, 100)), (50, 100, 100), 0.1)
    assert wide.box == (slice(0, 5), slice(16, 64), slice(89, 100))


def test_boxes_that_lie_in_each_other_are_one_candidate():
    large, inside = candidate((0, 10), (0, 10), (0, 10), 0.6), candidate((2, 6), (2, 6), (4, 9), 0.8)
    beside, far = candidate((0, 10), (0, 10), (8, 18), 0.7), candidate((30, 33), (0, 3), (0, 3))
    assert join_overlapping([large, inside, beside, far]) == [
        candidate((0, 10), (0, 10), (0, 10), 0.8), beside, far,
    ]  # fmt: skip
    assert join_overlapping([]) == []


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
