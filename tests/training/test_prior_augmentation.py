"""Priors as people draw them: near the lesion, not exactly round it."""

import numpy as np
from scipy.ndimage import find_objects

from radiogen.training.augmentation import draw_box, loosen_mask
from radiogen.training.settings import TrainingSettings

EXACT = TrainingSettings(box_jitter=0, box_loosen=0, box_careless=0)


def lesion(box):
    mask = np.zeros((32, 40, 48), bool)
    mask[box] = True
    return mask


MIDDLE = lesion(np.s_[10:20, 10:20, 16:26])


def edges(prior):
    assert set(np.unique(prior)) <= {0.0, 1.0}
    [box] = find_objects(prior.astype(np.uint8))
    assert prior[box].all()  # a box, whole
    return [(edge.start, edge.stop) for edge in box]


def boxes(settings, mask=MIDDLE, count=200):
    return [edges(draw_box(mask, settings, np.random.default_rng(seed))) for seed in range(count)]


def test_a_box_without_jitter_is_the_lesions_own():
    assert boxes(EXACT, count=5) == [[(10, 20), (10, 20), (16, 26)]] * 5


def test_faces_move_by_the_jitter_and_out_by_the_loosening():
    shifts = [(10 - box[0][0], box[0][1] - 20) for box in boxes(EXACT.model_copy(update={"box_jitter": 0.2}))]
    assert {shift for pair in shifts for shift in pair} == {-2, -1, 0, 1, 2}
    loose = boxes(EXACT.model_copy(update={"box_loosen": 0.3}))
    assert {10 - box[0][0] for box in loose} == {0, 1, 2, 3}


def test_a_share_of_the_boxes_is_much_too_large_or_partly_beside_but_never_misses_the_lesion():
    careless = boxes(EXACT.model_copy(update={"box_careless": 1.0}))
    large = [box for box in careless if box[0][1] - box[0][0] > 14]
    beside = [box for box in careless if box[0][1] - box[0][0] == 10]
    assert len(large) + len(beside) == 200 and 60 < len(large) < 140
    for box in beside:
        assert box[0] != (10, 20)
        assert all(low < 20 and high > 10 for low, high in box[:2])
    some = boxes(EXACT.model_copy(update={"box_careless": 0.1}))
    assert 5 < sum(box != [(10, 20), (10, 20), (16, 26)] for box in some) < 40


def test_where_the_lesion_reaches_out_of_the_patch_so_does_the_box():
    settings = EXACT.model_copy(update={"box_jitter": 0.5, "box_careless": 0.5})
    for box in boxes(settings, lesion(np.s_[0:12, 30:40, 16:26])):
        assert box[0][0] == 0 and box[1][1] == 40


def test_a_lesion_of_one_voxel_has_a_box():
    for box in boxes(TrainingSettings(), lesion(np.s_[5:6, 5:6, 5:6])):
        assert all(high > low for low, high in box)


def test_a_loosen_mask_holds_the_lesion_and_little_more():
    masks = [loosen_mask(MIDDLE, np.random.default_rng(seed)) for seed in range(12)]
    assert all((mask[MIDDLE] == 1).all() for mask in masks)
    assert {mask.sum() for mask in masks} > {1000.0} and max(mask.sum() for mask in masks) < 16**3
