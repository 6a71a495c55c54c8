"""What travels in a page: small enough, where it belongs, and coarser only where it must be."""

import numpy as np
import pytest
import SimpleITK as sitk

from radiogen.io.nifti import read_volume
from radiogen.report.viewer_volumes import HIGH_HU, LOW_HU, STEP_HU, pack, pack_for_page, pack_solid
from radiogen.volume import array_of


@pytest.fixture(scope="module")
def chest():
    """Noise in which nothing packs well, oblique, with a lesion in one corner of the lungs."""
    rng = np.random.default_rng(0)
    ct = sitk.GetImageFromArray(rng.normal(-400, 300, (40, 96, 96)).round().astype(np.int16))
    ct.SetSpacing((1.5, 1.5, 4.0))
    ct.SetOrigin((-70.0, 20.0, 300.0))
    angle = np.radians(12)
    ct.SetDirection((np.cos(angle), -np.sin(angle), 0, np.sin(angle), np.cos(angle), 0, 0, 0, 1))
    masks = {}
    for name, low, high in (("lungs", 30, 66), ("lesion", 30, 36)):
        array = np.zeros((40, 96, 96), np.uint8)
        array[12:26, low:high, low:high] = 1
        masks[name] = sitk.GetImageFromArray(array)
        masks[name].CopyInformation(ct)
    return ct, masks


def unpacked(content, tmp_path):
    (tmp_path / "volume.nii.gz").write_bytes(content)
    return read_volume(tmp_path / "volume.nii.gz")


def centre_mm(mask):
    shapes = sitk.LabelShapeStatisticsImageFilter()
    shapes.Execute(mask)
    return np.array(shapes.GetCentroid(1))


def test_within_the_limit_no_voxel_moves_and_no_value_changes_by_more_than_a_step(chest, tmp_path):
    ct, masks = chest
    packed = pack_for_page(ct, masks)
    assert not packed.is_coarser and packed.is_cut
    small = unpacked(packed.ct, tmp_path)
    point = ct.TransformIndexToPhysicalPoint((33, 34, 19))
    index = small.TransformPhysicalPointToIndex(point)
    assert np.allclose(small.TransformIndexToPhysicalPoint(index), point)
    whole = sitk.Resample(ct, small, sitk.Transform(), sitk.sitkNearestNeighbor)
    clipped = np.clip(array_of(whole), LOW_HU, HIGH_HU)
    assert np.abs(array_of(small) - clipped).max() <= STEP_HU / 2


def test_beyond_the_limit_voxels_grow_until_it_is_kept(chest, tmp_path):
    ct, masks = chest
    limit = len(pack_for_page(ct, masks).ct) // 4
    packed = pack_for_page(ct, masks, limit)
    assert len(packed.ct) <= limit and packed.is_coarser
    assert all(new >= old for new, old in zip(packed.spacing_mm, packed.original_mm, strict=True))
    lesion = unpacked(packed.masks["lesion"], tmp_path)
    assert np.abs(centre_mm(lesion) - centre_mm(masks["lesion"])).max() < max(packed.spacing_mm)
    ct_mean = array_of(unpacked(packed.ct, tmp_path)).mean()
    assert ct_mean == pytest.approx(-400, abs=8)


def test_the_edge_of_the_lungs_is_that_of_their_axial_planes(chest, tmp_path):
    ct, masks = chest
    edge = array_of(unpacked(pack_for_page(ct, masks).masks["lungs"], tmp_path))
    planes = [(plane > 0).sum() for plane in edge]
    assert sorted(set(planes)) == [0, 4 * 36 - 4] and planes.count(140) == 14  # a square of 36 in 14 planes


def test_the_same_volume_gives_the_same_bytes(chest):
    ct, masks = chest
    assert pack(ct) == pack(ct) and pack_for_page(ct, masks) == pack_for_page(ct, masks)


def test_the_solid_holds_the_volume_of_the_mask(chest, tmp_path):
    _, masks = chest
    solid = unpacked(pack_solid(masks["lungs"]), tmp_path)
    inside = array_of(solid).sum() / 255 * np.prod(solid.GetSpacing())
    assert inside == pytest.approx(
        array_of(masks["lungs"]).sum() * np.prod(masks["lungs"].GetSpacing()), rel=0.05
    )
