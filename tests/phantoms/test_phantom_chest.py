"""Made chests hold what they say, and an EGFR signal that does not give everything away."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from tiny_cases import TINY

from radiogen.errors import ConfigError
from radiogen.phantoms.chest import ChestSize, make_chest
from radiogen.phantoms.traits import draw_traits
from radiogen.volume import array_of


@pytest.fixture(scope="module")
def forty():
    traits = [draw_traits(0, number) for number in range(1, 41)]
    return [(one, make_chest(one, 0, TINY)) for one in traits]


def is_mutant(pairs):
    return [traits.egfr == "mutant" for traits, _ in pairs]


def test_the_ct_shows_the_egfr_status_but_not_of_everybody(forty):
    mean_hu = [array_of(chest.volume)[array_of(chest.lesion) > 0].mean() for _, chest in forty]
    assert 0.65 < roc_auc_score(is_mutant(forty), -np.array(mean_hu)) < 0.97


def test_smoking_goes_with_the_egfr_status_but_not_always():
    many = [(draw_traits(3, number), None) for number in range(1, 401)]
    never = [traits.smoking == "never" for traits, _ in many]
    assert 0.55 < roc_auc_score(is_mutant(many), never) < 0.8


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_first_two_and_any_four_patients_hold_both_classes(seed):
    egfr = [draw_traits(seed, number).egfr for number in range(1, 61)]
    assert len(set(egfr[:2])) == 2
    assert all(len(set(egfr[i : i + 4])) == 2 for i in range(57))


def test_every_lesion_lies_in_the_lungs_and_is_denser_than_they_are(forty):
    for _, chest in forty:
        hu, lesion, lungs = (array_of(image) for image in (chest.volume, chest.lesion, chest.lungs))
        assert set(np.unique(lesion)) == set(range(len(chest.plans) + 1))
        assert np.all(lungs[lesion > 0] > 0)
        assert np.median(hu[lesion > 0]) > np.median(hu[(lungs > 0) & (lesion == 0)]) + 150


def test_no_grid_makes_a_lesion_of_a_voxel_or_two_or_one_beyond_the_lungs():
    for size in (TINY, ChestSize((28, 24, 20), (11.0, 11.5, 10.0)), ChestSize((28, 24, 20), (3.0, 3.0, 5.0))):
        for number in range(1, 9):
            chest = make_chest(draw_traits(11, number), 11, size)
            lesion, lungs = array_of(chest.lesion), array_of(chest.lungs)
            counts = np.bincount(lesion.ravel(), minlength=len(chest.plans) + 1)[1:]
            assert counts.min() >= 5
            assert counts.sum() < 0.4 * np.sum(lungs > 0)


def test_no_two_edges_of_a_tiny_voxel_are_equal(forty):
    for _, chest in forty:
        assert len({round(edge, 3) for edge in chest.volume.GetSpacing()}) == 3


def test_the_right_lung_lies_where_x_is_small_and_both_hold_air(forty):
    for _, chest in forty[:5]:
        lungs, hu = array_of(chest.lungs), array_of(chest.volume)
        assert np.argwhere(lungs == 1)[:, 2].max() < np.argwhere(lungs == 2)[:, 2].min()
        assert -900 < np.median(hu[lungs > 0]) < -750


def test_another_seed_makes_another_chest_and_the_same_seed_the_same():
    one, again, other = (make_chest(draw_traits(seed, 1), seed, TINY) for seed in (0, 0, 1))
    assert np.array_equal(array_of(one.volume), array_of(again.volume))
    assert one.volume.GetSpacing() == again.volume.GetSpacing() != other.volume.GetSpacing()


def test_a_grid_too_small_for_a_chest_is_refused():
    with pytest.raises(ConfigError, match="too small"):
        ChestSize((19, 40, 32))
