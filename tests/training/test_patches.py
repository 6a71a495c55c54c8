"""Patches: the same whoever draws them, where the lungs are, and clear of lesions that must not be seen."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_cases import tiny_cases
from torch.utils.data import DataLoader
from training.tiny_run import tiny_settings

from radiogen.errors import CaseError, ConfigError
from radiogen.io.cases import find_cases
from radiogen.phantoms.chest import ChestSize
from radiogen.training import patches as patches_module
from radiogen.training import synthetic_lesions as synthetic_module
from radiogen.training.batches import epoch_draws
from radiogen.training.patches import PatchDataset
from radiogen.training.prepared import PreparedCase, prepare, read_padded
from radiogen.volume import AIR_HU

CHEST = ChestSize((96, 80, 64), (3.0, 3.2, 3.5))
FINE = ("preprocessing.spacing_mm=[3, 3, 3.5]", "training.patches_per_case=40")
OFF = ("flip", "affine", "elastic", "kernel", "thick", "dose", "noise_hu", "shift_hu", "slope")
PLAIN = f"training.augmentation={{{', '.join(f'{name}: 0' for name in OFF)}}}"
WARPED = "training.augmentation={affine: 1, elastic: 1, rotation_deg: 30, scale: 0.3}"
LUNGS_ONLY = "training.lungs_only_cohorts=[phantoms]"
WHOLE = (slice(None),) * 3
MADE_HU = 137.0


class Made:
    """A synthetic lesion, as `add_synthetic_lesion` returns it."""

    def __init__(self, hu, lesion):
        self.hu, self.lesion, self.kind = hu, lesion, "solid"


def cube(hu, lungs, spacing_mm, rng, sizes_mm, taken=None, central=False, outside=True):
    """A cube of five voxels somewhere in the lungs."""
    free = np.argwhere(lungs & ~taken)
    middle = free[rng.integers(len(free))]
    lesion = np.zeros(hu.shape, bool)
    lesion[tuple(slice(max(0, m - 2), m + 3) for m in middle)] = True
    lesion &= ~taken
    return Made(np.where(lesion, np.float32(MADE_HU), hu), lesion)


@pytest.fixture(autouse=True)
def cubes_for_lesions(monkeypatch):
    monkeypatch.setattr(synthetic_module, "add_synthetic_lesion", cube)


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    root = tmp_path_factory.mktemp("patches")
    tiny_cases(root / "cases", 3, size=CHEST)
    settings = tiny_settings(*FINE)
    return prepare(find_cases(root / "cases"), settings.preprocessing, root / "cache")


def dataset(cases, *more, seed=0):
    settings = tiny_settings(*FINE, *more)
    return PatchDataset(cases, settings.preprocessing, settings.training, seed)


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_a_patch_depends_on_seed_epoch_and_draw_alone(cases):
    data = dataset(cases, "training.synthetic_lesions=0.5")
    again = dataset(cases, "training.synthetic_lesions=0.5")
    first = [data[1, number] for number in range(12)]
    assert all(same(first[number], again[1, number]) for number in reversed(range(12)))
    assert not same(data[1, 0], data[2, 0])
    assert not same(data[1, 0], data[1, 3])
    assert not same(data[1, 0], dataset(cases, "training.synthetic_lesions=0.5", seed=1)[1, 0])


def test_any_number_of_workers_gives_the_same_patches(cases):
    data = dataset(
        cases, "training.patches_per_case=4"
    )  # its synthetic lesions are patched in this process only
    seen = []
    for workers in (0, 2):
        sampler = epoch_draws(len(data), seed=3)
        seen.append(list(DataLoader(data, batch_size=2, sampler=sampler, num_workers=workers)))
    assert len(seen[0]) == 6
    assert all(same(one, other) for one, other in zip(*seen, strict=True))


def test_an_epoch_draws_each_case_equally_often_in_an_order_of_its_own():
    drawn = [epoch_draws(12, seed=0, epoch=epoch) for epoch in (0, 1)]
    assert all(now == epoch for epoch in (0, 1) for now, _ in drawn[epoch])
    orders = [[number for _, number in draws] for draws in drawn]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(12))
    assert orders[0] != orders[1]


@pytest.mark.parametrize("count", [12, 13])
def test_processes_share_the_draws_of_an_epoch_batch_by_batch(count):
    whole = epoch_draws(count, seed=5)
    parts = [epoch_draws(count, seed=5, own_rank=rank, ranks=3) for rank in range(3)]
    assert [len(part) for part in parts] == [4, 4, 4]
    assert [draw for together in zip(*parts, strict=True) for draw in together] == whole[:12]


def test_a_patch_has_the_shapes_and_values_that_a_network_takes(cases):
    data = dataset(cases, "training.synthetic_lesions=0.5", "training.priors=[box, lungs, mask, none]")
    for number in range(20):
        image, prior, target = data[0, number]
        assert image.shape == (2, 32, 32, 32) and prior.shape == target.shape == (1, 32, 32, 32)
        assert image.dtype == prior.dtype == target.dtype == torch.float32
        assert image.min() >= 0 and image.max() <= 1
        assert set(target.unique().tolist()) <= {0.0, 1.0} and set(prior.unique().tolist()) <= {0.0, 1.0}


def test_flips_turn_image_prior_and_target_together(cases):
    plain = dataset(cases, PLAIN)
    flipped = dataset(cases, PLAIN.replace("flip: 0", "flip: 1"))
    turned = 0
    for number in range(16):
        one, other = plain[0, number], flipped[0, number]
        axes = [
            axes
            for axes in ((), (1,), (2,), (3,), (1, 2), (1, 3), (2, 3), (1, 2, 3))
            if same([part.flip(axes) for part in one], other)
        ]
        assert axes
        turned += axes[0] != ()
    assert 8 < turned < 16


def test_a_box_holds_its_lesion_wherever_the_warp_has_moved_it(cases):
    exact = ("training.box_jitter=0", "training.box_loosen=0", "training.box_careless=0")
    data = dataset(cases, WARPED, *exact, "training.priors=[box]", "training.synthetic_lesions=0.5")
    boxed = 0
    for number in range(40):
        _, prior, target = data[0, number]
        if target.any():
            assert (prior[target > 0] == 1).all()
            places = target[0].nonzero()
            low, high = places.min(dim=0).values, places.max(dim=0).values + 1
            assert (prior[0].sum() == (high - low).prod()) or 0 in low or 32 in high
            boxed += 1
    assert boxed > 30


def test_a_patch_without_a_lesion_lies_over_lung(cases):
    data = dataset(cases, PLAIN, "training.lesion_share=0", "training.priors=[lungs]")
    shares = [data[0, number][1].mean().item() for number in range(30)]
    assert min(shares) > 0.15


def test_the_share_of_patches_with_a_made_lesion_is_the_one_asked_for(cases, monkeypatch):
    seen = []
    monkeypatch.setattr(
        synthetic_module, "add_synthetic_lesion", lambda *a: seen.append(cube(*a)) or seen[-1]
    )
    data = dataset(cases, "training.synthetic_lesions=0.3")
    for number in range(100):
        data[0, number]
    assert 15 <= len(seen) <= 45
    seen.clear()
    dataset(cases)[0, 0]
    assert not seen


def test_a_made_lesion_is_in_image_and_target_and_a_box_asks_for_it_alone(cases):
    data = dataset(cases, PLAIN, "training.priors=[box]", "training.synthetic_lesions=1")
    window = data.preprocessing.windows[0]
    grey = (MADE_HU - window.low_hu) / (window.high_hu - window.low_hu)
    for number in range(20):
        image, _, target = data[0, number]
        assert 0 < target.sum() <= 125
        assert torch.allclose(image[0][target[0] > 0], torch.tensor(grey, dtype=torch.float32))


def test_a_small_made_lesion_is_seen_in_voxels_as_fine_as_its_box_gets_in_use(cases, monkeypatch):
    seen = []
    monkeypatch.setattr(synthetic_module, "add_synthetic_lesion", lambda *a: seen.append(a) or cube(*a))
    data = dataset(
        cases, PLAIN, "training.priors=[box]", "training.synthetic_lesions=1", "training.synthetic_mm=[5,90]"
    )
    for number in range(30):
        data[0, number]
    longest = 32 * 3.0  # mm of the window on its shortest axis
    for _, _, spacing_mm, _, sizes_mm, _, central, _ in seen:
        zoom = spacing_mm[0] / 3.0
        share = sizes_mm[0] / longest / zoom
        assert central and np.allclose(spacing_mm, np.array((3.0, 3.0, 3.5)) * zoom)
        assert 0.3 - 1e-4 <= share <= 0.75 + 1e-4 or zoom == pytest.approx(0.25) or zoom == 1.0
    assert {round(one[2][0], 2) for one in seen} > {0.75}


@pytest.mark.parametrize("prior", ["box", "lungs"])
@pytest.mark.parametrize("where", ["always", "box", "never"])
def test_made_tumours_lie_outside_the_lungs_where_they_may(cases, monkeypatch, prior, where):
    seen = []
    monkeypatch.setattr(synthetic_module, "add_synthetic_lesion", lambda *a: seen.append(a[-1]) or cube(*a))
    settings = (f"training.priors=[{prior}]", f"training.synthetic_outside={where}")
    data = dataset(cases, PLAIN, *settings, "training.synthetic_lesions=1")
    for number in range(5):
        data[0, number]
    assert set(seen) == {where == "always" or (where, prior) == ("box", "box")}


def test_a_true_lesion_by_the_wall_stays_in_the_middle_of_its_finer_patch(cases):
    exact = (
        "training.box_jitter=0",
        "training.box_loosen=0",
        "training.box_careless=0",
        "training.lesion_share=1",
    )
    data = dataset(cases, PLAIN, *exact, "training.priors=[box]")
    for number in range(12):
        case = data.cases[number % len(data.cases)]
        _, _, target = data[0, number]
        shares = [(e.stop - e.start) / 32 for box in case.lesion_boxes.values() for e in box]
        assert target.any() and target[0].nonzero().float().mean(0).sub(16).abs().max() < 12
        assert target.sum() > 0 and max(shares) < 1


def test_boxes_without_a_lesion_ask_for_nothing_and_hold_none(cases):
    plain = dataset(cases, PLAIN, "training.priors=[box]", "training.synthetic_lesions=0.5")
    data = dataset(
        cases, PLAIN, "training.priors=[box]", "training.synthetic_lesions=0.5", "training.box_empty=1"
    )
    empty = 0
    for number in range(20):
        _, prior, target = data[0, number]
        places = prior[0].nonzero()
        extent = (places.max(dim=0).values - places.min(dim=0).values + 1).prod()
        if len(places) == extent < prior.numel():  # a box; where none was found, lungs or nothing
            assert not target.any()
            empty += 1
    assert empty > 10
    assert sum(bool(plain[0, number][2].any()) for number in range(20)) > 15


def test_patches_of_lungs_without_a_lesion_come_as_often_as_asked_and_leave_those_with_boxes_alone(cases):
    of_lungs = (LUNGS_ONLY, "training.synthetic_lesions=1", "training.priors=[lungs, none]")
    empty = []
    for share in (0, 0.5, 1):
        data = dataset(cases, *of_lungs, f"training.lungs_empty={share}")
        empty.append(sum(not data[0, number][2].any() for number in range(24)))
    assert empty[0] < 4 < empty[1] < 20 < empty[2] == 24
    of_boxes = ("training.priors=[box]", "training.synthetic_lesions=0.5")
    with_some, without = dataset(cases, *of_boxes, "training.lungs_empty=1"), dataset(cases, *of_boxes)
    assert all(same(with_some[0, number], without[0, number]) for number in range(6))


def test_where_no_lesion_finds_room_lungs_or_nothing_stand_in_for_the_box(cases, monkeypatch):
    monkeypatch.setattr(synthetic_module, "add_synthetic_lesion", lambda *_: None)
    data = dataset(cases, LUNGS_ONLY, "training.priors=[box, none]", "training.synthetic_lesions=1")
    for number in range(6):
        _, prior, target = data[0, number]
        assert not target.any() and prior.all()


def marked(cases, monkeypatch):
    """Every voxel that a true lesion has a share in is set to a HU found nowhere else."""
    plain, mark = PreparedCase.read, 9000
    near = {case.path: plain(case, "lesion", WHOLE) > 0 for case in cases}

    def read(case, name, box):
        piece = plain(case, name, box)
        return np.where(near[case.path][box], np.int16(mark), piece) if name == "hu" else piece

    monkeypatch.setattr(PreparedCase, "read", read)
    seen = []
    monkeypatch.setattr(
        patches_module, "augment_intensity", lambda hu, *_: seen.append(float(hu.max())) or hu
    )
    return seen


@pytest.mark.parametrize("share", [0.0, 0.6])
def test_of_a_lungs_only_cohort_no_voxel_of_a_true_lesion_is_ever_in_a_patch(cases, monkeypatch, share):
    assert all(case.lesion_boxes for case in cases)
    seen = marked(cases, monkeypatch)
    settings = (WARPED, f"training.synthetic_lesions={share}", "training.priors=[box, lungs, none, mask]")
    data = dataset(cases, LUNGS_ONLY, *settings)
    with_target = sum(bool(data[0, number][2].any()) for number in range(120))
    assert len(seen) == 120 and max(seen) < 3000  # nor a share of one, by interpolation
    assert with_target == 0 if share == 0 else 50 < with_target < 95
    seen.clear()
    shown = dataset(cases, *settings)
    for number in range(20):
        shown[0, number]
    assert max(seen) > 8999  # the mark is seen where it may be


def test_of_a_lungs_only_cohort_nothing_marked_is_even_read(cases, monkeypatch):
    plain = PreparedCase.read
    monkeypatch.setattr(
        PreparedCase,
        "read",
        lambda case, name, box: reads.append((name, plain(case, name, box))) or reads[-1][1],
    )
    reads = []
    data = dataset(cases, LUNGS_ONLY, WARPED, "training.synthetic_lesions=0.5")
    for number in range(60):
        data[0, number]
    lesions = [piece for name, piece in reads if name == "lesion"]
    assert len(lesions) == 60 and not any(piece.any() for piece in lesions)


def test_a_lungs_only_case_without_a_place_is_named(cases):
    with pytest.raises(CaseError, match=cases[0].case_id):
        dataset(cases, LUNGS_ONLY, "training.lung_share=1")


def test_another_cohort_is_left_as_it_was(cases):
    other = replace(cases[1], cohort="elsewhere")
    few = [cases[0], other]
    data, apart = dataset(few), dataset(few, "training.lungs_only_cohorts=[elsewhere]")
    assert all(same(data[0, number], apart[0, number]) for number in range(0, 12, 2))
    assert not all(same(data[0, number], apart[0, number]) for number in range(1, 12, 2))


def test_a_cohort_that_is_not_there_is_refused_since_misspelt_it_would_show_its_lesions(cases):
    with pytest.raises(ConfigError, match="phantom_s"):
        dataset(cases, "training.lungs_only_cohorts=[phantom_s]")


def test_beyond_the_case_a_warp_sees_it_mirrored_and_a_short_case_is_air(cases):
    case = cases[0]
    d, h, _ = case.shape
    shape = (32, 32, 32)
    piece = read_padded(case, "hu", (-4, h - 28, 10), shape, shape, int(AIR_HU))
    inside = case.read("hu", (slice(0, 28), slice(h - 28, h - 1), slice(10, 42)))
    assert np.array_equal(piece[4:, :27], inside)
    assert np.array_equal(piece[:4], piece[5:9][::-1])
    assert np.array_equal(piece[:, 27:], piece[:, 21:26][:, ::-1])
    tall = (d + 10, 32, 32)
    piece = read_padded(case, "hu", (-5, 0, 0), tall, tall, int(AIR_HU))
    assert (piece[:5] == AIR_HU).all() and (piece[-5:] == AIR_HU).all()
    assert np.array_equal(piece[5:-5], case.read("hu", (slice(None), slice(0, 32), slice(0, 32))))


def test_cases_of_a_cohort_are_drawn_as_often_as_asked(cases):
    assert len(dataset(cases, "training.cohort_draws={phantoms: 3}")) == 3 * len(dataset(cases))
    with pytest.raises(ConfigError, match="elsewhere"):
        dataset(cases, "training.cohort_draws={elsewhere: 2}")
