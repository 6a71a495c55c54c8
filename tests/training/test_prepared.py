"""The cache beside a training: it keeps where voxels lie, and makes anew what is damaged."""

import json
import struct

import numpy as np
import pytest
import SimpleITK as sitk
from safetensors import safe_open
from safetensors.numpy import save_file
from tiny_cases import tiny_case

from radiogen.errors import CaseError
from radiogen.io.cases import find_cases
from radiogen.model.network_input import Preprocessing, to_network_grid
from radiogen.training import prepared as prepared_module
from radiogen.training.prepared import checksum, learnable, near_lesion, prepare, read_about
from radiogen.volume import array_of, volume_like

SETTINGS = Preprocessing(spacing_mm=(8, 7, 6), layout="patches", size=(32, 32, 32))
WHOLE = (slice(None),) * 3


@pytest.fixture
def case(tmp_path):
    return tiny_case(tmp_path / "cases" / "one")


@pytest.fixture
def made(case, tmp_path):
    [made] = prepare([case], SETTINGS, tmp_path / "cache")
    return made


def arrays_of(made):
    return {name: made.read(name, WHOLE) for name in ("hu", "lesion", "lungs")}


def test_the_cache_holds_the_case_on_the_networks_grid_and_where_that_lies(case, made):
    sample = to_network_grid(case.ct(), case.lungs(), case.lesion(), SETTINGS)
    expected = {"hu": sample.ct, "lesion": sample.lesion, "lungs": sample.lungs}
    for name, array in arrays_of(made).items():
        assert np.array_equal(array, array_of(expected[name]))
    about = read_about(made.path)
    assert tuple(about["origin"]) == sample.ct.GetOrigin()
    assert tuple(about["spacing"]) == sample.ct.GetSpacing() == made.spacing_mm
    assert tuple(about["direction"]) == sample.ct.GetDirection()
    assert made.cohort == "phantoms"
    for label, box in made.lesion_boxes.items():
        inside = made.read("lesion", WHOLE) == label
        assert inside[box].sum() == inside.sum() > 0


def test_what_is_whole_is_not_made_again(case, made, tmp_path, monkeypatch):
    monkeypatch.setattr(prepared_module, "to_network_grid", None)
    assert prepare([case], SETTINGS, tmp_path / "cache") == [made]


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def empty(path):
    path.write_bytes(b"")


def flip_a_voxel(path):
    content = bytearray(path.read_bytes())
    content[-5000] ^= 0x10
    path.write_bytes(content)


def flip_a_box(path):
    content = path.read_bytes()
    at = content.index(b"lesion_boxes")
    digit = next(i for i in range(at + 20, len(content)) if chr(content[i]).isdigit())
    path.write_bytes(content[:digit] + str((content[digit] - 47) % 10).encode() + content[digit + 1 :])


def break_the_header(path):
    content = bytearray(path.read_bytes())
    content[:8] = struct.pack("<Q", 1 << 60)
    path.write_bytes(content)


def another_version(path):
    with safe_open(path, framework="np") as file:
        about = {**json.loads(file.metadata()["about"]), "version": 1}
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    text = json.dumps(about)
    save_file(arrays, path, metadata={"about": text, "checksum": checksum(text, arrays)})


@pytest.mark.parametrize("damage", [cut, empty, flip_a_voxel, flip_a_box, break_the_header, another_version])
def test_what_is_damaged_or_of_another_version_is_made_anew(case, made, tmp_path, damage):
    before, content = arrays_of(made), made.path.read_bytes()
    damage(made.path)
    assert made.path.read_bytes() != content
    assert prepare([case], SETTINGS, tmp_path / "cache") == [made]
    assert all(np.array_equal(array, before[name]) for name, array in arrays_of(made).items())


def test_a_case_without_an_outline_is_learned_from_only_where_lesions_are_made(case, tmp_path):
    case.lesion_path.unlink()
    with pytest.raises(CaseError, match="without an outline"):
        learnable([case])
    usable, said = learnable([case], need_outline=False)
    assert usable == [case] and said == []
    [made] = prepare(usable, SETTINGS, tmp_path / "cache")
    assert made.lesion_boxes == {} and not made.read("lesion", WHOLE).any()
    assert made.read("lungs", WHOLE).any() and not made.blocks("near_lesion_blocks").any()


def test_lungs_are_needed_always(case):
    case.lungs_path.unlink()
    with pytest.raises(CaseError, match="without a lung mask"):
        learnable([case], need_outline=False)


@pytest.mark.parametrize("spacing", [(8.0, 7.0, 6.0), (1.5, 1.5, 2.0), (3.0, 2.0, 9.0)])
def test_no_voxel_that_a_lesion_changed_is_held_to_be_clear_of_it(made_cases, spacing):
    """The CT is resampled with its lesion voxels at two values: what differs owes something to them."""
    settings = SETTINGS.model_copy(update={"spacing_mm": spacing})
    case = find_cases(made_cases)[0]
    ct, outline = case.ct(), case.lesion()
    hu, inside = array_of(ct), array_of(outline) > 0
    grids = [
        to_network_grid(
            volume_like(np.where(inside, value, hu).astype(np.int16), ct), case.lungs(), outline, settings
        )
        for value in (-1000, 3000)
    ]
    changed = array_of(grids[0].ct) != array_of(grids[1].ct)
    near = near_lesion(outline, grids[0].ct)
    assert changed.any() and not (changed & ~near).any()
    assert not ((array_of(grids[0].lesion) > 0) & ~near).any()
    assert near.mean() < 0.5


def test_a_lesion_smaller_than_the_networks_voxels_is_not_overlooked():
    inside = np.zeros((20, 20, 20), np.uint8)
    inside[9, 9, 9] = 1
    outline = sitk.GetImageFromArray(inside)
    grid = sitk.Image([6, 6, 6], sitk.sitkUInt8)
    grid.SetSpacing((3.5, 3.5, 3.5))
    assert near_lesion(outline, grid).any()
