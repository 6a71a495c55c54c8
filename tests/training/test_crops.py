"""Crops and close-ups: what a patch shows, what counts in the loss, how a crop is laid into lungs."""

import json
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from radiogen.io.cases import Case
from radiogen.io.nifti import write_volume
from radiogen.model.network_input import Preprocessing
from radiogen.training.laid_crops import LesionCrop, draw_crop, lay_crop
from radiogen.training.patches import UNKNOWN, PatchDataset
from radiogen.training.prepared import learnable, prepare, read_about
from radiogen.training.settings import load_preset
from radiogen.training.step import batch_dice_ce, patch_dice_ce, segmentation_loss
from radiogen.volume import array_of, volume_like

SETTINGS = Preprocessing(
    spacing_mm=(2, 2, 2),
    layout="patches",
    size=(32, 32, 32),
    box_fills=(0.4, 0.75),
    windows=({"low_hu": -1000, "high_hu": 400},),
)
RAMP = np.array([2.0, -1.5, 0.8])  # HU for a millimetre along x, y, z: linear interpolation is exact
WHOLE = (slice(None),) * 3


def ramp_at(mm):
    return mm @ RAMP - 400


def ramp_case(folder, size, spacing, origin, center, radius, is_crop):
    """A case whose HU is linear in space, with a ball for a lesion."""
    grid = sitk.Image([int(n) for n in size], sitk.sitkInt16)
    grid.SetSpacing(spacing)
    grid.SetOrigin(origin)
    z, y, x = np.meshgrid(*(np.arange(n) for n in size[::-1]), indexing="ij")
    mm = np.stack([x, y, z], axis=-1) * np.array(spacing) + origin
    ball = ((mm - center) ** 2).sum(axis=-1) <= radius**2
    for name, voxels in (
        ("ct", np.rint(ramp_at(mm)).astype(np.int16)),
        ("lesion", ball.astype(np.uint8)),
        ("lungs", np.ones(ball.shape, np.uint8)),
    ):
        write_volume(volume_like(voxels, grid), folder / f"{name}.nii.gz")
    about = {"case_id": folder.name, "patient_id": folder.name} | ({"crop": True} if is_crop else {})
    (folder / "case.json").write_text(json.dumps(about))
    return Case(folder.name, folder.name, folder)


spacings = st.tuples(st.floats(0.6, 1.2), st.floats(0.6, 1.2), st.floats(0.8, 3.0))


@settings(max_examples=8, deadline=None)
@given(spacings, st.booleans(), st.integers(0, 2**16))
def test_a_crop_at_any_spacing_gives_the_voxels_that_the_whole_scan_would_give(
    tmp_path_factory, spacing, is_crop, seed
):
    rng = np.random.default_rng(seed)
    extent = np.array([40.0, 44.0, 36.0]) if is_crop else np.array([90.0, 96.0, 80.0])
    size = np.ceil(extent / spacing).astype(int)
    origin = rng.uniform(-50, 50, 3)
    center = origin + extent / 2 + rng.uniform(-3, 3, 3)
    folder = tmp_path_factory.mktemp("ramp")
    case = ramp_case(folder / "case", size, spacing, origin, center, rng.uniform(4, 8), is_crop)
    [made] = prepare([case], SETTINGS, folder / "cache")
    close_up = made.close_ups[1]
    about = read_about(made.path)["close_ups"]["1"]
    hu = close_up.read("hu", WHOLE)
    z, y, x = np.meshgrid(*(np.arange(n) for n in hu.shape), indexing="ij")
    mm = np.stack([x, y, z], axis=-1) * np.array(about["spacing"]) + about["origin"]
    inside = np.ones(hu.shape, bool)  # the outermost half voxel of a scan has one neighbour only
    for axis in range(3):
        inside &= (mm[..., axis] >= origin[axis]) & (
            mm[..., axis] <= origin[axis] + (size[axis] - 1) * spacing[axis]
        )
    assert np.abs(hu - ramp_at(mm))[inside].max() <= 1.5  # two roundings to whole HU
    lesion = close_up.read("lesion", WHOLE) == 1
    far = np.abs(
        np.sqrt(((mm - center) ** 2).sum(axis=-1)) - np.sqrt(((mm[lesion] - center) ** 2).sum(-1)).max()
    )
    assert lesion.any() and lesion[far > 2 * max(spacing)].sum() <= lesion.sum()
    assert np.allclose(close_up.spacing_mm, 2 * close_up.zoom)


@pytest.fixture
def crop_case(tmp_path):
    return ramp_case(tmp_path / "crop", (30, 30, 12), (0.8, 0.8, 2.0), (5, 6, 7), (17, 18, 18), 5, True)


def plain(*overrides):
    keys = ["affine", "elastic", "kernel", "thick", "dose", "noise_hu", "shift_hu", "slope"]
    still = [f"training.augmentation.{key}=0" for key in keys] + ["training.augmentation.flip=false"]
    return load_preset("small", overrides=[*still, *overrides]).training


def test_where_a_crop_ends_nothing_is_known(crop_case, tmp_path):
    prepared = prepare([crop_case], SETTINGS, tmp_path / "cache")
    data = PatchDataset(prepared, SETTINGS, plain("training.priors=[points]"), 0)
    image, prior, target = data[0, 0]
    assert image.shape == prior.shape == target.shape == (1, 32, 32, 32)
    unknown = target == UNKNOWN
    assert 0.3 < unknown.float().mean() < 0.98  # 24 x 24 x 24 mm of 64 x 64 x 64
    assert set(target[~unknown].unique().tolist()) == {0.0, 1.0}
    assert prior.sum() > 0 and (target[prior > 0] == 1).any()  # the click lies in the lesion
    boxed = PatchDataset(prepared, SETTINGS, plain("training.priors=[box]"), 0)[0, 0]
    assert (boxed[2] == 1).sum() > 3 * (target == 1).sum()  # a box is seen in finer voxels


