"""Pooling of a network's levels: by hand, over pieces, in batches, and beside the edge of a case."""

import numpy as np
import pytest
import torch

from radiogen.errors import ConfigError
from radiogen.features.case import measure_case
from radiogen.features.deep import (
    RegionStatistics,
    deep_features,
    make_prior,
    paper_features,
    run_windows,
    tile_region,
    window_round,
)
from radiogen.features.settings import FeatureOptions
from radiogen.io.cases import find_cases
from radiogen.model.network_input import to_network_grid
from radiogen.volume import array_of


def test_pooling_counts_a_cell_by_its_share_of_the_region():
    output = torch.tensor([[[[1.0, 5.0]]], [[[2.0, 2.0]]]])  # (2, 1, 1, 2)
    inside = torch.zeros(2, 2, 4)
    inside[:, :, 1:] = 1  # half of the first cell, all of the second
    pool = RegionStatistics()
    pool.add(output, inside)
    found = pool.result(2)
    mean = (0.5 * 1 + 1 * 5) / 1.5
    assert found["mean"] == pytest.approx([mean, 2])
    assert found["std"] == pytest.approx([np.sqrt((0.5 * (1 - mean) ** 2 + (5 - mean) ** 2) / 1.5), 0])
    assert found["max"].tolist() == [5, 2]


def test_pieces_give_what_the_whole_gives():
    output = torch.rand(3, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    inside = (torch.rand(8, 8, 8, generator=torch.Generator().manual_seed(1)) > 0.6).float()
    whole, pieces = RegionStatistics(), RegionStatistics()
    whole.add(output, inside)
    pieces.add(output[:, :2], inside[:4])
    pieces.add(output[:, 2:], inside[4:])
    for kind, values in whole.result(3).items():
        assert pieces.result(3)[kind] == pytest.approx(values)


def test_a_region_that_is_nowhere_is_nan_never_zero():
    pool = RegionStatistics()
    pool.add(torch.ones(2, 1, 1, 1), torch.zeros(2, 2, 2))
    assert all(np.isnan(values).all() for values in pool.result(2).values())


@pytest.fixture
def sample(made_cases, tiny_model):
    case = find_cases(made_cases)[0]
    return to_network_grid(case.ct(), case.lungs(), case.lesion(), tiny_model.config.preprocessing)


def windows_of(sample, model):
    lesion = array_of(sample.lesion) == 1
    lungs = array_of(sample.lungs) != 0
    size = model.config.preprocessing.size
    windows = [window_round("lesion", {"": lesion}, make_prior(model, sample, lesion), size)]
    windows.append(window_round("other", {"": lungs & ~lesion}, make_prior(model, sample, lungs), size))
    return windows


def test_batches_give_what_single_windows_give(sample, tiny_model):
    windows = [*windows_of(sample, tiny_model), *tile_region("lungs", "lungs", array_of(sample.lungs) != 0,
             make_prior(tiny_model, sample, array_of(sample.lungs) != 0), (32, 32, 32))]  # fmt: skip
    one = deep_features(tiny_model, sample, windows, batch=1)
    many = deep_features(tiny_model, sample, windows, batch=8)
    assert list(one) == list(many) == ["lesion", "other", "lungs"]
    for key, features in one.items():
        assert list(features) == list(many[key])
        assert list(features.values()) == pytest.approx(list(many[key].values()), rel=1e-4, abs=1e-5)


def test_the_mean_is_that_of_the_level_under_the_lesion(sample, tiny_model):
    window = windows_of(sample, tiny_model)[0]
    found = deep_features(tiny_model, sample, [window], ["decoder1"])["lesion"]
    _, outputs = next(run_windows(tiny_model, sample, [window], ["decoder1"], 1))
    level = outputs["decoder1"].numpy()
    inside = window.regions[""] > 0
    assert level.shape[1:] == inside.shape
    for channel in range(len(level)):
        values = level[channel][inside]
        assert found[f"deep_decoder1_mean_{channel:03d}"] == pytest.approx(values.mean(), abs=1e-5)
        assert found[f"deep_decoder1_max_{channel:03d}"] == pytest.approx(values.max(), abs=1e-6)


def test_a_window_stays_in_the_case_and_tiles_hold_every_voxel_once(sample, tiny_model):
    lungs = array_of(sample.lungs) != 0
    shape = (40, 64, 48)
    corner = np.zeros(shape, bool)
    corner[0, 63, 0] = True
    window = window_round("c", {"": corner}, np.ones(shape, np.float32), (32, 32, 32))
    assert window.start == (0, 32, 0) and window.size == (32, 32, 32)
    tiles = tile_region("lungs", "lungs", lungs, np.ones(lungs.shape, np.float32), (16, 16, 16))
    assert sum(tile.regions["lungs"].sum() for tile in tiles) == lungs.sum()
    assert len({tile.start for tile in tiles}) == len(tiles)


def test_a_level_that_is_not_there_is_an_error(sample, tiny_model):
    with pytest.raises(ConfigError, match="decoder9"):
        deep_features(tiny_model, sample, windows_of(sample, tiny_model), ["decoder9"])


def test_the_published_features_need_the_published_layout(sample, tiny_model):
    with pytest.raises(ConfigError, match="squeeze"):
        paper_features(tiny_model, sample, array_of(sample.lesion) != 0)


def test_ring_lungs_and_control_have_columns_of_their_own(made_cases, tiny_model):
    case = find_cases(made_cases)[0]
    options = FeatureOptions(ring_mm=(2, 20), lungs=True)
    row = measure_case(case, case.lesion_path, tiny_model, options, None).rows[0]
    plain = measure_case(case, case.lesion_path, tiny_model, FeatureOptions(outside=False), None).rows[0]
    for level in ("encoder2", "decoder2"):
        for stem in ("deep", "deep_ring", "deep_lungs", "outside_deep"):
            assert np.isfinite(row[f"{stem}_{level}_mean_000"])
    own = [row[f"{stem}_decoder2_std_000"] for stem in ("deep", "deep_ring", "deep_lungs", "outside_deep")]
    assert len(set(own)) == 4
    assert -1000 < row["outside_intensity_mean_hu"] < row["intensity_mean_hu"]
    assert row["intensity_ring_mean_hu"] < row["intensity_mean_hu"]
    assert not any(
        "ring" in name or "lungs_" in name or "outside" in name for name in plain if "deep" in name
    )
