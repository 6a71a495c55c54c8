"""Where patches lie: sums of cubes against sums of voxels, and places clear of what is forbidden."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from radiogen.training.augmentation import SourceRegion
from radiogen.training.positions import BLOCK, count_blocks, lung_positions, patch_starts, shift_start

CASE = (41, 50, 63)
PATCH = (16, 32, 32)
PLAIN = SourceRegion((0, 0, 0), PATCH)


def random_mask(seed, share):
    return np.random.default_rng(seed).random(CASE) < share


def test_cubes_count_every_voxel_once():
    mask = random_mask(0, 0.3)
    counts = count_blocks(mask)
    assert counts.shape == (11, 13, 16) and counts.sum() == mask.sum()
    assert counts[2, 3, 4] == mask[8:12, 12:16, 16:20].sum()


def test_a_place_holds_the_share_of_lung_that_is_asked_for():
    lungs = np.zeros(CASE, bool)
    lungs[:, :25, :30] = True
    places = lung_positions(count_blocks(lungs), None, CASE, PATCH, PLAIN, 0.3)
    held = [lungs[tuple(slice(s, s + n) for s, n in zip(at, PATCH, strict=True))].mean() for at in places]
    assert len(held) > 1 and min(held) >= 0.25  # a cube counts in full as soon as it is touched


def test_where_no_place_holds_enough_the_fullest_is_taken():
    lungs = np.zeros(CASE, bool)
    lungs[20:24, 40:44, 8:12] = True
    places = lung_positions(count_blocks(lungs), None, CASE, PATCH, PLAIN, 0.9)
    assert len(places)
    for at in places:
        assert lungs[tuple(slice(s, s + n) for s, n in zip(at, PATCH, strict=True))].sum() == 64


@given(seed=st.integers(0, 10**6), low=st.integers(-9, 3), more=st.integers(-3, 9))
def test_nothing_forbidden_is_ever_read(seed, low, more):
    rng = np.random.default_rng(seed)
    lungs, forbidden = np.ones(CASE, bool), np.zeros(CASE, bool)
    for at in rng.integers(0, CASE, (3, 3)):
        forbidden[tuple(at)] = True
    reading = SourceRegion((low, low, low), tuple(n + more for n in PATCH))
    places = lung_positions(count_blocks(lungs), count_blocks(forbidden), CASE, PATCH, reading, 0.2)
    for place in places[:: max(1, len(places) // 10)]:
        start = shift_start(place, CASE, PATCH, rng)
        read = tuple(slice(max(0, s + low), s + n + more) for s, n in zip(start, PATCH, strict=True))
        assert not forbidden[read].any()
        assert all(0 <= s <= n - p for s, n, p in zip(start, CASE, PATCH, strict=True))


def test_a_case_with_lesions_everywhere_has_no_place():
    lungs = np.ones(CASE, bool)
    assert len(lung_positions(count_blocks(lungs), count_blocks(lungs), CASE, PATCH, PLAIN, 0.2)) == 0


@pytest.mark.parametrize(("length", "size"), [(10, 32), (32, 32), (33, 32), (50, 32)])
def test_a_patch_lies_inside_the_case_or_centred_over_it(length, size):
    first = patch_starts(length, size)
    assert list(first) == ([-11] if length < size else list(range(0, length - size + 1, BLOCK)))