@pytest.mark.parametrize("loss", [patch_dice_ce, batch_dice_ce, None])
def test_what_is_unknown_does_not_count_in_the_loss(loss):
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 1, 8, 8, 8, generator=rng)
    target = (torch.rand(2, 1, 8, 8, 8, generator=rng) > 0.7).float()
    target[0, :, :, :3] = UNKNOWN
    if loss is None:
        whole = segmentation_loss("patch")

        def loss(logits, target):
            return whole(lambda *_: logits, (None, None, target))

    given = logits.clone().requires_grad_()
    loss(given, target).backward()
    assert (given.grad[target < 0] == 0).all() and (given.grad[target >= 0] != 0).any()
    # The known part of the first patch counts as a patch of its own would.
    if loss is patch_dice_ce:
        alone = loss(logits[:1, :, :, 3:], target[:1, :, :, 3:]) + loss(logits[1:], target[1:])
        assert float(loss(logits, target)) == pytest.approx(float(alone) / 2, abs=1e-5)


def lesion_crop():
    z, y, x = np.meshgrid(*(np.arange(n) for n in (10, 16, 16)), indexing="ij")
    ball = ((z - 4.5) ** 2 + ((y - 7.5) / 1.5) ** 2 + ((x - 7.5) / 1.5) ** 2) < 9
    hu = np.where(ball, 40, -850).astype(np.float32)
    hu[:, :2] = 60  # the chest wall beside it
    return LesionCrop(hu, ball, (1.5, 1.5, 2.0))


def lungs_of(shape):
    lungs = np.zeros(shape, bool)
    lungs[3:-3, 3:-3, 3:-3] = True
    return np.where(lungs, np.float32(-800), np.float32(30)), lungs


def test_a_laid_crop_shows_its_lesion_and_leaves_the_rest_of_the_scan():
    crop = lesion_crop()
    hu, lungs = lungs_of((40, 48, 48))
    taken = np.zeros(hu.shape, bool)
    rng = np.random.default_rng(3)
    added = lay_crop(hu, lungs, taken, crop.spacing_mm, crop, rng)
    assert added.kind == "crop" and added.lesion.sum() == crop.lesion.sum()
    assert np.allclose(added.hu[added.lesion], crop.hu[crop.lesion])
    changed = added.hu != hu
    where = np.argwhere(added.lesion)
    low, high = where.min(axis=0) - 5, where.max(axis=0) + 6
    near = np.zeros(hu.shape, bool)
    near[tuple(slice(max(0, a), b) for a, b in zip(low, high, strict=True))] = True
    assert not (changed & ~near).any()
    assert not (added.hu[lungs & ~added.lesion] > 0).any()  # its chest wall stayed behind
    assert np.array_equal(hu, lungs_of((40, 48, 48))[0])


def test_a_crop_is_laid_into_aerated_lung_beside_what_is_there():
    crop = lesion_crop()
    hu, lungs = lungs_of((40, 48, 48))
    taken = lungs.copy()
    assert lay_crop(hu, lungs, taken, crop.spacing_mm, crop, np.random.default_rng(0)) is None
    assert lay_crop(hu * 0, lungs, ~lungs, crop.spacing_mm, crop, np.random.default_rng(0)) is None
    coarse = lay_crop(hu, lungs, ~lungs & False, (3.0, 3.0, 4.0), crop, np.random.default_rng(0))
    assert coarse.lesion.sum() == pytest.approx(crop.lesion.sum() / 8, rel=0.4)  # the same millimetres


def test_a_crop_is_mirrored_and_scaled_as_drawn(crop_case, tmp_path):
    [made] = prepare([crop_case], SETTINGS, tmp_path / "cache")
    one, other = (draw_crop(made, 1, np.random.default_rng(seed)) for seed in (1, 1))
    assert np.array_equal(one.hu, other.hu) and one.spacing_mm == other.spacing_mm
    assert one.lesion.any() and one.lesion.sum() == (made.read("lesion", WHOLE) == 1).sum()


def test_a_host_needs_no_outline_where_only_its_lungs_are_shown(crop_case, tmp_path):
    host = ramp_case(tmp_path / "host", (40, 40, 40), (2, 2, 2), (0, 0, 0), (40, 40, 40), 8, False)
    host.lesion_path.unlink()
    host = replace(host, cohort="hosts")
    kept, messages = learnable([crop_case, host])
    assert kept == [crop_case] and "host" in messages[0]
    assert learnable([crop_case, host], lungs_only_cohorts=["hosts"]) == ([crop_case, host], [])


def test_without_a_box_a_crop_is_seen_in_the_lungs_of_a_scan(crop_case, tmp_path):
    host = ramp_case(tmp_path / "host", (40, 40, 40), (2, 2, 2), (0, 0, 0), (40, 40, 40), 8, False)
    air = array_of(host.ct()) * 0 - 800
    write_volume(volume_like(air.astype(np.int16), host.ct()), host.ct_path)
    host.lesion_path.unlink()
    host = replace(host, cohort="hosts")
    overrides = ["training.priors=[lungs]", "training.lungs_only_cohorts=[hosts]", "training.lesion_share=1"]
    prepared = prepare([crop_case, host], SETTINGS, tmp_path / "cache")
    data = PatchDataset(prepared, SETTINGS, plain(*overrides), 0)
    image, _, target = data[0, 0]
    assert (target == 1).any() and (target >= 0).all()
    assert image[target == 1].mean() > image[target == 0].mean() + 0.2
