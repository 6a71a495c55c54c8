"""Which voxels are pooled: never none of a lesion, a ring of lung alone, a control away from all lesions."""

import numpy as np
import SimpleITK as sitk

from radiogen.features.regions import AWAY_MM, BALL_MM, cut_patches, lung_outside, on_grid, ring


def mask_at(*voxels, size=(20, 20, 20), spacing=(1.0, 1.0, 1.0)):
    array = np.zeros(size, np.uint8)
    for voxel in voxels:
        array[voxel] = 1
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing)
    return image


def coarse(factor):
    grid = sitk.Image([20 // factor + 1] * 3, sitk.sitkUInt8)
    grid.SetSpacing([float(factor)] * 3)
    return grid


def test_one_voxel_between_the_voxels_of_a_coarse_grid_is_kept_where_it_lies():
    found = on_grid(mask_at((7, 8, 9)), coarse(5))
    assert found.sum() == 1
    assert np.argwhere(found)[0].tolist() == [1, 2, 2]  # 7, 8 and 9 mm in steps of 5


def test_every_place_of_one_voxel_is_kept():
    for place in [(0, 0, 0), (19, 19, 19), (3, 12, 17), (19, 0, 7)]:
        assert on_grid(mask_at(place), coarse(7)).sum() == 1


def test_two_small_lesions_at_one_voxel_are_both_kept():
    first, second = mask_at((7, 8, 9)), mask_at((8, 8, 9))
    assert on_grid(first, coarse(5)).any() and on_grid(second, coarse(5)).any()


def test_the_kept_voxel_of_a_hollow_lesion_lies_in_it():
    shell = mask_at((2, 2, 2), (2, 2, 3), (2, 3, 2), (3, 2, 2), (12, 12, 12))
    found = np.argwhere(on_grid(shell, coarse(9)))
    assert len(found) == 1


def test_a_ring_is_lung_between_two_distances_and_no_other_lesion():
    lesion = np.zeros((21, 21, 21), bool)
    lesion[10, 10, 10] = True
    other = np.zeros_like(lesion)
    other[10, 10, 15] = True
    lungs = np.zeros_like(lesion)
    lungs[:, :, 8:] = True
    spacing = (2.0, 1.0, 1.0)
    found = ring(lesion, lesion | other, lungs, spacing, (2, 6))
    places = np.argwhere(found)
    away = np.sqrt((((places - 10) * spacing) ** 2).sum(axis=1))
    assert found.any() and ((away > 2) & (away <= 6)).all()
    assert lungs[found].all() and not found[10, 10, 15]
    everywhere = np.argwhere(lungs & ~other & ~lesion)
    inside = np.sqrt((((everywhere - 10) * spacing) ** 2).sum(axis=1))
    assert found.sum() == ((inside > 2) & (inside <= 6)).sum()


def test_a_ring_outside_the_lungs_is_empty():
    lesion = np.zeros((9, 9, 9), bool)
    lesion[4, 4, 4] = True
    assert not ring(lesion, lesion, np.zeros_like(lesion), (1, 1, 1), (1, 3)).any()


def test_the_control_is_lung_far_from_every_lesion_and_of_one_size():
    lungs = np.ones((60, 60, 60), bool)
    lungs[:4] = False
    lesions = np.zeros_like(lungs)
    lesions[28:32, 28:32, 10:14] = True
    small = lung_outside(lesions, lungs, (1.0, 1.0, 1.0))
    places, lesion = np.argwhere(small), np.argwhere(lesions)
    gap = np.sqrt(((places[:, None] - lesion[None]) ** 2).sum(axis=2)).min()
    assert lungs[small].all() and gap > AWAY_MM - BALL_MM
    assert abs(small.sum() - 4 / 3 * np.pi * BALL_MM**3) < 0.02 * small.sum()
    lesions[20:40, 20:40, 6:24] = True
    assert lung_outside(lesions, lungs, (1.0, 1.0, 1.0)).sum() > 0.99 * small.sum()


def test_lungs_filled_by_a_lesion_have_no_control():
    lungs = np.ones((5, 5, 5), bool)
    assert not lung_outside(lungs, lungs, (1, 1, 1)).any()


def test_slabs_share_a_lesion_along_its_longest_axis():
    lesion = np.zeros((6, 6, 24), bool)
    lesion[2:4, 2:4, 2:22] = True
    pieces = cut_patches(lesion, (1, 1, 1), 4)
    assert [piece.sum() for piece in pieces] == [20] * 4
    assert (sum(piece.astype(int) for piece in pieces) == lesion).all()
    middles = [np.argwhere(piece)[:, 2].mean() for piece in pieces]
    assert middles == sorted(middles) and middles[-1] - middles[0] > 10
    single = np.zeros_like(lesion)
    single[1, 2, 3] = True
    assert len(cut_patches(single, (1, 1, 1), 4)) == 1
