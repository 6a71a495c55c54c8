"""Whatever is done to the files of a CT series: the same volume, or one line; never a traceback."""

import copy
import io

import numpy as np
import pytest
import SimpleITK as sitk
from dicom_phantom import box_hu, ct_slices
from enhanced_phantom import enhanced
from fuzzing import damage_tags, damaged, damages, fuzz, tag_damages
from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import RLELossless

from radiogen.errors import RadiogenError
from radiogen.io.dicom.files import find_dicom
from radiogen.io.dicom.series import SeriesRules, group_series, read_series

pytestmark = pytest.mark.fuzz
RULES = [SeriesRules(), SeriesRules("resample", "resample")]


def content_of(dataset):
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def answer(folder, rules):
    """The volumes of a folder, or what was said against each."""
    tree = find_dicom(folder)
    volumes = []
    for series in group_series(tree.slices):
        try:
            volumes.append(read_series(series, rules).volume)
        except RadiogenError as error:
            assert str(error).count("\n") == 0 and error.hint
    return tree, volumes


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("series")
    for k, item in enumerate(ct_slices()):
        (folder / f"{k}").write_bytes(content_of(item))
    return folder


@fuzz(40)
@given(content=st.binary(max_size=400), marked=st.booleans())
def test_any_bytes_beside_the_slices_change_nothing_or_are_named(folder, content, marked):
    other = folder / "other.dcm"
    other.write_bytes(bytes(128) + b"DICM" + content if marked else content)
    tree, volumes = answer(folder, RULES[0])
    other.unlink()
    named = {one.path for one in (*tree.slices, *tree.outlines)} | set(tree.damaged)
    assert other in named or tree.ignored
    assert volumes == [] or np.array_equal(sitk.GetArrayFromImage(volumes[0]), box_hu())


@fuzz(60)
@given(ways=damages(), which=st.integers(0, 4), rules=st.sampled_from(RULES))
def test_a_slice_with_damaged_bytes_gives_a_volume_or_one_line(folder, ways, which, rules):
    path = folder / f"{which}"
    whole = path.read_bytes()
    path.write_bytes(damaged(whole, ways))
    try:
        answer(folder, rules)
    finally:
        path.write_bytes(whole)


@fuzz(60)
@given(ways=tag_damages(), which=st.integers(0, 4), rules=st.sampled_from(RULES))
def test_a_slice_with_damaged_elements_gives_a_volume_or_one_line(folder, ways, which, rules):
    item = copy.deepcopy(ct_slices()[which])
    damage_tags(item, ways)
    path = folder / f"{which}"
    whole = path.read_bytes()
    try:
        path.write_bytes(content_of(item))
    except Exception:  # pydicom does not write it: nothing to read
        return
    try:
        answer(folder, rules)
    finally:
        path.write_bytes(whole)


@fuzz(40)
@given(ways=tag_damages(), rules=st.sampled_from(RULES))
def test_an_enhanced_file_with_damaged_elements_gives_a_volume_or_one_line(tmp_path_factory, ways, rules):
    folder = tmp_path_factory.mktemp("enhanced")
    dataset = enhanced()
    damage_tags(dataset, ways)
    try:
        (folder / "one").write_bytes(content_of(dataset))
    except Exception:  # as above
        return
    answer(folder, rules)


@fuzz(5)
@given(ways=damages())
def test_a_compressed_slice_with_damaged_bytes_gives_a_volume_or_one_line(tmp_path_factory, ways):
    folder = tmp_path_factory.mktemp("compressed")
    for k, item in enumerate(ct_slices()):
        item.compress(RLELossless)
        content = content_of(item)
        (folder / f"{k}").write_bytes(damaged(content, ways) if k == 2 else content)
    answer(folder, RULES[0])


@fuzz(30)
@given(gone=st.integers(1, 6), order=st.permutations(range(8)), rename=st.integers(0, 3))
def test_any_removed_inner_slice_is_noticed_whatever_the_files_are_called(
    tmp_path_factory, gone, order, rename
):
    folder = tmp_path_factory.mktemp("gone")
    slices = ct_slices(box_hu((11, 7, 8)))
    del slices[gone]
    endings = ["", ".dcm", ".jpg", ".IMA"]
    for k, item in zip(order, slices, strict=False):
        (folder / f"{k}{endings[(k + rename) % 4]}").write_bytes(content_of(item))
    (series,) = group_series(find_dicom(folder).slices)
    with pytest.raises(RadiogenError, match="missing between"):
        read_series(series)
