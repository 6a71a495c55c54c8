"""The sliding window: the blend of a known library, windows that are left out, slabs that fit together."""

import numpy as np
import pytest
import torch

from radiogen.segmentation.sliding import NO_LESION, cut, inside, slide, windows_over

CPU = torch.device("cpu")


def pointwise(image, prior):
    """An answer that differs at every voxel and depends on where in the window it lies."""
    place = torch.linspace(0, 1, image.shape[-1])
    return image.sum(dim=1, keepdim=True) * 3 - prior + place


def reader(image, prior):
    return lambda box: (np.stack([cut(each, box, 0) for each in image]), cut(prior, box, 0))


def joined(slabs, shape):
    whole = np.full(shape, np.nan, np.float32)
    for slab in slabs:
        whole[slab.start : slab.start + slab.values.shape[1]] = slab.values[0]
    return whole


@pytest.mark.parametrize("shape", [(40, 37, 50), (16, 70, 32), (9, 33, 20), (75, 16, 16)])
@pytest.mark.parametrize("batch", [1, 3])
def test_the_blend_is_that_of_monai(shape, batch):
    from monai.inferers import sliding_window_inference

    rng = np.random.default_rng(0)
    image = rng.random((2, *shape), dtype=np.float32)
    prior = rng.random(shape, dtype=np.float32)
    size = (16, 32, 32)
    found = joined(
        slide(shape, windows_over(shape, size), reader(image, prior), pointwise, CPU, batch), shape
    )
    both = torch.from_numpy(np.concatenate([image, prior[None]]))[None]
    expected = sliding_window_inference(
        both, size, batch, lambda x: pointwise(x[:, :2], x[:, 2:]), overlap=0.5, mode="gaussian"
    )
    assert np.abs(found - expected[0, 0].numpy()).max() < 1e-5


def test_windows_that_are_left_out_are_not_computed():
    shape, size = (48, 32, 32), (16, 32, 32)
    wanted = np.zeros(shape, bool)
    wanted[45] = True
    boxes = [box for box in windows_over(shape, size) if wanted[inside(box, shape)].any()]
    calls = []

    def call(image, prior):
        calls.append(image.shape)
        return torch.ones_like(prior)

    image, prior = np.zeros((1, *shape), np.float32), np.zeros(shape, np.float32)
    found = joined(slide(shape, boxes, reader(image, prior), call, CPU), shape)
    assert len(calls) == 1
    assert (found[:32] == NO_LESION).all() and np.allclose(found[32:], 1)


def test_no_window_at_all_gives_no_lesion_everywhere():
    found = joined(
        slide((20, 8, 8), [], reader(np.zeros((1, 20, 8, 8)), np.zeros((20, 8, 8))), pointwise, CPU),
        (20, 8, 8),
    )
    assert (found == NO_LESION).all()
