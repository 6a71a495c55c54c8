from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from radiogen.errors import OutlineError
from radiogen.io.masks import mask_on_grid
from radiogen.volume import Box, array_of, crop, grid_with_spacing, resample_to

SOURCE = Path("mask.nii.gz")


def ct(size=(11, 9, 7)):
    volume = sitk.Image(size, sitk.sitkInt16)
    volume.SetSpacing((0.75, 1.25, 2.5))
    volume.SetOrigin((-20.0, 10.0, -100.0))
    return volume


def block(grid):
    mask = sitk.Image(grid.GetSize(), sitk.sitkUInt8)
    mask.CopyInformation(grid)
    mask[3:7, 2:6, 2:5] = 1
    return mask


def test_a_mask_on_the_grid_stays_as_it_is():
    laid, said = mask_on_grid(block(ct()), ct(), SOURCE)
    assert np.array_equal(array_of(laid), array_of(block(ct())))
    assert said == []


def test_a_piece_cut_from_the_grid_is_put_back_in_its_place():
    piece = crop(block(ct()), Box((2, 1, 1), (7, 6, 5)))
    laid, said = mask_on_grid(piece, ct(), SOURCE)
    assert np.array_equal(array_of(laid), array_of(block(ct())))
    assert "placed on the CT" in said[0]


def test_a_flipped_mask_is_put_back_in_its_place():
    laid, _ = mask_on_grid(sitk.Flip(block(ct()), (False, True, True)), ct(), SOURCE)
    assert np.array_equal(array_of(laid), array_of(block(ct())))


def test_a_finer_mask_is_resampled_and_the_volume_said():
    fine = resample_to(block(ct()), grid_with_spacing(ct(), (0.25, 0.25, 0.5)), outside=0, nearest=True)
    laid, said = mask_on_grid(fine, ct(), SOURCE)
    assert np.array_equal(array_of(laid), array_of(block(ct())))
    assert said


def test_a_mask_of_another_size_that_does_not_say_where_it_lies_is_refused():
    mask = sitk.GetImageFromArray(np.ones((5, 9, 11), np.uint8))
    with pytest.raises(OutlineError, match=r"does not say where it lies, and it has \(11, 9, 5\) voxels"):
        mask_on_grid(mask, ct(), SOURCE)


@pytest.mark.parametrize("size", [(11, 9, 6), (11, 9, 8), (10, 9, 7)])
def test_a_mask_of_another_size_at_the_same_corner_is_refused(size):
    mask = block(ct(size))
    with pytest.raises(OutlineError, match="starts at the CT's corner"):
        mask_on_grid(mask, ct(), SOURCE)


def test_a_mask_beside_the_ct_is_refused_with_the_distance():
    mask = block(ct())
    mask.SetOrigin((-20.0, 10.0, -40.0))
    with pytest.raises(OutlineError, match=r"outside the CT by 53\.8 mm"):
        mask_on_grid(mask, ct(), SOURCE)


def test_an_empty_mask_is_refused():
    with pytest.raises(OutlineError, match="is empty"):
        mask_on_grid(block(ct()) * 0, ct(), SOURCE)
