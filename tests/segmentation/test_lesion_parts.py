"""Parts away from the lungs are left out by their own distance, not by that of a box round them."""

import numpy as np
import SimpleITK as sitk

from radiogen.segmentation.lesion_map import keep_lesions, share_near_lungs
from radiogen.volume import Box, array_of, volume_like


def chest(lungs, lesion):
    grid = sitk.Image((60, 50, 40), sitk.sitkUInt8)
    grid.SetSpacing((2.0, 2.0, 3.0))
    return volume_like(lungs.astype(np.uint8), grid), volume_like(lesion.astype(np.uint8), grid)


def test_a_part_beside_the_lungs_whose_box_touches_them_is_left_out():
    lungs = np.zeros((40, 50, 60), bool)
    lungs[5:35, 5:25, 5:30] = True
    lesion = np.zeros_like(lungs)
    for step in range(24):  # a thin oblique band of muscle that leaves the lungs' corner
        lesion[10:14, 24 + step, 29 + step : 32 + step] = True
    lesion[15:20, 10:16, 12:18] = True
    lungs_image, found = chest(lungs, lesion)
    kept, said = keep_lesions(found, lungs_image, smallest_ml=0.03)
    labels = array_of(kept)
    assert labels.max() == 1 and (labels > 0).sum() == 5 * 6 * 6
    assert any("1 parts" in line and "away from the lungs" in line for line in said)


def test_a_mass_half_in_the_lungs_is_kept_however_far_it_reaches():
    lungs = np.zeros((40, 50, 60), bool)
    lungs[:, :, :30] = True
    z, y, x = np.ogrid[:40, :50, :60]
    ball = ((z - 20) * 3) ** 2 + ((y - 25) * 2) ** 2 + ((x - 30) * 2) ** 2 <= 45**2
    lungs_image, found = chest(lungs & ~ball, ball)  # the lung mask leaves the mass out
    kept, _ = keep_lesions(found, lungs_image, smallest_ml=0.03)
    assert (array_of(kept) > 0).sum() == ball.sum()


def test_the_share_near_the_lungs_is_counted_in_millimetres():
    lungs = np.zeros((40, 50, 60), bool)
    lungs[:, :, :10] = True
    lesion = np.zeros_like(lungs)
    lesion[20, 25, 10:20] = True  # 2, 4, ... 20 mm from the last voxel of lung
    lungs_image, part = chest(lungs, lesion)
    assert share_near_lungs(part, 1, lungs_image, Box((10, 25, 20), (10, 1, 1))) == 0.5
    assert share_near_lungs(part, 1, part == 9, Box((10, 25, 20), (10, 1, 1))) == 0.0
