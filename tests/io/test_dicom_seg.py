from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from dicom_phantom import ct_slices, save, seg
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread

from radiogen.errors import OutlineError
from radiogen.io.dicom_files import find_dicom
from radiogen.io.dicom_seg import read_seg, segment_mask
from radiogen.io.dicom_series import read_series
from radiogen.io.dicom_volumes import group_series
from radiogen.io.mask_grid import lay_mask


@pytest.fixture(scope="module")
def ct(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ct")
    save(ct_slices(), folder)
    (series,) = group_series(find_dicom(folder).slices)
    return read_series(series).volume


def two_masks():
    lesion = np.zeros((5, 7, 11), dtype=bool)
    lesion[1:4, 2:5, 3:8] = True
    lesion[2, 3, 4] = False
    node = np.zeros_like(lesion)
    node[0, 1, 1:3] = node[4, 5, 9] = True
    return {"Heart": lesion, "Node": node}


def read_back(path, number, ct, positions=None):
    mask, _ = lay_mask(segment_mask(read_seg(path), number, ct, positions or {}), ct, path)
    return sitk.GetArrayFromImage(mask).astype(bool)


def write(item, folder):
    (path,) = save([item], folder, ["seg.dcm"])
    return path


@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL", "LABELMAP"])
def test_what_highdicom_wrote_is_read_back_equal(tmp_path, ct, kind):
    masks = two_masks()
    arrays = {name: mask.astype(np.float32 if kind == "FRACTIONAL" else bool) for name, mask in masks.items()}
    how = {"fractional_type": "PROBABILITY"} if kind == "FRACTIONAL" else {}
    path = write(seg(arrays, ct_slices(), kind=kind, **how), tmp_path)
    seg_file = read_seg(path)
    assert [segment.label for segment in seg_file.segments] == ["Heart", "Node"]
    assert seg_file.decisions == ("SEG read by highdicom",)
    for number, mask in enumerate(masks.values(), start=1):
        assert np.array_equal(read_back(path, number, ct), mask)


def test_empty_frames_between_may_be_left_out(tmp_path, ct):
    mask = np.zeros((5, 7, 11), dtype=bool)
    mask[0, 1:3, 1:4] = mask[4, 2:6, 5:9] = True
    path = write(seg({"Tissue": mask}, ct_slices(), omit_empty_frames=True), tmp_path)
    assert dcmread(path).NumberOfFrames == 2
    assert np.array_equal(read_back(path, 1, ct), mask)


@settings(max_examples=8, deadline=None)
@given(order=st.permutations(range(3)))
def test_the_order_of_the_frames_does_not_matter(tmp_path_factory, ct, order):
    folder = tmp_path_factory.mktemp("seg")
    masks = {"Heart": two_masks()["Heart"]}
    path = write(seg(masks, ct_slices()), folder)
    dataset = dcmread(path)
    frames = dataset.pixel_array
    dataset.PerFrameFunctionalGroupsSequence = [dataset.PerFrameFunctionalGroupsSequence[k] for k in order]
    bits = np.packbits(frames[list(order)].ravel(), bitorder="little").tobytes()
    dataset.PixelData = bits + b"\0" * (len(bits) % 2)
    dataset.save_as(path)
    assert np.array_equal(read_back(path, 1, ct), masks["Heart"])


@pytest.mark.parametrize("gone", ["frame content", "algorithm", "category"])
def test_a_file_that_highdicom_refuses_is_read_by_frame_positions(tmp_path, ct, gone):
    masks = {"Tissue": two_masks()["Heart"]}
    path = write(seg(masks, ct_slices()), tmp_path)
    dataset = dcmread(path)
    if gone == "frame content":
        for group in dataset.PerFrameFunctionalGroupsSequence:
            del group.FrameContentSequence
    elif gone == "algorithm":
        del dataset.SegmentSequence[0].SegmentAlgorithmType
    else:
        del dataset.SegmentSequence[0].SegmentedPropertyCategoryCodeSequence
    dataset.save_as(path)
    assert "highdicom refused it (AttributeError" in read_seg(path).decisions[0]
    assert np.array_equal(read_back(path, 1, ct), masks["Tissue"])


def test_frames_without_a_position_take_that_of_their_source_image(tmp_path, ct):
    masks = {"Tissue": two_masks()["Heart"]}
    path = write(seg(masks, ct_slices()), tmp_path)
    dataset = dcmread(path)
    for group in dataset.PerFrameFunctionalGroupsSequence:
        del group.PlanePositionSequence
        source = group.DerivationImageSequence[0].SourceImageSequence[0]
        assert source.ReferencedSOPInstanceUID
    dataset.save_as(path)
    positions = {str(item.SOPInstanceUID): tuple(item.ImagePositionPatient) for item in ct_slices()}
    assert np.array_equal(read_back(path, 1, ct, positions), masks["Tissue"])
    with pytest.raises(OutlineError, match="cannot be placed"):
        segment_mask(read_seg(path), 1, ct, {})


def test_a_segment_on_flipped_slices_lies_where_they_say(tmp_path, ct):
    flipped = ct_slices()
    for item in flipped:
        x, y, z = (float(v) for v in item.ImagePositionPatient)
        item.ImagePositionPatient = [x, y + 6 * 1.25, z]
        item.ImageOrientationPatient = [1, 0, 0, 0, -1, 0]
    mask = two_masks()["Heart"]
    path = write(seg({"Tissue": mask[:, ::-1]}, flipped), tmp_path)
    assert np.array_equal(read_back(path, 1, ct), mask)


def test_a_segment_beside_the_ct_is_refused_with_the_distance(tmp_path, ct):
    moved = ct_slices(origin=(-20.0, 10.0, -60.0))
    path = write(seg({"Tissue": two_masks()["Heart"]}, moved), tmp_path)
    with pytest.raises(OutlineError, match=r"outside the CT by 36\.2 mm"):
        read_back(path, 1, ct)


def test_an_empty_segment_is_refused(tmp_path, ct):
    path = write(seg(two_masks(), ct_slices()), tmp_path)
    with pytest.raises(OutlineError, match="segment 3 is empty"):
        segment_mask(read_seg(path), 3, ct, {})


def test_a_damaged_file_is_one_line(tmp_path):
    path = Path(tmp_path / "seg.dcm")
    path.write_bytes(b"\0" * 128 + b"DICM" + b"nonsense")
    with pytest.raises(OutlineError, match=r"seg.dcm"):
        read_seg(path)
